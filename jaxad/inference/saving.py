"""What goes wrong while Orbax writes a checkpoint, said once and in one line."""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxad.errors import CheckpointError, JaxadError
from jaxad.inference.steps import numbered
from jaxad.io.digests import MANIFEST
from jaxad.io.signals import held

_SYSTEM = re.compile(r": ([A-Z][^:\[\]]*) \[os_error_code='\d+'\]")
"""How TensorStore gives an error of the system."""


class SaveError(CheckpointError):
    """A checkpoint could not be written; names the last one that was."""

    abrupt = True
    # Orbax leaves work in its threads that ends in further errors while Python is taken down.


@contextmanager
def saving(folder: Path, step: int | None = None, settle: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Work of Orbax on the steps in a folder; signals wait for it.

    Args:
        folder: of the steps.
        step: the one that is written.
        settle: waits for earlier steps that are still being written.

    Raises:
        SaveError: in place of whatever Orbax, TensorStore or the disk raise.
    """
    _mute()
    with held():
        try:
            yield
        except JaxadError:
            raise
        except Exception as error:
            with suppress(Exception):
                settle()
            what = "a step" if step is None else f"step {step}"
            raise SaveError(f"{folder}: {what} could not be saved ({_cause(error)}); {_kept(folder)}") from error


def _cause(error: BaseException) -> str:
    chain: BaseException | None = error
    while chain is not None:
        if found := _SYSTEM.search(str(chain)):
            return found[1]
        if isinstance(chain, OSError) and chain.strerror:
            return chain.strerror
        chain = chain.__cause__ or chain.__context__
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _kept(folder: Path) -> str:
    steps = [step.name for step in numbered(folder) if (step / MANIFEST).is_file()]
    kept = f"step {steps[0]} is kept" if steps else "no earlier one is there"
    return f"{kept}. Make room on the disk, or mend it, and run the same again to go on"


@functools.cache
def _mute() -> None:
    """Leaves out what Orbax's threads log and print of errors that are raised as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)
    before = sys.unraisablehook

    def hook(args: Any) -> None:
        if not (isinstance(args.exc_value, RuntimeError) and str(args.exc_value) == "Event loop is closed"):
            before(args)

    # TensorStore's threads print what reaches them after the loop that waited for them has failed.
    sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
    raised = ".orbax-checkpoint-tmp" in record.getMessage() or "/orbax/checkpoint/" in record.pathname
    return record.levelno < logging.ERROR or not raised
