"""Archives that may come from anywhere, unpacked so that they can harm nothing: zip, tar, tar.gz, tar.xz, tar.bz2.

Refused: absolute paths and paths through "..", links, devices and pipes, encrypted members, two members of one name,
names that no file can have, more files, folders or bytes than `Limits`, and what grows beyond `Limits.ratio` on
unpacking or needs more than `DECODER` of memory for it. Everything is unpacked into a new
folder that gets its name when all is well: nothing of the user's is overwritten, and no half of an archive stays.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from jaxad.errors import DataError, Problem
from jaxad.io.untrusted import MEBIBYTE, path_fault, told

DECODER = 256 * MEBIBYTE
"""Bytes of memory that an .xz archive may ask for; its strongest setting takes 65 MiB, a header can claim 4 GiB."""
CHUNK = 2**20
_NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
SHOWN = 20
"""Members named in one message."""
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        size: bytes in all, unpacked.
        files: files in all.
        ratio: unpacked by packed size, beyond the first 64 MiB.
    """

    size: int = 2 * 2**40
    files: int = 5_000_000
    ratio: float = 200.0
    slack: int = 64 * 2**20

    def allowed(self, packed: int) -> int:
        """Bytes that so many packed bytes may become."""
        return min(self.size, int(packed * self.ratio) + self.slack)


@dataclass(frozen=True)
class _Member:
    name: str
    fault: str
    folder: bool
    open: Callable[[], IO[bytes]]


class _Xz(io.RawIOBase):
    """Reads .xz in bounded memory, which `lzma.open` cannot; several in a row, as that does."""

    def __init__(self, packed: Any):
        self._packed, self._decoder, self._begun = packed, None, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decoder is None or self._decoder.eof:
                # Streams may be padded with zeros, of which there can be more than one reading gives.
                rest = self._decoder.unused_data.lstrip(b"\0") if self._decoder else b""
                while not rest:
                    read = self._packed.read(CHUNK)
                    if not read:
                        return 0
                    rest = read.lstrip(b"\0") if self._begun else read
                self._decoder, self._begun = lzma.LZMADecompressor(memlimit=DECODER), True
                data = self._decoder.decompress(rest, len(buffer))
            else:
                more = self._packed.read(CHUNK) if self._decoder.needs_input else b""
                if self._decoder.needs_input and not more:
                    raise EOFError("the archive ends too early")
                data = self._decoder.decompress(more, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


def _open_xz(packed: Any) -> Any:
    return io.BufferedReader(_Xz(packed), CHUNK)


OPENERS: dict[str, Callable[..., Any]] = {
    ".tar": open,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.xz": _open_xz,
    ".txz": _open_xz,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
}
EXTENSIONS = (".zip", *OPENERS)


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive."""
    return path.name.lower().endswith(EXTENSIONS)


def sha256(file: Path, progress: Progress = lambda number: None) -> str:
    """SHA-256 of a file in hexadecimal; `progress` gets the bytes just read."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def extract(
    archive: Path, target: Path, *, limits: Limits | None = None, progress: Progress = lambda number: None
) -> None:
    """Unpacks an archive into a folder that does not exist yet, whole or not at all.

    Args:
        archive: the file.
        target: the folder to make; its parent is made too.
        limits: what the archive may hold.
        progress: called with packed bytes just read, of `archive.stat().st_size` in all.

    Raises:
        DataError: the archive is damaged or holds what is refused; names the members, `SHOWN` of them at most.
        OSError: the disk is full or fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=target.parent))
    try:
        with _damage_named(archive), archive.open("rb") as packed:
            _write(archive, _members(archive, packed, limits or Limits(), progress), folder, limits or Limits())
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unpacked_size(archive: Path) -> int:
    """Bytes that an archive becomes; of a compressed tar, which does not say, its own size."""
    if archive.name.lower().endswith(".zip"):
        with _damage_named(archive), zipfile.ZipFile(archive) as opened:
            return sum(info.file_size for info in opened.infolist())
    return archive.stat().st_size


def _write(archive: Path, members: Iterator[_Member], folder: Path, limits: Limits) -> None:
    problems: list[Problem] = []
    seen: set[str] = set()
    room, most = limits.allowed(archive.stat().st_size), limits.files
    for member in members:
        if len(seen) >= most:
            raise _refused(
                archive, [Problem("too many files", member.name, f"more than {most}; no data set has as many")]
            )
        parts = PurePosixPath(member.name).parts
        fault = member.fault or path_fault(member.name)
        if not fault and "/".join(parts) in seen and not member.folder:
            fault = "there is another of that name"
        seen.add("/".join(parts))
        if fault:
            problems.append(
                Problem("refused member", member.name, f"{fault}; get the archive from its official source")
            )
        elif not parts or parts[0] == "__MACOSX" or problems:
            continue
        elif member.folder:
            folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        else:
            room = _copy(archive, member, folder.joinpath(*parts), room)
    if problems:
        raise _refused(archive, problems)


def _copy(archive: Path, member: _Member, file: Path, room: int) -> int:
    """Writes a member's bytes; returns how many more the archive may become."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, file.open("xb") as out:
        while chunk := source.read(CHUNK):
            room -= len(chunk)
            if room < 0:
                raise _bomb(archive, member.name)
            out.write(chunk)
    return room


def _members(archive: Path, packed: IO[bytes], limits: Limits, progress: Progress) -> Iterator[_Member]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _zip_members(archive, packed, limits, progress)
    opener = next((opener for extension, opener in OPENERS.items() if name.endswith(extension)), None)
    if opener is None:
        raise DataError(f"{archive}: no archive by its name; known are {', '.join(EXTENSIONS)}")
    counted: Any = _Counted(packed, progress)
    stream = counted if opener is open else opener(counted)
    return _tar_members(archive, _Counted(stream, _limit(archive, limits)))


def _zip_members(archive: Path, packed: IO[bytes], limits: Limits, progress: Progress) -> Iterator[_Member]:
    with zipfile.ZipFile(packed) as opened:
        for info in opened.infolist():
            # Unix keeps the kind of a file in the upper half; other systems leave it 0.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.file_size > limits.allowed(info.compress_size):
                raise _bomb(archive, info.filename)
            fault = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else _kind(kind)
            if info.flag_bits & 1:
                fault = "encrypted; decrypt it first"
            elif info.compress_type == zipfile.ZIP_LZMA:
                # Its decoder takes as much memory as the member says.
                fault = "packed with LZMA; pack it otherwise"
            yield _Member(info.orig_filename, fault, info.is_dir(), lambda info=info: opened.open(info))
            progress(info.compress_size)


def _tar_members(archive: Path, stream: Any) -> Iterator[_Member]:
    # As a stream, so that a header that claims to be huge is counted while it is read.
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as opened:
        for info in opened:
            fault = ""
            if info.issym() or info.islnk():
                fault = _kind(stat.S_IFLNK)
            elif info.issparse() or not (info.isreg() or info.isdir()):
                fault = "neither a plain file nor a folder"

            def content(info: tarfile.TarInfo = info) -> IO[bytes]:
                return opened.extractfile(info) or io.BytesIO()

            yield _Member(info.name, fault, info.isdir(), content)
        # What follows the end of a tar is not read by it; a download that was cut off shows here.
        while stream.read(CHUNK):
            pass


class _Header(tarfile.TarInfo):
    """The head of a member. tarfile takes a damaged or missing one for the end, which only zeros are."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf and not any(buf):
                raise
            raise tarfile.ReadError(str(error)) from error


class _Counted:
    """A stream that reports how many bytes are read from it."""

    def __init__(self, stream: Any, report: Progress):
        self._stream, self._report = stream, report

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._report(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _limit(archive: Path, limits: Limits) -> Progress:
    room = limits.allowed(archive.stat().st_size)

    def count(number: int) -> None:
        nonlocal room
        room -= number
        if room < 0:
            raise _bomb(archive, "")

    return count


def _kind(mode: int) -> str:
    return "a link" if mode == stat.S_IFLNK else "neither a plain file nor a folder"


def _bomb(archive: Path, member: str) -> DataError:
    detail = "grows beyond all measure on unpacking; get the archive from its official source"
    return _refused(archive, [Problem("archive bomb", member or str(archive), detail)])


def _refused(archive: Path, problems: list[Problem]) -> DataError:
    more = f", the first {SHOWN}" if len(problems) > SHOWN else ""
    return DataError(f"{archive}: nothing was unpacked, {len(problems)} problems{more}:", problems[:SHOWN])


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except NotImplementedError as error:
        # How zipfile names a method of compression that it does not know, such as Deflate64.
        detail = f"packed in a way that Python cannot read ({error})"
        raise DataError(f"{archive}: {detail}; unpack it with another tool and give the folder") from error
    # Damage can raise anything, and what the system says of names that cannot stand side by side is the archive's too.
    except Exception as error:
        # gzip and bz2 report damage as an error without number; those of the system have one.
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _NAMES:
            raise
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> DataError:
    return DataError(f"{archive}: a damaged archive ({told(error)}); get it again")
