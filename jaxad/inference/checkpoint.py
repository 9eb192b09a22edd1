"""Checkpoints of a run by Orbax: written atomically in the background, restored exactly, readable without their source.

A step's folder holds `model` (every array of the detector but the backbone), `backbone` (below 200 MB), `training`
(raw parameters, optimizer state and moving average: all that going on takes), `meta` (configs, categories, provenance)
and, once the run is at its end, complete.json (the threshold).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxad import __version__, parallel
from jaxad.config import from_json, to_json
from jaxad.detector import Detector
from jaxad.detectors import system
from jaxad.errors import CheckpointError, ConfigError, JaxadError
from jaxad.inference.threshold import Threshold
from jaxad.io.atomic import write_whole
from jaxad.models.backbone import backbone_from_config
from jaxad.nn import module_state
from jaxad.nn.precision import compute_dtype

FORMAT = 1
RESOURCES = ("precision", "memory_gb", "chunk", "remat")
"""Settings that say how a detector computes, not what: results change by rounding alone."""
COMPLETE = "complete.json"
EMBED_LIMIT = 200_000_000
"""Backbones below this many bytes travel inside every checkpoint (DESIGN 4.9)."""


@dataclass(frozen=True)
class Restored:
    """A checkpoint read back.

    Attributes:
        detector: ready to predict.
        threshold: as chosen by `fit`, None where there was no hold-out.
        meta: everything else that was recorded: "train", "data", "step", "protocol", versions.
        folder: the step's folder.
        notes: what differs from what was saved, for users.
    """

    detector: Detector
    threshold: Threshold | None
    meta: dict[str, Any]
    folder: Path
    notes: tuple[str, ...] = ()


class CheckpointWriter:
    """Writes the checkpoints of one run below `workdir/checkpoints`, keeping the newest `keep`.

    Use as a context manager: leaving it waits for the last write.
    """

    def __init__(self, workdir: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._folder = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """Newest complete step, None where there is none."""
        return self._manager.latest_step()

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
            step: optimizer steps done, 0 for systems that do not train.
            detector: with the parameters to evaluate.
            meta: JSON values kept beside the arrays.
            training: pytree needed to go on: optimizer state, raw parameters.
        """
        _, arrays = module_state.split(detector)
        frozen, model = module_state.select(parallel.local(arrays), ("backbone",))
        backbone = _backbone(detector)
        small = sum(array.nbytes for array in frozen.values()) < EMBED_LIMIT
        embedded = backbone is not None and detector.embeds_backbone and small
        record = {
            "format": FORMAT,
            "jaxad": __version__,
            "system": detector.name,
            "config": to_json(detector.config),
            "categories": list(detector.categories),
            "structure": detector.structure,
            "backbone": None if backbone is None else _backbone_record(backbone, embedded),
            "threshold": None,
            "complete": False,
            "step": step,
            **meta,
        }
        items: dict[str, Any] = {"model": ocp.args.StandardSave(model), "meta": ocp.args.JsonSave(record)}
        if embedded:
            items["backbone"] = ocp.args.StandardSave(frozen)
        if training is not None:
            items["training"] = ocp.args.StandardSave(training)
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def complete(self, step: int, threshold: Threshold | None) -> None:
        """Records, beside the last step, that the run is at its end, and the decision rule where one was chosen.

        A file of its own, so that the step is safe before the rule is chosen.
        """
        self._manager.wait_until_finished()
        if parallel.is_main_process():
            record = {"complete": True, "threshold": None if threshold is None else threshold.to_json()}
            write_whole(self._folder / str(step) / COMPLETE, json.dumps(record))
        parallel.wait_for_others("run complete")

    def save_training(self, step: int, training: Any, *, meta: Mapping[str, Any]) -> None:
        """As `save`, for trainers of what is no detector: their state, and JSON values with "system" and "config"."""
        record = {"format": FORMAT, "jaxad": __version__, "step": step, **meta}
        items = {"training": ocp.args.StandardSave(training), "meta": ocp.args.JsonSave(record)}
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore_training(self, step: int, like: Any) -> Any:
        """The `training` pytree of a step, on the devices and with the sharding of `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            items = ocp.args.Composite(training=ocp.args.StandardRestore(abstract))
            return self._manager.restore(step, args=items)["training"]
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise CheckpointError(
                f"checkpoint of step {step} does not hold this run's optimizer state: {error}"
            ) from error


def find_step(checkpoint: Path | str) -> Path:
    """The folder of the step that `checkpoint` names: a workdir (newest step), or one step's folder.

    Raises:
        CheckpointError: nothing there, or nothing complete.
    """
    folder = Path(checkpoint).absolute()
    if (folder / "meta").is_dir() and folder.name.isdigit():
        return folder
    root = folder / "checkpoints"
    if not root.is_dir():
        raise CheckpointError(
            f"{checkpoint}: no checkpoint there; give the --workdir of a `jaxad fit`, or a step's folder"
        )
    complete = [step for step in root.iterdir() if step.name.isdigit() and (step / "meta").is_dir()]
    if not complete:
        raise CheckpointError(f"{root}: no step was completed; run `jaxad fit` again with the same --workdir to go on")
    return max(complete, key=lambda step: int(step.name))


def read_meta(checkpoint: Path | str) -> dict[str, Any]:
    """What a checkpoint records besides its arrays.

    Raises:
        CheckpointError: missing, damaged, or of a newer format than this version reads.
    """
    folder = find_step(checkpoint)
    try:
        meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(folder / "meta")
        if (folder / COMPLETE).is_file():
            meta |= json.loads((folder / COMPLETE).read_text())
    except Exception as error:  # Orbax raises whatever its storage raises.
        raise CheckpointError(f"{folder}: damaged checkpoint: {error}") from error
    if meta.get("format", 0) > FORMAT:
        raise CheckpointError(f"{folder}: format {meta['format']} is newer than {FORMAT}; upgrade jaxad")
    return meta


def restore(checkpoint: Path | str, *, backbone: str | None = None, **config_changes: Any) -> Restored:
    """A detector as it was saved.

    Args:
        checkpoint: a workdir (newest step) or one step's folder.
        backbone: folder or id from which to load the backbone instead; its hash must be the recorded one. For systems
            that may swap it (`Detector.swaps_backbone`) also another network; the threshold is then left out.
        config_changes: fields of the detector's config to change, e.g. start_timestep=200. Only fields that change no
            parameter make sense; others are reported as a mismatch. The threshold is left out, as it holds for the
            settings it was measured under, unless only `RESOURCES` change.

    Raises:
        CheckpointError: missing, damaged, of another format, or arrays that do not fit; lists every difference.
    """
    folder, meta = find_step(checkpoint), read_meta(checkpoint)
    if not (folder / "model").is_dir():
        raise CheckpointError(
            f"{checkpoint}: holds no detector but the training of `jaxad fit {meta['system']}`, whose result is the "
            f"folder {folder.parents[1] / meta['system']}; give that to `jaxad fit vlmdiff --model.autoencoder`"
        )
    try:
        detector_class = system(meta["system"])
        recorded = from_json(detector_class.config_class, meta["config"])
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}; it may come from a newer version") from error
    config = from_json(detector_class.config_class, {**meta["config"], **config_changes})
    config.check()
    arrays = _read_arrays(folder / "model")
    network, notes = None, ()
    changed = [name for name in config_changes if getattr(config, name) != getattr(recorded, name)]
    if meta["threshold"] and (others := [name for name in changed if name not in RESOURCES]):
        settings = ", ".join(f"{name} = {getattr(config, name)}" for name in others)
        notes = (f"{settings}: the threshold, measured under other settings, is left out",)
        meta = {**meta, "threshold": None}
    if meta["backbone"] is not None:
        network, frozen = _restore_backbone(folder, detector_class, config, meta["backbone"], backbone)
        if not _is_recorded(network, meta["backbone"]):
            left_out = "; the threshold, measured with the latter, is left out" if meta["threshold"] else ""
            notes = (
                *notes,
                f"{network.id} compares in place of {meta['backbone']['id']}{left_out}",
            )
            config = dataclasses.replace(config, backbone=network.id)
            meta = {**meta, "backbone": _backbone_record(network, embedded=False), "threshold": None}
        arrays |= {f"backbone/{path}": array for path, array in frozen.items()}
    # Checkpoints of systems without networks besides the backbone did not record a structure at first.
    abstract = detector_class.abstract(config, network, meta.get("structure", {}))
    graphdef, expected = module_state.split(abstract)
    problems = [f"missing array {path}" for path in expected.keys() - arrays.keys()]
    problems += [f"unknown array {path}" for path in arrays.keys() - expected.keys()]
    problems += [
        f"{path}: shape {arrays[path].shape}, expected {expected[path].shape}"
        for path in sorted(expected.keys() & arrays.keys())
        if arrays[path].shape != expected[path].shape and path.split("/")[0] not in detector_class.memories
    ]
    if problems:
        raise CheckpointError("\n".join([f"{folder} does not fit its config:", *(f"  {p}" for p in sorted(problems))]))
    detector = module_state.merge(graphdef, arrays)
    detector.categories = tuple(meta["categories"])
    threshold = None if meta["threshold"] is None else Threshold.from_json(meta["threshold"])
    return Restored(detector, threshold, meta, folder, notes)


def _read_arrays(folder: Path) -> dict[str, Any]:
    try:
        with ocp.PyTreeCheckpointer() as reader:
            # As numpy arrays: a checkpoint is not always read on the devices that wrote it.
            tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree  # type: ignore[arg-type]
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), dict(tree))
            arrays = reader.restore(folder, restore_args=as_numpy)
    except Exception as error:  # Orbax raises whatever its storage raises.
        raise CheckpointError(f"{folder}: damaged checkpoint: {error}") from error
    return {path: jnp.asarray(array) for path, array in arrays.items()}


def _restore_backbone(folder: Path, detector_class: Any, config: Any, record: dict[str, Any], override: str | None):
    if override is None and record["embedded"]:
        frozen = _read_arrays(folder / "backbone")
        network = backbone_from_config(record["config"], dtype=compute_dtype(config.precision))
        return network, {path.removeprefix("backbone/"): array for path, array in frozen.items()}
    try:
        network = detector_class.restore_backbone(config, record, override)
    except JaxadError as error:
        raise CheckpointError(
            f"{folder}: needs the backbone {record['id']} (--backbone gives its folder): {error}"
        ) from error
    if not _is_recorded(network, record) and not (override and detector_class.swaps_backbone):
        raise CheckpointError(
            f"{network.id}: SHA-256 {_shortened(network.sha256)} is not the backbone this checkpoint was trained on "
            f"({record['id']}, {_shortened(record['sha256'])})"
        )
    return network, module_state.split(network)[1]


def _backbone_record(backbone: Any, embedded: bool) -> dict[str, Any]:
    return {
        "id": backbone.id,
        "sha256": backbone.sha256,
        "bytes": backbone.bytes,
        "config": backbone.config_json(),
        "embedded": embedded,
    }


def _is_recorded(backbone: Any, record: Mapping[str, Any]) -> bool:
    # Untrained networks have no file to hash; their names say what they are.
    return backbone.sha256 == record["sha256"] and (bool(backbone.sha256) or backbone.id == record["id"])


def _shortened(hashes: str) -> str:
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1...", hashes)


def _backbone(detector: Detector) -> Any:
    return getattr(detector, "backbone", None)
