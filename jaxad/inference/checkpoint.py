"""Checkpoints of a run by Orbax: written atomically in the background, restored exactly, readable without their source.

A step's folder holds `model` (every array of the detector but its pretrained networks), `pretrained` (those, where they
are small), `training` (raw parameters, optimizer state and moving average), `meta` (class of the detector, configs,
categories, provenance) and, once the run is at its end, complete.json (the threshold).
"""

from __future__ import annotations

import dataclasses
import json
import math
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
from jaxad.detector import Detector, Pretrained, detectors
from jaxad.errors import CheckpointError, ConfigError, JaxadError
from jaxad.inference.saving import saving
from jaxad.inference.threshold import Threshold
from jaxad.io.atomic import write_whole
from jaxad.nn import module_state
from jaxad.nn.variables import Memory

FORMAT = 2
RESOURCES = ("precision", "memory_gb", "chunk", "remat")
"""Settings that say how a detector computes, not what: results change by rounding alone."""
COMPLETE = "complete.json"
EMBED_LIMIT = 200_000_000
"""Pretrained networks below this many bytes travel inside every checkpoint, so that it needs no hub."""


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
            step: optimizer steps done, 0 for detectors that do not train.
            detector: with the parameters to evaluate.
            meta: JSON values kept beside the arrays.
            training: pytree needed to go on: optimizer state, raw parameters.
        """
        source = detector.pretrained
        networks, model, embedded = _divided(detector)
        record = {
            "format": FORMAT,
            "jaxad": __version__,
            "system": detector.name,
            "class": _class_name(type(detector)),
            "config": to_json(detector.config),
            "categories": list(detector.categories),
            "pretrained": None if source is None else _record(source, embedded),
            "threshold": None,
            "complete": False,
            "step": step,
            **meta,
        }
        items: dict[str, Any] = {"model": ocp.args.StandardSave(model), "meta": ocp.args.JsonSave(record)}
        if embedded:
            items["pretrained"] = ocp.args.StandardSave(networks)
        if training is not None:
            items["training"] = ocp.args.StandardSave(training)
        with saving(self._folder, step, self._manager.wait_until_finished):
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def size(self, detector: Detector, training: Any = None) -> int:
        """Bytes that a step takes, known before it is there; `training` may be abstract."""
        networks, model, embedded = _divided(detector)
        leaves = jax.tree.leaves((model, training, networks if embedded else ()))
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)

    def complete(self, step: int, threshold: Threshold | None) -> None:
        """Records, beside the last step, that the run is at its end, and the decision rule where one was chosen.

        A file of its own, so that the step is safe before the rule is chosen.
        """
        with saving(self._folder, step, self._manager.wait_until_finished):
            self._manager.wait_until_finished()
            if parallel.is_main_process():
                record = {"complete": True, "threshold": None if threshold is None else threshold.to_json()}
                write_whole(self._folder / str(step) / COMPLETE, json.dumps(record))
        parallel.wait_for_others("run complete")

    def save_training(self, step: int, training: Any, *, meta: Mapping[str, Any]) -> None:
        """As `save`, for trainers of what is no detector: their state, and JSON values with "system" and "config"."""
        record = {"format": FORMAT, "jaxad": __version__, "step": step, **meta}
        items = {"training": ocp.args.StandardSave(training), "meta": ocp.args.JsonSave(record)}
        with saving(self._folder, step, self._manager.wait_until_finished):
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


def _divided(detector: Detector) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Arrays of the pretrained networks, all others, and whether a checkpoint holds the former."""
    _, arrays = module_state.split(detector)
    source = detector.pretrained
    networks, model = module_state.select(parallel.local(arrays), () if source is None else (source.attribute,))
    small = sum(array.nbytes for array in networks.values()) < EMBED_LIMIT
    return networks, model, source is not None and source.embeds and small


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
            f"{checkpoint}: no checkpoint there; give the workdir of a `jaxad fit`, or a step's folder"
        )
    complete = [step for step in root.iterdir() if step.name.isdigit() and (step / "meta").is_dir()]
    if not complete:
        raise CheckpointError(f"{root}: no step was completed; run `jaxad fit` again with the same workdir to go on")
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
    if (found := meta.get("format", 0)) != FORMAT:
        mend = "upgrade jaxad" if found > FORMAT else "fit anew"
        raise CheckpointError(f"{folder}: format {found}, but this jaxad reads {FORMAT}; {mend}")
    return meta


def read_config(checkpoint: Path | str) -> Any:
    """The settings of the detector in a checkpoint, of the detector's config class.

    Raises:
        CheckpointError: missing, damaged, of another format or class, or of settings that this version does not have.
    """
    folder, meta = find_step(checkpoint), read_meta(checkpoint)
    try:
        return from_json(_detector_class(folder, meta).config_class, meta["config"])
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}; it may come from a newer version") from error


def pretrained_identity(checkpoint: Path | str) -> tuple[str, str] | None:
    """What the pretrained networks of a checkpoint are, wherever they are loaded from: hash and, of random ones, name.

    None of a detector without such networks.

    Raises:
        CheckpointError: as for `read_meta`.
    """
    record = read_meta(checkpoint)["pretrained"]
    return record and (record["sha256"], "" if record["sha256"] else record["id"])


def restore(checkpoint: Path | str, *, backbone: str | None = None, **config_changes: Any) -> Restored:
    """A detector as it was saved.

    Args:
        checkpoint: a workdir (newest step) or one step's folder.
        backbone: folder or id from which to load the pretrained networks instead; their hash must be the recorded one.
            Detectors that may swap them (`Pretrained.swaps`) also take others; the threshold is then left out.
        config_changes: fields of the detector's config to change, e.g. start_timestep=200. Only fields that change no
            parameter make sense; others are reported as a mismatch. The threshold is left out, as it holds for the
            settings it was measured under, unless only `RESOURCES` change.

    Raises:
        CheckpointError: missing, damaged, of another format or class, or arrays that do not fit; lists every
            difference.
    """
    folder, meta = find_step(checkpoint), read_meta(checkpoint)
    detector_class, recorded = _detector_class(folder, meta), read_config(checkpoint)
    config = from_json(detector_class.config_class, {**meta["config"], **config_changes})
    config.check()
    notes, changed = [], [name for name in config_changes if getattr(config, name) != getattr(recorded, name)]
    if meta["threshold"] and (others := [name for name in changed if name not in RESOURCES]):
        settings = ", ".join(f"{name} = {getattr(config, name)}" for name in others)
        notes.append(f"{settings}: the threshold, measured under other settings, is left out")
        meta = {**meta, "threshold": None}
    arrays, record, network = _read_arrays(folder / "model"), meta["pretrained"], None
    if record is not None and record["embedded"] and backbone is None:
        arrays |= _read_arrays(folder / "pretrained")
    elif record is not None:
        network = _load_pretrained(folder, detector_class, config, record, backbone)
        _, own = module_state.split(network)
        arrays |= {f"{record['attribute']}/{path}": array for path, array in own.items()}
        if not _is_recorded(network, record):
            left_out = "; the threshold, measured with the latter, is left out" if meta["threshold"] else ""
            notes.append(f"{network.id} compares in place of {record['id']}{left_out}")
            config = dataclasses.replace(config, **{record["attribute"]: network.id})
            meta = {**meta, "threshold": None}
    abstract = detector_class.abstract(config, record and record["config"], network)
    detector = _filled(abstract, arrays, folder)
    detector.categories = tuple(meta["categories"])
    if (source := detector.pretrained) is not None and record is not None:
        meta = {**meta, "pretrained": _record(source, record["embedded"] and network is None)}
    threshold = None if meta["threshold"] is None else Threshold.from_json(meta["threshold"])
    return Restored(detector, threshold, meta, folder, tuple(notes))


def _detector_class(folder: Path, meta: Mapping[str, Any]) -> type[Detector]:
    """The class that a checkpoint names; the registry must know it, so that a checkpoint cannot make jaxad import."""
    name = meta["system"]
    if not (folder / "model").is_dir():
        raise CheckpointError(
            f"{folder}: holds no detector but the training of `jaxad fit {name}`, whose result is the folder "
            f"{folder.parents[1] / name}; give that to VLMDiff as its `autoencoder`"
        )
    try:
        found = detectors.get(name)
    except ConfigError as error:
        raise CheckpointError(
            f"{folder}: {error}. The checkpoint is of the class {meta['class']}: import its module, or install the "
            "package that brings it"
        ) from error
    if _class_name(found) != meta["class"]:
        raise CheckpointError(f"{folder}: of the class {meta['class']}, but {name!r} is {_class_name(found)} here")
    return found


def _filled(abstract: Detector, arrays: Mapping[str, Any], folder: Path) -> Detector:
    """The detector with these arrays, which must be all of its own; those of its memories may have any shape."""
    graphdef, memories, others = module_state.split(abstract, Memory, ...)
    expected = memories | others
    problems = [f"missing array {path}" for path in expected.keys() - arrays.keys()]
    problems += [f"unknown array {path}" for path in arrays.keys() - expected.keys()]
    problems += [
        f"{path}: shape {arrays[path].shape}, expected {expected[path].shape}"
        for path in sorted(others.keys() & arrays.keys())
        if arrays[path].shape != others[path].shape
    ]
    if problems:
        raise CheckpointError("\n".join([f"{folder} does not fit its config:", *(f"  {p}" for p in sorted(problems))]))
    return module_state.merge(graphdef, arrays)


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


def _load_pretrained(
    folder: Path, detector_class: type[Detector], config: Any, record: Mapping[str, Any], override: str | None
) -> Any:
    """The networks from their source, or from `override`, which are the recorded ones or may take their place."""
    try:
        network = detector_class.load_pretrained(config, record, override)
    except JaxadError as error:
        raise CheckpointError(
            f"{folder}: needs the backbone {record['id']} (`backbone` gives its folder): {error}"
        ) from error
    if not _is_recorded(network, record) and not (override and record["swaps"]):
        raise CheckpointError(
            f"{network.id}: SHA-256 {_shortened(network.sha256)} is not the backbone this checkpoint was trained on "
            f"({record['id']}, {_shortened(record['sha256'])})"
        )
    return network


def _record(source: Pretrained, embedded: bool) -> dict[str, Any]:
    return {
        "attribute": source.attribute,
        "id": source.id,
        "sha256": source.sha256,
        "bytes": source.bytes,
        "config": source.record,
        "swaps": source.swaps,
        "embedded": embedded,
    }


def _is_recorded(network: Any, record: Mapping[str, Any]) -> bool:
    # Untrained networks have no file to hash; their names say what they are.
    return network.sha256 == record["sha256"] and (bool(network.sha256) or network.id == record["id"])


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _shortened(hashes: str) -> str:
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1...", hashes)
