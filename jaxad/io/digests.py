"""SHA-256 digests of stored files in a manifest beside them, so that what is read is what was written."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from jaxad.errors import DataError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import Size, parse_json
from jaxad.io.threads import map_threads
from jaxad.io.untrusted import path_fault

MANIFEST = "manifest.json"
SEAL = "sha256"
CHANGED = "its bytes are not those that were written (SHA-256 differs)"
FORMAT = 1
THREADS = 4
"""Files hashed at once; hashing lets other threads run."""
MOST_JSON = 64_000_000
"""Bytes above which a JSON file that jaxad keeps beside arrays is not read."""
MOST_VALUES = 1_000_000
"""Values above which it is not parsed: each takes up to a hundred bytes of memory."""
_LOST = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO, errno.ENXIO, errno.EILSEQ}
"""What the system answers where a file is lost or its disk is bad; anything else, as no permission, can be mended."""


class DamageError(Exception):
    """Stored files are not what was written; the message names each of them."""


class ChangeError(DamageError):
    """Stored files have the size that they had, but other bytes: what was whole once has been changed in its place."""


@dataclass(frozen=True)
class Stored:
    """A file as it was written.

    Attributes:
        sha256: of its bytes, in hexadecimal.
        bytes: its size.
        changed: when it was last changed, in ns since 1970.
    """

    sha256: str
    bytes: int
    changed: int


@dataclass(frozen=True)
class Manifest:
    """What a folder holds.

    Attributes:
        folder: where the manifest lies.
        files: by name below the folder, with "/" between its parts.
        about: JSON values kept with them.
        seal: SHA-256 of all this, by which other files can refer to it.

    It remembers which files it found whole, as they were then, and reads them again only once they have changed.
    """

    folder: Path
    files: Mapping[str, Stored]
    about: Mapping[str, Any]
    seal: str
    _whole: dict[str, tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files.values())

    def check(self, whole: Callable[[str], bool] = lambda name: True) -> None:
        """Compares the files with what was written: size and date of all, every byte of some.

        Args:
            whole: of a file's name, whether to compare all bytes. Those of a file that has another date than when it
                was written, as in a copy, are compared in any case.

        Raises:
            ChangeError: files have other bytes.
            DamageError: files are missing, of another size, or links out of the folder.
            OSError: files cannot be read for reasons that can be mended, such as missing permission.
        """
        found = map_threads(lambda name: self._fault(name, whole(name)), self.files, THREADS)
        faults = {self.folder / name: fault for name, fault in zip(self.files, found, strict=True) if fault}
        if faults:
            kind = ChangeError if set(faults.values()) == {CHANGED} else DamageError
            raise kind("; ".join(f"{file}: {fault}" for file, fault in faults.items()))

    def _fault(self, name: str, whole: bool) -> str:
        """What is wrong with a file, "" for nothing."""
        file, stored = self.folder / name, self.files[name]
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                return "is no file"
            if not file.resolve().is_relative_to(self.folder.resolve()):
                return "is a link out of its folder"
            if status.st_size != stored.bytes:
                return f"has {status.st_size} bytes, of {stored.bytes} that were written"
            if (whole or status.st_mtime_ns != stored.changed) and self._whole.get(name) != _state(status):
                if digest(file) != stored.sha256:
                    return CHANGED
                self._whole[name] = _state(status)
        except OSError as error:
            if error.errno in _LOST:
                return "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
            raise
        return ""


def digest(*files: Path) -> str:
    """SHA-256 of files, one after the other, in hexadecimal."""
    hasher = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: hasher)
    return hasher.hexdigest()


def digest_once(*files: Path) -> str:
    """As `digest`; files that this process has read before, and that have not changed since, are not read again."""
    return _digest_once(files, tuple(_state(file.stat()) for file in files))


@functools.lru_cache(256)
def _digest_once(files: tuple[Path, ...], states: tuple[tuple[int, ...], ...]) -> str:
    return digest(*files)


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What differs once a file has been written again or replaced."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def write_manifest(folder: Path, names: Iterable[str], **about: Any) -> None:
    """Writes manifest.json of these files below a folder, whole or not at all.

    Args:
        folder: the files are below it.
        names: with "/" between their parts.
        about: JSON values to keep with them.
    """
    names = sorted(names)
    digests = map_threads(lambda name: digest(folder / name), names, THREADS)
    files = {}
    for name, sha256 in zip(names, digests, strict=True):
        status = (folder / name).stat()
        files[name] = {"sha256": sha256, "bytes": status.st_size, "changed": status.st_mtime_ns}
    write_whole(folder / MANIFEST, sealed({"format": FORMAT, **about, "files": files}))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        ChangeError: it is damaged.
        DamageError: it is missing, or of a form that this version does not read.
        OSError: it cannot be read for reasons that can be mended.
    """
    record = read_sealed(folder / MANIFEST)
    seal, form, files = record.pop(SEAL), record.pop("format", None), record.pop("files", None)
    if form != FORMAT:
        raise DamageError(f"{folder / MANIFEST}: of format {form}, but this jaxad reads {FORMAT}")
    if not isinstance(files, dict) or not all(_is_inside(name) and _is_stored(value) for name, value in files.items()):
        raise DamageError(f"{folder / MANIFEST}: lists no files in the form that jaxad writes")
    return Manifest(folder, {name: Stored(**value) for name, value in files.items()}, record, seal)


def sealed(record: Mapping[str, Any]) -> str:
    """JSON of a record with the SHA-256 of its values as the field "sha256"."""
    return json.dumps({**record, SEAL: _seal(record)}, indent=1)


def read_sealed(file: Path) -> dict[str, Any]:
    """What `sealed` wrote to a file.

    Raises:
        ChangeError: no JSON object, or another one.
        DamageError: missing, empty, or too large.
        OSError: it cannot be read for reasons that can be mended.
    """
    record = read_object(file)
    if record.get(SEAL) != _seal({name: value for name, value in record.items() if name != SEAL}):
        raise ChangeError(f"{file}: its values are not those that were written (SHA-256 differs)")
    return record


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ChangeError: no JSON object.
        DamageError: missing, empty, or too large.
        OSError: it cannot be read for reasons that can be mended.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise DamageError(f"{file}: is no file")
        with file.open("rb") as stream:
            content = stream.read(MOST_JSON + 1)
    except OSError as error:
        if error.errno in _LOST:
            what = "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
            raise DamageError(f"{file}: {what}") from error
        raise
    if not content:
        raise DamageError(f"{file}: is empty")
    if len(content) > MOST_JSON:
        raise DamageError(f"{file}: has more than {MOST_JSON:,} bytes")
    try:
        record = parse_json(content, file, size=Size(MOST_JSON, MOST_VALUES))
    except DataError as error:
        raise ChangeError(f"{file}: is no JSON ({'; '.join(problem.detail for problem in error.problems)})") from error
    if not isinstance(record, dict):
        raise ChangeError(f"{file}: holds no JSON object")
    return record


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _is_inside(name: str) -> bool:
    """Whether a name leads to a file below the folder, as far as names tell."""
    return bool(PurePosixPath(name).parts) and not path_fault(name)


def _is_stored(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"sha256", "bytes", "changed"}
        and isinstance(value["sha256"], str)
        and all(type(value[name]) is int for name in ("bytes", "changed"))
    )
