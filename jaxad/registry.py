"""Things found by name: detectors, backbone families, protocols, data sets; jaxad's own and other packages'."""

from __future__ import annotations

import difflib
import functools
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Generic, TypeVar

from jaxad.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries by name, each imported when it is first asked for.

    An entry comes from one of three places, the first that has it: `register` in this process; a module of `package`,
    whose file name is the entry's name with hyphens for underscores and which registers its entry when it is imported
    (modules whose names begin with an underscore are no entries); or an entry point of another installed package, whose
    name is that of the entry and whose object is the entry.

    Args:
        kind: what an entry is called in messages, e.g. "detector".
        group: entry-point group in which other packages name theirs, e.g. "jaxad.detectors".
        package: dotted name of the package whose modules are jaxad's own entries; None if all are registered otherwise.
    """

    def __init__(self, kind: str, *, group: str, package: str | None = None):
        self.kind, self.group, self._package = kind, group, package
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Adds an entry and returns it. Running the file of an entry anew, as notebooks do, replaces it.

        Raises:
            ConfigError: another entry has that name.
        """
        if (known := self._entries.get(name)) is not None and not _is_same(known, entry):
            raise ConfigError(f"{self.kind} {name!r}: {_origin(entry)} and {_origin(known)} both have this name")
        self._entries[name] = entry
        return entry

    def names(self) -> tuple[str, ...]:
        """All names, jaxad's own first, without importing an entry."""
        return tuple(dict.fromkeys((*self._own(), *self._entries, *(point.name for point in self._points()))))

    def get(self, name: str) -> T:
        """The entry of that name.

        Raises:
            ConfigError: there is none; names the nearest, and all there are. Or another package's cannot be loaded.
        """
        if name not in self._entries and name in self._own():
            importlib.import_module(f"{self._package}.{name.replace('-', '_')}")
        if name not in self._entries:
            for point in self._points():
                if point.name == name:
                    # Importing it may have registered it already.
                    self._entries.setdefault(name, self._loaded(point))
        if name not in self._entries:
            raise ConfigError(unknown(self.kind, name, self.names()))
        return self._entries[name]

    def entries(self) -> dict[str, T]:
        """All entries by name; imports every one. Those of other packages that cannot be loaded are left out."""
        found = {}
        for name in self.names():
            try:
                found[name] = self.get(name)
            except ConfigError as error:
                warnings.warn(str(error), stacklevel=2)
        return found

    def _own(self) -> tuple[str, ...]:
        if self._package is None:
            return ()
        modules = pkgutil.iter_modules(importlib.import_module(self._package).__path__)
        return tuple(module.name.replace("_", "-") for module in modules if not module.name.startswith("_"))

    def _loaded(self, point: metadata.EntryPoint) -> T:
        where = f"{self.kind} {point.name!r}, an entry point of the package {point.dist.name if point.dist else '?'}"
        try:
            entry = point.load()
        except Exception as error:  # Another package's module may raise whatever it likes.
            raise ConfigError(f"{where}, cannot be loaded: {type(error).__name__}: {error}") from error
        if (name := getattr(entry, "name", point.name)) != point.name:
            raise ConfigError(f"{where}: calls itself {name!r}; both names must be the same")
        return entry

    def _points(self) -> Iterable[metadata.EntryPoint]:
        return _points(self.group, tuple((place, _modified(place)) for place in sys.path))


def registrar(registry: Registry[type]) -> Callable[[type[T]], type[T]]:
    """A class decorator that registers a class under its attribute `name`."""

    def register(cls: type[T]) -> type[T]:
        registry.register(cls.name, cls)  # type: ignore[attr-defined]
        return cls

    return register


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message that nothing of that name is known, with the nearest that is."""
    known = tuple(known)
    near = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{kind} {name!r} is unknown{hint}; there are {', '.join(known)}"


@functools.lru_cache(maxsize=32)
def _points(group: str, places: tuple[tuple[str, int], ...]) -> tuple[metadata.EntryPoint, ...]:
    """The entry points of a group, of the places of `sys.path` and their dates: looking takes tens of milliseconds."""
    return tuple(metadata.entry_points(group=group))


def _modified(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def _is_same(one: object, other: object) -> bool:
    """Whether two entries are the same thing, perhaps from a file that was run anew."""
    return _origin(one) == _origin(other) if hasattr(one, "__qualname__") else one == other


def _origin(entry: object) -> str:
    thing = entry if hasattr(entry, "__qualname__") else type(entry)
    return f"{thing.__module__}.{thing.__qualname__}"  # type: ignore[attr-defined]
