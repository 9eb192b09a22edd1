"""The command line: one file for each command; only the command that runs imports jax."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxad import __version__
from jaxad.cli._printing import message, print_traceback, show, what_to_report
from jaxad.cli._terminal import open_streams
from jaxad.errors import JaxadError, MachineError
from jaxad.io.foreign import check_environment, explained
from jaxad.io.program_cache import keep_none, keep_programs
from jaxad.io.signals import Stopped, listening
from jaxad.io.text import visible

if TYPE_CHECKING:
    from jaxad.cli._command import Command

COMMANDS = {
    "demo": "Demo",
    "fit": "Fit",
    "evaluate": "Evaluate",
    "compare": "Compare",
    "predict": "Predict",
    "threshold": "ChooseThreshold",
    "serve": "Serve",
    "update": "Update",
    "drift": "Drift",
    "export": "Export",
    "verify": "Verify",
    "check": "Check",
    "prepare": "Prepare",
    "caption": "Caption",
    "convert": "Convert",
    "models": "Models",
    "bench": "Bench",
}
"""The class of each command, in the file of its name."""
_DESCRIPTION = "Visual anomaly detection in JAX. `jaxad --version` prints the version."


def parse(words: Sequence[str]) -> Command:
    """The command that the words name.

    Raises:
        SystemExit: help was asked for (0), or the words do not fit (2); what to say has been printed.
    """
    from jaxad.cli._choosing import choose

    if list(words[:1]) == ["--version"]:
        show(f"jaxad {__version__}")
        sys.exit(0)
    name = choose(words, _Commands(), prog="jaxad", description=_DESCRIPTION)
    return _Commands().get(name).parse(words[1:])


class _Commands:
    """The commands by name."""

    kind = "command"

    def names(self) -> tuple[str, ...]:
        return tuple(COMMANDS)

    def get(self, name: str) -> type[Command]:
        return getattr(importlib.import_module(f"jaxad.cli.{name}"), COMMANDS[name])


def run(command: Command) -> None:
    """Runs a command; messages of errors name its flags.

    Raises:
        JaxadError: anything a user can mend.
    """
    from jaxad.cli._flags import with_flags

    try:
        check_environment()
        keep_programs() if command.compilation_cache == "on" else keep_none()
        command.run()
    except JaxadError as error:
        error.args = (with_flags(str(error), command),)
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) or (text := explained(error)) is None:
            raise
        raise MachineError(with_flags(text, command)) from error


def main() -> None:
    """Entry point of `jaxad`.

    Exit status 0, 1 for what a user can mend, 2 for wrong usage, and 128 + its number after a signal: 130 for Ctrl-C,
    143 for SIGTERM, 129 for SIGHUP.
    """
    open_streams()
    # Everything is computed in 32 bits, whatever the process would have others do.
    os.environ["JAX_ENABLE_X64"] = "0"
    _take_the_gpu()
    sys.excepthook = print_traceback
    try:
        try:
            status = _status(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Of stdout, as all others are told. Its reader may have gone, as in `jaxad check ... | head`.
        if not isinstance(error, BrokenPipeError):
            show(f"jaxad: the output cannot be written: {error.strerror or error}", error=True)
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _take_the_gpu() -> None:
    """Lets JAX have 95 % of a GPU's memory where the user has not said how much: a command has the GPU to itself.

    JAX's own 75 % leave 6 of 24 GB unused.
    """
    if not {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"} & os.environ.keys():
        os.environ["XLA_CLIENT_MEM_FRACTION"] = "0.95"


def _status(words: Sequence[str]) -> int:
    command: Command | None = None
    try:
        with listening():
            command = parse(words)
            run(command)
    except BrokenPipeError:
        raise
    except (JaxadError, OSError) as error:
        show(f"jaxad: {message(error, sys.argv)}", error=True)
        if getattr(error, "abrupt", False):
            _flush()
            os._exit(1)
        _end_alone()
        return 1
    except KeyboardInterrupt as stop:
        # One that is no `Stopped` was raised by hand, or before anybody listened.
        stopped = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
        show(f"\njaxad: {stopped}{_what_is_kept(command)}", error=True)
        return stopped.status
    except Exception as error:
        if (text := explained(error)) is not None:
            show(f"jaxad: {text}", error=True)
        else:
            error.add_note(what_to_report())
            if not _is_one_of_several():
                raise
            print_traceback(type(error), error, error.__traceback__)
        _end_alone()
        return 1
    return 0


def _is_one_of_several() -> bool:
    """Whether the process has joined others, who may wait for it."""
    parallel = sys.modules.get("jaxad.parallel")
    return parallel is not None and parallel.is_one_of_several()


def _end_alone() -> None:
    """Ends the process here if it is one of several: leaving as usual would wait for them, and they for this one."""
    if _is_one_of_several():
        _flush()
        sys.modules["jaxad.parallel"].end_alone()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _what_is_kept(command: Command | None) -> str:
    """What to add to "stopped" where the same command goes on from what is there."""
    if command is None:
        return ""
    if command.keeps:
        return f"; run the same command again for the rest, {command.keeps} are kept"
    folders = () if command.run_folder is None else (command.run_folder / "checkpoints").glob("*")
    steps = [int(name) for name in (folder.name for folder in folders) if name.isascii() and name.isdecimal()]
    if not steps:
        return ""
    saved = f"step {max(steps)} is saved in {visible(command.run_folder)}"
    return f"; {saved}, run the same command again to go on from there"
