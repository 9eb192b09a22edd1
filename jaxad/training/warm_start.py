"""Warm starts: the trained parameters of a run as those that another one begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flax import nnx

from jaxad import parallel
from jaxad.detector import Detector
from jaxad.errors import CheckpointError, DamagedError
from jaxad.inference.steps import FOLDER, Step, newest, numbered, step_folders
from jaxad.inference.stored_arrays import declared, read_arrays
from jaxad.nn import module_state

LISTED = 20
"""Parameters that a message lists at most."""


class WarmStart:
    """Where a run begins: read before its workdir is claimed, unless the run has steps of its own that record it.

    Of several processes each reads it, all call the same, and all fail together where one cannot or reads another step.

    Args:
        detector: as created; takes the parameters.
        checkpoint: workdir or one step's folder of the other run.
        workdir: of the run that begins there.

    Attributes:
        record: of the other run, as `begin_from` gives it.

    Raises:
        CheckpointError: as `begin_from` does.
        ConfigError: another process cannot read it, or has read something else.
    """

    def __init__(self, detector: Detector, checkpoint: Path | str, workdir: Path):
        self._checkpoint, self._read = checkpoint, False
        self.record = self._agreed(lambda: origin_of(workdir, checkpoint) or self._begun(detector))

    def taken(self, detector: Detector) -> dict[str, Any]:
        """The record, once the detector has the parameters: for a run whose own steps turned out to be damaged."""
        self.record = self._agreed(lambda: self.record if self._read else self._begun(detector))
        return self.record

    def _begun(self, detector: Detector) -> dict[str, Any]:
        record, self._read = begin_from(detector, self._checkpoint), True
        return record

    def _agreed(self, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What every process has read, of the same step."""
        record = parallel.in_all(read)
        parallel.check_same(str(record.get("sha256")), f"warm start from {self._checkpoint}: the parameters")
        return record


def begin_from(detector: Detector, checkpoint: Path | str) -> dict[str, Any]:
    """Gives a detector the trained parameters (`nnx.Param`) of a run, those that were to be evaluated.

    All else that the run holds, statistics, memories, optimizer and data, is left; frozen networks may be others.

    Args:
        detector: as created.
        checkpoint: workdir, or one step's folder.

    Returns:
        What to record: "run" as given, its "step", and the "sha256" of all that the step holds.

    Raises:
        CheckpointError: there is none; or of another detector, or with parameters of other names or shapes, all listed.
    """
    (arrays, record), _ = newest(checkpoint, lambda step: _parameters(step, detector, checkpoint))
    module_state.refill(detector, arrays)
    return record


def origin_of(workdir: Path, checkpoint: Path | str) -> dict[str, Any] | None:
    """What the newest checkpoint in `workdir` records of the warm start that its run began with.

    A run that has steps of its own needs no other's: None where it has none, began without, or where `checkpoint` is
    another place than the one recorded and there is a run or step there to compare with.
    """
    if not numbered(workdir / FOLDER):
        return None
    with suppress(DamagedError):
        recorded = newest(workdir, lambda step: step.meta)[0].get("from")
        if recorded is not None and (_is_named(checkpoint, recorded) or not _is_there(checkpoint)):
            return recorded
    return None


def _is_named(checkpoint: Path | str, recorded: Mapping[str, Any]) -> bool:
    """Whether a place is that of a record: the run as it was given, or the step of it that was taken."""
    run = Path(recorded["run"])
    return Path(checkpoint).absolute() in (run.absolute(), (run / FOLDER / str(recorded["step"])).absolute())


def _is_there(checkpoint: Path | str) -> bool:
    try:
        return bool(step_folders(checkpoint))
    except CheckpointError:
        return False


def _parameters(step: Step, detector: Detector, checkpoint: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of a step by path, and what to record of it."""
    if step.meta["system"] != detector.name or "model" not in step.items:
        raise CheckpointError(f"warm start from {step.folder}: holds {step.meta['system']}, not {detector.name}")
    step.check("model")
    _, wanted, others = module_state.split(detector, nnx.Param, ...)
    # What is no parameter here may be one there only where the detectors differ in more than that.
    stored = {path: array for path, array in declared(step, "model").items() if path not in others}
    problems = [f"{path}: {array.shape} here, not there" for path, array in wanted.items() if path not in stored]
    problems += [f"{path}: {array.shape} there, not here" for path, array in stored.items() if path not in wanted]
    problems += [
        f"{path}: {stored[path].shape} there, {array.shape} here"
        for path, array in wanted.items()
        if path in stored and stored[path].shape != array.shape
    ]
    if problems:
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        lines = "\n".join(f"  {line}" for line in [*sorted(problems)[:LISTED], *more])
        raise CheckpointError(f"warm start from {step.folder}: its parameters are not those of this model:\n{lines}")
    arrays = read_arrays(step, "model")
    kept = {path: arrays[path].astype(wanted[path].dtype) for path in wanted}
    return kept, {"run": str(checkpoint), "step": step.number, "sha256": step.manifest.seal}
