"""The exceptions users see. Every message names the file, field or key at fault and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class JaxadError(Exception):
    """Base of every error that jaxad raises on purpose; the command line prints it without a traceback.

    Attributes:
        abrupt: whether the command line then ends without Python's clean-up, which would fail as well.
    """

    abrupt: ClassVar[bool] = False


class ConfigError(JaxadError, ValueError):
    """A configuration value is impossible or contradicts another; the message names the field."""


class InUseError(ConfigError):
    """A folder is written by another process or thread; the message says by which."""


class CheckpointError(JaxadError):
    """A checkpoint or workdir is missing, damaged, of another detector or of a newer format."""


class DamagedError(CheckpointError):
    """Files of a checkpoint are not those that were written; names each. An earlier step may be whole."""


class ChangedError(DamagedError):
    """Files of a checkpoint have the size that they had, but other bytes: a finished step was changed in its place."""


class TrainingError(JaxadError, ArithmeticError):
    """Training or its result is of no use, e.g. a loss that is not finite; the message names step and term."""


class WeightsError(JaxadError):
    """Pretrained weights do not fit the network; the message lists every difference at once."""


class ProtocolError(JaxadError, ValueError):
    """An evaluation protocol is unknown or does not fit its input."""


class ReportError(JaxadError, ValueError):
    """A report lacks keys or has values of a wrong type; the message lists them all."""


class MachineError(JaxadError):
    """What jaxad runs on fails it: no such device, no memory, a full disk, a broken package; says what to do."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set.

    Attributes:
        kind: short machine-readable name, e.g. "truncated image" or "mask size".
        file: the file or folder at fault, as the user would type it.
        detail: what is wrong with it and how to mend it.
        fatal: whether the image cannot be used; a note that is not fatal never stops a run.
    """

    kind: str
    file: str
    detail: str
    fatal: bool = True

    def __str__(self) -> str:
        # A line for each problem, also where the name of a file holds a new line.
        return f"{self.file}: {self.kind}: {self.detail}".replace("\n", "\\x0a")


class DataError(JaxadError):
    """A data set cannot be used as it is; carries every problem found, not only the first.

    Attributes:
        problems: all problems, in the order of the files.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()):
        self.problems = tuple(problems)
        lines = [message, *(f"  {problem}" for problem in self.problems)]
        super().__init__("\n".join(lines))
