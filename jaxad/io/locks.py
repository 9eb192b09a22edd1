"""Folders that one process at a time may write: a lock that names its holder and goes with it, however it ends.

The lock is the operating system's (`flock`) on a hidden file in the folder, which says who holds it. It is free again
when its process is gone, also by SIGKILL or a power cut. On a network file system it holds between machines only as far
as that file system passes locks on (NFS from version 4 on does, some mounts of Lustre do not); where it knows no locks
at all, the folder is used without one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxad.errors import ConfigError, InUseError

LOCK = ".lock"
"""Name of the file, which other code must not take for content."""
PATIENCE = 10
"""Times, 0.02 seconds apart, that a lock is asked for."""
RESERVE = 32 * 2**20
"""Bytes of the disk without which no work is begun."""
_PART = re.compile(r"\.[0-9a-f]{32}\.part")
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_held: dict[Path, tuple[int, int]] = {}
"""Thread and depth by lock file of this process."""
_guard = threading.Lock()


def is_ours(folder: Path) -> bool:
    """Whether this process holds the lock of a folder, and so writes to it."""
    return (folder.resolve() / LOCK) in _held


@contextmanager
def occupied(folder: Path | str, name: str, *, within: Sequence[str] = ()) -> Iterator[Path]:
    """Keeps a folder to write results to for this thread alone; makes it, writes to it, and looks for room first.

    What interrupted processes left half written in it is removed. May be nested. Where nothing else was written, no
    trace stays, and a folder that was made goes again.

    Args:
        folder: made if missing, with its parents.
        name: the parameter that gave it, for messages.
        within: patterns of folders in it that are written as well.

    Yields:
        The folder.

    Raises:
        InUseError: another process, which is named, or another thread uses it.
        ConfigError: it cannot be made or written; its disk is full.
    """
    folder = Path(folder)
    made = _make(folder, name)
    try:
        with locked(folder / LOCK, f"{name} = {folder}"):
            require_room(folder, RESERVE, name)
            for place in (folder, *(found for pattern in within for found in folder.glob(pattern))):
                _remove_parts(place)
            yield folder
    finally:
        _unmake(made)


@contextmanager
def locked(file: Path, what: str, *, patience: int = PATIENCE) -> Iterator[None]:
    """Holds a lock file, which is removed at the end; may be nested in one thread.

    Args:
        file: in a folder that exists.
        what: is locked by it, to begin messages with.
        patience: times that it is asked for, 0.02 seconds apart.

    Raises:
        InUseError: another process or thread holds it.
        ConfigError: it cannot be written.
    """
    key, me = file.parent.resolve() / file.name, threading.get_ident()
    with _guard:
        owner, depth = _held.get(key, (me, 0))
        if owner != me:
            raise InUseError(f"{what}: another thread of this process uses it; wait for its end, or give another")
        if not depth:
            descriptor = _acquire(key, what, patience)
        _held[key] = (me, depth + 1)
    try:
        yield
    finally:
        with _guard:
            _held[key] = (me, depth)
            if not depth:
                del _held[key]
                # Removed before it is let go, so that nobody else's is.
                with suppress(OSError):
                    key.unlink()
                os.close(descriptor)


def require_writable(folder: Path, name: str) -> None:
    """Raises ConfigError unless files can be written to a folder, which may be missing and stays so."""
    made = _make(folder, name)
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"x")
            stream.flush()
    except OSError as error:
        raise _unwritable(f"{name} = {folder}", error) from error
    finally:
        _unmake(made)


def require_room(folder: Path, needed: int, name: str) -> None:
    """Raises ConfigError unless the disk of an existing folder has so many bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{name} = {folder}: {_size(needed)} needed, but its disk has {_size(free)} free; make room or give another"
        )


def is_free(file: Path) -> bool:
    """Whether no process holds a lock file."""
    try:
        require_free(file, "")
    except ConfigError:
        return False
    return True


def require_free(file: Path, what: str) -> None:
    """Raises ConfigError, which names it, where a process holds a lock file; leaves the file as it is."""
    with suppress(FileNotFoundError), _free(file, what):
        pass


@contextmanager
def _free(file: Path, what: str) -> Iterator[None]:
    """A lock file that no process holds, nor can take as long as this lasts; errors as of `require_free`.

    Raises:
        FileNotFoundError: it is not there.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unwritable(what, error) from error
    try:
        if not try_lock(descriptor):
            raise _taken(what, descriptor)
        yield
    finally:
        os.close(descriptor)


def _remove_parts(folder: Path) -> None:
    """Removes what was left half written (`jaxad.io.atomic`), but nothing that is being written."""
    for file in folder.glob(".*.part"):
        if _PART.fullmatch(file.name):
            with suppress(OSError, ConfigError), _free(file, ""):
                file.unlink()


def _acquire(file: Path, what: str, patience: int) -> int:
    """The descriptor of the locked file, new or left over."""
    while True:
        try:
            # Its last holder may just have removed the folder, too.
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _unwritable(what, error) from error
        if not _locks(descriptor, what, patience):
            refused = _taken(what, descriptor)
            os.close(descriptor)
            raise refused
        with suppress(OSError):
            # Its last holder may have removed it in the meantime, and a third process made a new one.
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_me()).encode())
    except OSError as error:
        os.close(descriptor)
        raise _unwritable(what, error) from error
    return descriptor


def _locks(descriptor: int, what: str, patience: int) -> bool:
    """As `try_lock`, and again for a moment: who only asks whether it is free holds it for as long as that takes."""
    for _ in range(patience):
        try:
            if try_lock(descriptor):
                return True
        except OSError as error:
            os.close(descriptor)
            raise _unwritable(what, error) from error
        time.sleep(0.02)
    return False


def try_lock(descriptor: int) -> bool:
    """Whether the lock on an open file is ours now, and nobody else's; True where there are no locks."""
    # Not everywhere: a module of POSIX systems.
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _taken(what: str, descriptor: int) -> InUseError:
    try:
        me = json.loads(os.read(descriptor, 4096))
        holder = f"process {me['pid']} on {me['host']}, since {me['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        # Locked, and about to be written; or by somebody else.
        holder = "which does not say who it is"
    return InUseError(f"{what}: another process uses it ({holder}); wait for its end, or give another")


def _make(folder: Path, name: str) -> list[Path]:
    """Makes a folder; returns those that were missing, the innermost first."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{name} = {folder}: is a file; give a folder")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(f"{name} = {folder}", error) from error
    return missing


def _unmake(made: Sequence[Path]) -> None:
    """Removes folders again that hold nothing."""
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


def _unwritable(what: str, error: OSError) -> ConfigError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    mend = "make room, also in number of files, or give another" if full else "mend that, or give another"
    return ConfigError(f"{what}: cannot be written ({error.strerror}); {mend}")


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"
