"""What goes wrong while Orbax writes a checkpoint, said once and in one line."""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxad import parallel
from jaxad.errors import CheckpointError, JaxadError
from jaxad.inference.steps import numbered
from jaxad.io.digests import MANIFEST
from jaxad.io.signals import held

_SYSTEM = re.compile(r": ([A-Z][^:\[\]]*) \[os_error_code='(\d+)'\]")
"""How TensorStore gives an error of the system, in words and by number."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SaveError(CheckpointError):
    """A checkpoint could not be written; names the last one that was.

    Attributes:
        abrupt: whether the process ends without taking Python down.
    """

    # Orbax leaves work in its threads that ends in further errors while Python is taken down.
    abrupt = True


@contextmanager
def saving(folder: Path, step: int | None = None, settle: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Work of Orbax on the steps in a folder; signals wait for it.

    Args:
        folder: of the steps.
        step: the one that is written.
        settle: waits for earlier steps that are still being written.

    Raises:
        SaveError: in place of what the system says of the disk, whether it comes from Orbax, TensorStore or Python.
        LostProcessError: another process of a run on several hosts has died.
    """
    _mute()
    with held(), parallel.with_others():
        try:
            yield
        except JaxadError:
            raise
        except Exception as error:
            if (cause := _of_system(error)) is None:
                raise
            with suppress(Exception):
                settle()
            what = "a step" if step is None else f"step {step}"
            number, said = cause
            raise SaveError(f"{folder}: {what} could not be saved ({said}); {_kept(folder, number)}") from error


def _of_system(error: BaseException) -> tuple[int, str] | None:
    """What the system said that made an error, by number and in words; None for an error of another kind."""
    chain: BaseException | None = error
    while chain is not None:
        if found := _SYSTEM.search(str(chain)):
            return int(found[2]), found[1]
        # That of Orbax which waits for other processes in vain is an OSError too, without a number.
        if isinstance(chain, OSError) and chain.errno is not None:
            return chain.errno, chain.strerror or os.strerror(chain.errno)
        chain = chain.__cause__
    return None


def _kept(folder: Path, number: int) -> str:
    steps = [step.name for step in numbered(folder) if (step / MANIFEST).is_file()]
    kept = f"step {steps[0]} is kept" if steps else "no earlier one is there"
    mend = "Make room on the disk" if number in _FULL else "Mend the disk, or the rights on it,"
    return f"{kept}. {mend} and run the same again to go on"


@functools.cache
def _mute() -> None:
    """Leaves out what Orbax's threads log of errors that are raised as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    raised = ".orbax-checkpoint-tmp" in record.getMessage() or "/orbax/checkpoint/" in record.pathname
    return record.levelno < logging.ERROR or not raised
