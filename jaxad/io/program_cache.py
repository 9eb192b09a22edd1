"""JAX's cache of compiled programs in the user's cache folder, so that a second process compiles nothing.

It is turned on by what compiles, not by `import jaxad`, and never where the user has set one of JAX's own. The variable
`JAXAD_COMPILATION_CACHE` turns it off, or names another folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
import zlib
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from jaxad.errors import ConfigError
from jaxad.io.places import cache_folder
from jaxad.io.threads import cpus

VARIABLE = "JAXAD_COMPILATION_CACHE"
OFF = "off"
LIMIT = 4_000_000_000
"""Bytes of programs that are kept, those for other processors and numbers of CPUs included; those not used for longest
go first."""
_OWN = "JAX_COMPILATION_CACHE_DIR"
_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_CHECKED = "checked"
_PROGRAMS = "*-cache"
_ZSTD = b"\x28\xb5\x2f\xfd"


def keep_programs() -> None:
    """Has JAX keep the programs that it compiles from now on in this process, small ones too; does so once.

    Where JAX is not imported yet, it finds that in the environment.
    """
    if os.environ.get(VARIABLE, "").lower() == OFF or os.environ.get(_OWN):
        return
    jax: Any = sys.modules.get("jax")
    if jax is not None and (jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache):
        return
    folder = _prepared()
    if folder is None:
        return
    least = os.environ.get(_LEAST)
    if jax is None:
        os.environ[_OWN] = str(folder)
        os.environ.setdefault(_LEAST, "0")
    else:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if least is None:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def keep_none() -> None:
    """Keeps no programs of this process, but where the user has set a cache of JAX's own."""
    os.environ[VARIABLE] = OFF


@functools.cache
def _prepared() -> Path | None:
    """The folder, tidied up; None where there can be none."""
    try:
        folder = Path(os.environ.get(VARIABLE) or cache_folder()) / f"programs-{_machine()}"
        # Whoever can write here can run code: programs are for this user alone.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            return None
        _remove_cut_off(folder)
        _remove_oldest([other for other in folder.parent.glob("programs-*") if _is_ours(other)])
        return folder if os.access(folder, os.W_OK) else None
    except (OSError, ConfigError):
        return None


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can write to a folder, as one could who made it before us in a folder of many users."""
    status = folder.stat()
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)


def _machine() -> str:
    """What tells machines apart that share a home: a program for one processor may not run on another.

    And one that XLA compiled where it had one CPU leaves those of a later process idle: it is divided among as many
    threads as there were. `NPROC` is XLA's own variable for their number.
    """
    kind = platform.machine() + platform.processor() + os.environ.get("NPROC", str(cpus()))
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind += next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return hashlib.sha256(kind.encode()).hexdigest()[:12]


def _remove_cut_off(folder: Path) -> None:
    """Removes what a killed process or a full disk cut off, which JAX would not replace; what it finds whole is not
    read again.
    """
    stamp = folder / _CHECKED
    checked = stamp.stat().st_mtime_ns if stamp.exists() else 0
    for file in folder.glob(_PROGRAMS):
        with suppress(OSError):
            if file.stat().st_mtime_ns >= checked and not _is_whole(file):
                file.unlink()
    stamp.touch()


def _remove_oldest(folders: Iterable[Path]) -> None:
    """Removes what is above `LIMIT`."""
    kept = []
    for file in chain.from_iterable(folder.glob(_PROGRAMS) for folder in folders):
        with suppress(OSError):
            status = file.stat()
            kept.append((max(status.st_atime_ns, status.st_mtime_ns), status.st_size, file))
    size = sum(bytes for _, bytes, _ in kept)
    for _, bytes, file in sorted(kept):
        if size <= LIMIT:
            break
        with suppress(OSError):
            file.unlink()
        size -= bytes


def _is_whole(file: Path) -> bool:
    content = file.read_bytes()
    try:
        _decompress(content)
    except Exception:
        # Of whichever library; an entry that is lost is compiled again.
        return False
    return True


def _decompress(content: bytes) -> None:
    """Raises where an entry is cut off. JAX takes zstd where a module for it is installed, else zlib."""
    if not content.startswith(_ZSTD):
        zlib.decompress(content)
    elif find_spec("compression.zstd" if sys.version_info >= (3, 14) else "zstandard"):
        if sys.version_info >= (3, 14):
            import_module("compression.zstd").decompress(content)
        else:
            import_module("zstandard").ZstdDecompressor().decompress(content)
    # Without the module it is another environment's, which can tell.
