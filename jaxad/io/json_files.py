"""JSON files: written for every reader; of those of data sets, what is damaged is named with its file and place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxad.errors import DataError, Problem
from jaxad.io.text import writable

Hook = Callable[[dict[str, Any]], Any]


def read_json(file: Path, hook: Hook | None = None) -> Any:
    """The content of a JSON file; `hook` may replace each object as it is read, to keep less of a large file.

    Raises:
        DataError: with one problem of kind "unreadable JSON" (missing, no permission, not UTF-8) or "damaged JSON",
            which says line and column.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _bad("unreadable JSON", file, f"{error.strerror}; check path and permissions") from error
    return parse_json(content, file, hook)


def json_text(content: Any, *, indent: int | None = None) -> str:
    """Content as strict JSON in ASCII: what UTF-8 cannot hold is escaped (`jaxad.io.text`).

    Raises:
        ValueError: a number that is not finite, which JSON does not have.
    """
    return json.dumps(writable(content), indent=indent, allow_nan=False)


def parse_json(content: bytes, file: Path | str, hook: Hook | None = None) -> Any:
    """As `read_json`, of bytes that were read from `file`."""
    try:
        return json.loads(content.decode("utf-8-sig"), object_hook=hook)
    except UnicodeDecodeError as error:
        raise _bad("unreadable JSON", file, f"byte {error.start} is not UTF-8; get the file again") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        whole = "; the file ends there, get it again" if not error.doc[error.pos :].strip() else ""
        raise _bad("damaged JSON", file, f"{place}{whole}") from error
    except RecursionError as error:
        raise _bad("damaged JSON", file, "nested too deeply to be a list of images") from error


def _bad(kind: str, file: Path | str, detail: str) -> DataError:
    return DataError("a JSON file cannot be used:", [Problem(kind, str(file), detail)])


class Faults:
    """Collects what is wrong in the entries of one JSON file; the first of them are listed, the others counted."""

    def __init__(self, file: Path | str, *, listed: int = 50):
        self._file, self._listed = str(file), listed
        self._places: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        return len(self._places)

    def add(self, place: str, detail: str) -> None:
        """Notes a fault at a place, e.g. "train[3].image_path"."""
        self._places.append((place, detail))

    def has(self, value: Any, place: str, *types: type | None) -> bool:
        """Whether a value is of one of the types (None for null); a fault otherwise. No number is a boolean."""
        kinds = tuple(type(None) if kind is None else kind for kind in types)
        right = isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
        if not right:
            wanted = " or ".join(_JSON_NAMES[kind] for kind in kinds)
            self.add(place, f"must be {wanted}, is {_JSON_NAMES.get(type(value), 'unknown')}")
        return right

    def fields(self, entry: Any, place: str, **types: type | tuple[type | None, ...]) -> bool:
        """Whether an entry is an object that has all these fields with these types; a fault for each that is wrong."""
        if not self.has(entry, place, dict):
            return False
        right = True
        for name, kinds in types.items():
            if name not in entry:
                self.add(f"{place}.{name}", "is missing")
                right = False
            else:
                right &= self.has(entry[name], f"{place}.{name}", *(kinds if isinstance(kinds, tuple) else (kinds,)))
        return right

    @property
    def problems(self) -> list[Problem]:
        """One problem of kind "wrong entry" for each fault listed, and one for all others."""
        shown = [
            Problem("wrong entry", self._file, f"{place}: {detail}") for place, detail in self._places[: self._listed]
        ]
        if len(self._places) > self._listed:
            shown.append(Problem("wrong entry", self._file, f"and {len(self._places) - self._listed} more"))
        return shown

    def stop(self) -> None:
        """Raises DataError with all problems if there is any."""
        if self._places:
            raise DataError(
                f"{self._file}: {len(self._places)} wrong entries; get the file again or mend them:", self.problems
            )


_JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
