"""Errors of others in jaxad's words: of the system, JAX and its devices, Orbax's storage, half-installed packages.

They come as the exceptions of those who raise them, often under names and words that tell a user nothing. `explained`
says in one line what is wrong and what to do, and knows what it does not know: anything else is a bug of jaxad.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from jaxad.errors import ConfigError, MachineError
from jaxad.io.program_cache import OFF, VARIABLE
from jaxad.io.text import visible

_ELSEWHERE = "or choose another folder"
_OF_THE_SYSTEM = {
    errno.ENOSPC: ("No space left on device", f"the disk is full; make room, {_ELSEWHERE}"),
    errno.EDQUOT: ("Disk quota exceeded", f"your quota of the disk is used up; make room, {_ELSEWHERE}"),
    errno.EROFS: ("Read-only file system", "the file system is read-only; choose another folder"),
    errno.EACCES: ("Permission denied", f"permission denied; look at owner and rights, {_ELSEWHERE}"),
    errno.EPERM: ("Operation not permitted", f"the system does not permit it; look at owner and rights, {_ELSEWHERE}"),
    errno.EMFILE: ("Too many open files", "too many open files; raise the limit (ulimit -n) or lower workers"),
    errno.ENFILE: ("Too many open files in system", "too many open files on this machine; close other programs"),
    errno.ENAMETOOLONG: ("File name too long", "the name is too long for the file system; choose a shorter one"),
    errno.EIO: ("Input/output error", "the disk or its connection fails; save what is on it, try another one"),
    errno.ESTALE: ("Stale file handle", "the network drive has lost the file; mount it anew and run again"),
    errno.ENOMEM: ("Cannot allocate memory", "out of memory; lower batch_size or workers, or close other programs"),
    errno.EAGAIN: ("Resource temporarily unavailable", "the system starts no more processes; raise ulimit -u"),
    errno.EFBIG: ("File too large", f"the file system takes no file of this size; {_ELSEWHERE.removeprefix('or ')}"),
}
"""What the system says, and what a user is told, by number of the error."""
_OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM, errno.EAGAIN}
_MEMORY = "lower batch_size; where something is fitted, a smaller image_size needs less memory too"
_THREADS = "can't start new thread"


def explained(error: BaseException) -> str | None:
    """What is wrong and what to do, in one line; None for an error that neither machine nor packages are to blame for.

    Args:
        error: whatever was raised, with its traceback; the errors that it was raised from are looked at too.
    """
    for cause in _chain(error):
        for look in (_of_system, _of_memory, _of_packages, _of_backend, _of_device):
            if text := look(cause):
                return visible(text)
    return None


def raise_explained(error: BaseException) -> None:
    """Raises MachineError if `explained` knows the error; for places that would call a file damaged otherwise."""
    if text := explained(error):
        raise MachineError(text) from error


def raise_of_machine(error: BaseException, *, memory: bool = False) -> None:
    """Raises MachineError where machine, device or packages are to blame, not the file that could not be read.

    Args:
        error: whatever was raised.
        memory: whether too little memory is the machine's fault: where no file can ask for more than it has a right to.
    """
    of_system = isinstance(error, OSError) and error.errno in _OF_THE_MACHINE
    of_jax = _is_of_xla(error) or _of_backend(error) is not None
    if of_system or of_jax or isinstance(error, ImportError) or (memory and isinstance(error, MemoryError)):
        raise_explained(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has too little memory."""
    return _is_of_xla(error) and str(error).startswith("RESOURCE_EXHAUSTED")


def check_environment() -> None:
    """Raises ConfigError for a folder of compiled programs that cannot be, for which JAX has a warning per program."""
    for name in ("JAX_COMPILATION_CACHE_DIR", VARIABLE):
        folder = os.environ.get(name, "")
        if not folder or "://" in folder or (name == VARIABLE and folder.lower() == OFF):
            continue
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigError(
                f"{name}={folder}: is no folder and cannot be made one ({why}); change or unset it"
            ) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _of_system(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        files = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return f"{' and '.join(files)}{': ' if files else ''}{_OF_THE_SYSTEM[error.errno][1]}"
    if isinstance(error, OSError | RuntimeError | ValueError):
        # Storage in C++ has the system's words alone.
        for words, meaning in _OF_THE_SYSTEM.values():
            if words in str(error):
                return f"{meaning} ({_first_line(error)})"
    if isinstance(error, RuntimeError) and _THREADS in str(error):
        return "the system starts no more threads; lower workers, or raise the limit (ulimit -u)"
    return None


def _of_memory(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return f"out of memory ({_first_line(error) or 'of this machine'}); {_MEMORY}"
    if is_out_of_memory(error):
        return f"out of memory of the device ({_first_line(error)}); {_MEMORY}, and fsdp spreads what is trained"
    return None


def _of_packages(error: BaseException) -> str | None:
    if isinstance(error, SyntaxError) and error.filename and not _lies_in_jaxad(error.filename):
        return f"{error.filename}: a damaged file of a package ({error.msg}); install the package again"
    if isinstance(error, ImportError) and not _is_jaxad(error.name or ""):
        package = (error.name or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package == error.name:
            mend = "install jaxad again with the extras you use, pip install 'jaxad[EXTRAS]'"
            return f"the package that brings {package} is not installed; {mend}"
        return f"{package or 'a package'} cannot be imported ({_first_line(error)}); install it again"
    found = re.match(r"(?:partially initialized )?module '([\w.]+)' has no attribute", str(error))
    if isinstance(error, AttributeError) and found and not _is_jaxad(found[1]):
        package = found[1].partition(".")[0]
        return f"{package} is half installed or of a wrong version ({_first_line(error)}); install it again"
    if isinstance(error, ValueError | RuntimeError) and re.search(
        "binary incompatibility|compiled using NumPy|bad magic number|jaxlib (is )?version|bad marshal data", str(error)
    ):
        return f"packages do not fit each other ({_first_line(error)}); install jaxad anew in an empty environment"
    return None


def _of_backend(error: BaseException) -> str | None:
    # With JAX_PLATFORMS=cuda and no GPU, JAX raises an assertion without words.
    silent = isinstance(error, AssertionError) and _raised_in(error, "jax._src.xla_bridge")
    if not silent and not (isinstance(error, RuntimeError) and re.match("Unable to init|Unknown backend", str(error))):
        return None
    wanted = os.environ.get("JAX_PLATFORMS", "")
    reason = "" if silent else f" ({_first_line(error)})"
    return (
        f"JAX_PLATFORMS={wanted}: JAX finds no such device here{reason}; unset it, set it to cpu, give the container "
        "the device (docker run --gpus all), or install JAX for it (pip install 'jaxad[cuda12]')"
    )


def _of_device(error: BaseException) -> str | None:
    states = "INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|DATA_LOSS|FAILED_PRECONDITION|NOT_FOUND|UNKNOWN"
    if _is_of_xla(error) and re.match(states, str(error)):
        return (
            f"JAX or its device fails ({_first_line(error)}); look whether driver and JAX fit (nvidia-smi), whether "
            "other programs use the device and, on several hosts, whether all of them run; JAX_PLATFORMS=cpu does "
            "without it"
        )
    return None


def _is_of_xla(error: BaseException) -> bool:
    # By name, as jax takes a second to import.
    return any(cls.__name__ in ("JaxRuntimeError", "XlaRuntimeError") for cls in type(error).__mro__)


def _is_jaxad(module: str) -> bool:
    return module.partition(".")[0] in ("jaxad", "tfds_builders")


def _lies_in_jaxad(file: str) -> bool:
    """Whether a file is of jaxad, and not of a package in an environment that lies in a folder of that name."""
    _, environment, below = file.rpartition("site-packages/")
    parts = Path(below).parts
    return _is_jaxad(parts[0]) if environment else bool({"jaxad", "tfds_builders"} & set(parts))


def _raised_in(error: BaseException, module: str) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == module


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else ""
