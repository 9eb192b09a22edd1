"""Checkpoints of a run as they are written: by Orbax, atomically, in the background."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxad import __version__, parallel
from jaxad.config import to_json
from jaxad.detector import Detector, Pretrained
from jaxad.errors import CheckpointError
from jaxad.inference.holdout_scores import HoldoutScores
from jaxad.inference.saving import saving
from jaxad.inference.steps import FOLDER, FORMAT, numbered, open_step
from jaxad.inference.stored_arrays import read_statistics, read_training
from jaxad.inference.threshold import Threshold
from jaxad.io.digests import write_manifest
from jaxad.io.version import versions
from jaxad.nn import module_state

EMBED_LIMIT = 200_000_000
"""Pretrained networks below this many bytes travel inside every checkpoint, so that it needs no hub."""


class CheckpointWriter:
    """Writes the checkpoints of one run below `workdir/checkpoints`, keeping the newest `keep`.

    Use as a context manager: leaving it waits for the last write.
    """

    def __init__(self, workdir: Path, keep: int = 2):
        self._folder, self._writing = (workdir / FOLDER).absolute(), 0
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            # Called on the main process when all files of a step are written, and before it gets its name.
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        )
        with saving(self._folder):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if getattr(kind, "abrupt", False):
            # Orbax would fail once more, or wait for processes that are gone.
            return
        with saving(self._folder):
            self._manager.wait_until_finished()
            self._manager.close()

    @property
    def latest(self) -> int | None:
        """Newest complete step, None where there is none."""
        folders = numbered(self._folder)
        return int(folders[0].name) if folders else None

    def save(
        self,
        step: int,
        detector: Detector,
        *,
        meta: Mapping[str, Any],
        training: Any = None,
    ) -> None:
        """Starts writing a step; returns as soon as the arrays are copied.

        Args:
            step: optimizer steps done, 0 for detectors that do not train.
            detector: with the parameters to evaluate.
            meta: JSON values kept beside the arrays.
            training: pytree needed to go on: optimizer state, raw parameters.

        Raises:
            SaveError: this step, or the one before, could not be written.
        """
        source = detector.pretrained
        networks, model, embedded = _divided(detector)
        record = {
            "format": FORMAT,
            "jaxad": __version__,
            "system": detector.name,
            "class": class_name(type(detector)),
            "config": to_json(detector.config),
            "categories": list(detector.categories),
            "depths": dict(detector.depths),
            "tiling": None if detector.tiling is None else detector.tiling.to_json(),
            "regions": {category: region.to_json() for category, region in detector.regions},
            "pretrained": None if source is None else network_record(source, embedded),
            "threshold": None,
            "complete": False,
            "step": step,
            "versions": versions(),
            **meta,
        }
        items: dict[str, Any] = {"model": ocp.args.StandardSave(model), "meta": ocp.args.JsonSave(record)}
        if embedded:
            items["backbone"] = ocp.args.StandardSave(networks)
        if training is not None:
            items["training"] = ocp.args.StandardSave(training)
        self._save(step, items)

    def size(self, detector: Detector, training: Any = None) -> int:
        """Bytes that a step takes, known before it is there; `training` may be abstract."""
        networks, model, embedded = _divided(detector)
        leaves = jax.tree.leaves((model, training, networks if embedded else ()))
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)

    def complete(
        self,
        step: int,
        threshold: Threshold | None,
        holdout: HoldoutScores | None = None,
        false_alarm: float | None = None,
    ) -> None:
        """Records, beside the last step, that the run is at its end, and the decision rule where one was chosen.

        A file of its own, so that the step is safe before the rule is chosen, and the rule can be chosen anew.

        Args:
            step: the last one.
            threshold: the rule.
            holdout: scores that it was chosen from.
            false_alarm: the rate that was asked for.

        Raises:
            SaveError: the step, or this, could not be written.
            CheckpointError: the step is damaged, or the main process cannot complete it.
        """
        folder = self._folder / str(step)
        rule, scores = (None if part is None else part.to_json() for part in (threshold, holdout))
        elsewhere = CheckpointError(f"{folder}: the main process cannot complete it, and says why")
        with saving(self._folder, step, self._manager.wait_until_finished):
            self._manager.wait_until_finished()
            parallel.by_main(lambda: open_step(folder).end(rule, scores, false_alarm), elsewhere)

    def save_training(self, step: int, training: Any, *, meta: Mapping[str, Any]) -> None:
        """As `save`, for trainers of what is no detector: their state, and JSON values with "system" and "config".

        Raises:
            SaveError: this step, or the one before, could not be written.
        """
        record = {"format": FORMAT, "jaxad": __version__, "step": step, **meta}
        self._save(step, {"training": ocp.args.StandardSave(training), "meta": ocp.args.JsonSave(record)})

    def restore_training(self, step: int, like: Any) -> Any:
        """The `training` pytree of a step, on the devices and with the sharding of `like`.

        Raises:
            CheckpointError: the step is damaged, or of another training.
        """
        return read_training(open_step(self._folder / str(step)), like)

    def restore_statistics(self, step: int, detector: Detector) -> None:
        """Gives a detector what it had found of its training images, statistics and memories, when a step was saved.

        Raises:
            CheckpointError: the step is damaged, or of another detector.
        """
        read_statistics(open_step(self._folder / str(step)), detector)

    def _save(self, step: int, items: Mapping[str, Any]) -> None:
        with saving(self._folder, step, self._manager.wait_until_finished):
            # The callback of the step before must not see this one's number.
            self._manager.wait_until_finished()
            self._writing = step
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def _write_manifest(self) -> None:
        """Notes what the step that is being written holds, so that it never is there without."""
        unfinished = next(self._folder.glob(f"{self._writing}.orbax-checkpoint-tmp*"), None)
        folder = unfinished or self._folder / str(self._writing)
        files = (path for path in folder.glob("*/**/*") if path.is_file())
        write_manifest(folder, (path.relative_to(folder).as_posix() for path in files), step=self._writing)


def _divided(detector: Detector) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Arrays of the pretrained networks, all others, and whether a checkpoint holds the former."""
    _, arrays = module_state.split(detector)
    source = detector.pretrained
    networks, model = module_state.select(parallel.local(arrays), () if source is None else (source.attribute,))
    small = sum(array.nbytes for array in networks.values()) < EMBED_LIMIT
    return networks, model, source is not None and source.embeds and small


def network_record(source: Pretrained, embedded: bool) -> dict[str, Any]:
    """What a checkpoint says of pretrained networks, and whether it holds them."""
    return {
        "attribute": source.attribute,
        "id": source.id,
        "sha256": source.sha256,
        "bytes": source.bytes,
        "config": source.record,
        "swaps": source.swaps,
        "embedded": embedded,
    }


def class_name(cls: type) -> str:
    """Module and qualified name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"
