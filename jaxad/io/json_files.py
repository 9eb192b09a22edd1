"""JSON files: written for every reader; bounded before they are parsed, and damage is named with its file and place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.errors import DataError, JaxadError, Problem
from jaxad.io.text import writable
from jaxad.io.untrusted import JSON_DEPTH, MEBIBYTE, bytes_of, reading

Hook = Callable[[dict[str, Any]], Any]
BadJSON = Callable[[str, Path | str, str], JaxadError]
"""Makes the error of a kind ("unreadable JSON" or "damaged JSON"), the file and what is wrong with it."""


@dataclass(frozen=True)
class Size:
    """How large a kind of JSON file can be.

    Attributes:
        bytes: of the file.
        values: numbers, texts, lists and objects in it; each takes up to a hundred bytes of memory.
    """

    bytes: int
    values: int


SETTINGS = Size(16 * MEBIBYTE, 1_000_000)
"""Of settings, such as the config.json of a network, and the indexes of its shards."""
VOCABULARY = Size(64 * MEBIBYTE, 10_000_000)
"""Of the words of a tokenizer."""
LIST = Size(512 * MEBIBYTE, 10_000_000)
"""Of lists of images and captions; of 200,000 images they have 3 million values."""
ANNOTATIONS = Size(2048 * MEBIBYTE, 100_000_000)
"""Of outlines of objects; COCO's have 450 MB and 45 million values."""

# Ends at the end of the content too: one that must find its end looks for it again from every quote.
_STRING = re.compile(rb'"[^"\\]*(?:\\.?[^"\\]*)*"?', re.DOTALL)
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_HALF = re.compile(rb"\\u[dD](?:[89abdefABDEF]|[cC][0-7])")
# Both halves of a character, the half that stands for a byte of a file name that is no text, one half, other escapes.
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][cC][89a-fA-F][0-9a-fA-F]"
    rb"|(?P<half>u[dD][89a-fA-F])|.)",
    re.DOTALL,
)


def bad_list(kind: str, file: Path | str, detail: str) -> DataError:
    """The error that a JSON file of a data set cannot be used."""
    return DataError("a JSON file cannot be used:", [Problem(kind, str(file), detail)])


def read_json(file: Path, hook: Hook | None = None, *, size: Size = LIST, error: BadJSON = bad_list) -> Any:
    """The content of a JSON file; `hook` may replace each object as it is read, to keep less of a large file.

    Args:
        file: which.
        hook: called with each object.
        size: how large it can be.
        error: makes the error.

    Raises:
        JaxadError: as `error` makes it; by default DataError with one problem of kind "unreadable JSON" (missing, no
            permission, not UTF-8) or "damaged JSON", which says line and column.
    """
    content = bytes_of(file, size.bytes, lambda said: error("unreadable JSON", file, f"{said}; check path and file"))
    return parse_json(content, file, hook, size=size, error=error)


def json_text(content: Any, *, indent: int | None = None) -> str:
    """Content as strict JSON in ASCII: what UTF-8 cannot hold is escaped (`jaxad.io.text`).

    Raises:
        ValueError: a number that is not finite, which JSON does not have.
    """
    return json.dumps(writable(content), indent=indent, allow_nan=False)


def parse_json(
    content: bytes, file: Path | str, hook: Hook | None = None, *, size: Size = LIST, error: BadJSON = bad_list
) -> Any:
    """As `read_json`, of bytes that were read from `file`."""
    with reading(lambda said: error("damaged JSON", file, said)):
        if fault := _fault(content, size):
            raise error("damaged JSON", file, fault)
        try:
            return json.loads(content.decode("utf-8-sig"), object_hook=hook)
        except UnicodeDecodeError as caught:
            detail = f"byte {caught.start} is not UTF-8; get the file again"
            raise error("unreadable JSON", file, detail) from caught
        except json.JSONDecodeError as caught:
            place = f"line {caught.lineno}, column {caught.colno}: {caught.msg}"
            whole = "; the file ends there, get it again" if not caught.doc[caught.pos :].strip() else ""
            raise error("damaged JSON", file, f"{place}{whole}") from caught


def read_object(file: Path, *, size: Size = SETTINGS, error: Callable[[str], JaxadError]) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        file: which.
        size: how large it can be.
        error: makes the error of what it says, which names the file.

    Raises:
        JaxadError: as `error` makes it.
    """
    content = read_json(file, size=size, error=lambda kind, where, detail: error(f"{where}: {kind}: {detail}"))
    if not isinstance(content, dict):
        raise error(f"{file}: damaged JSON: no JSON object, but {_JSON_NAMES[type(content)]}; get it again")
    return content


def _fault(content: bytes, size: Size) -> str:
    """What can be told of JSON before it is parsed, "" for nothing."""
    if len(content) > size.bytes:
        return f"larger than {size.bytes / MEBIBYTE:,.0f} MiB, which no such file is"
    if sum(map(content.count, (b",", b"[", b"{"))) > size.values:
        return f"holds more than {size.values:,} values, which no such file does"
    opened = content.count(b"[") + content.count(b"{")
    if opened > JSON_DEPTH and _depth(content) > JSON_DEPTH:
        return f"nested too deeply, more than {JSON_DEPTH} lists and objects within each other"
    if _HALF.search(content) and any(found["half"] for found in _ESCAPES.finditer(content)):
        return "a text holds half a character (a lone surrogate)"
    return ""


def _depth(content: bytes) -> int:
    """How many lists and objects lie within each other at most."""
    plain = np.frombuffer(_STRING.sub(b"", content), np.uint8)
    depth = deepest = 0
    for start in range(0, len(plain), MEBIBYTE):
        depths = depth + np.cumsum(_STEPS[plain[start : start + MEBIBYTE]], dtype=np.int64)
        depth, deepest = int(depths[-1]), max(deepest, int(depths.max()))
    return deepest


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
