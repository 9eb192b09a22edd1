"""Checkpoints of a run as they are read: restored exactly, readable without their source.

A step's folder holds `model` (every array of the detector but its pretrained networks), `backbone` (those, where they
are small), `training` (raw parameters, optimizer state and moving average), `meta` (class of the detector, configs,
categories, provenance), manifest.json (size, date and SHA-256 of all these) and, once the run is at its end,
complete.json (the threshold). Which step counts, and when it is damaged, says `jaxad.inference.steps`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxad.config import from_json
from jaxad.data.region import Region
from jaxad.data.tiles import Tiling
from jaxad.detector import Detector, detectors
from jaxad.errors import CheckpointError, ConfigError, DamagedError, JaxadError
from jaxad.inference.checkpoint_writer import class_name, network_record
from jaxad.inference.steps import FOLDER, Step, newest
from jaxad.inference.stored_arrays import check_fit, declared, read_arrays
from jaxad.inference.threshold import Threshold
from jaxad.io.program_cache import keep_programs
from jaxad.io.text import name_text
from jaxad.nn import module_state


@dataclass(frozen=True)
class Restored:
    """A checkpoint read back.

    Attributes:
        detector: ready to predict.
        threshold: as chosen by `fit`, None where there was no hold-out.
        meta: everything else that was recorded: "train", "data", "step", "protocol", versions.
        folder: the step's folder.
        notes: what differs from what was saved, for users.
        sha256: of the step's manifest, which holds the SHA-256 of every array's file.
    """

    detector: Detector
    threshold: Threshold | None
    meta: dict[str, Any]
    folder: Path
    notes: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def short_hash(self) -> str:
        """As much of `sha256` as tells checkpoints apart in a line of results."""
        return self.sha256[:12]

    def identity(self) -> dict[str, Any]:
        """What says which model judged, JSON-ready: run, step, sha256, detector, categories, versions, protocol and
        precision."""
        run = self.folder.parents[1] if self.folder.parent.name == FOLDER else self.folder
        return {
            "run": name_text(run),
            "step": self.meta["step"],
            "sha256": self.sha256,
            "detector": self.detector.name,
            "categories": list(self.detector.categories),
            "protocol": self.meta.get("protocol"),
            "fitted_with": self.meta["jaxad"],
            "precision": getattr(self.detector.config, "precision", None),
            "threshold_set_by_hand": None if self.threshold is None else self.threshold.value,
        }


def find_step(checkpoint: Path | str) -> Path:
    """The folder of the step that `checkpoint` names: a workdir (newest whole step), or one step's folder.

    Raises:
        ConfigError: its path is not UTF-8.
        CheckpointError: nothing there, or nothing whole.
    """
    return newest(checkpoint, lambda step: step.folder)[0]


def read_meta(checkpoint: Path | str) -> dict[str, Any]:
    """What a checkpoint records besides its arrays.

    Raises:
        CheckpointError: missing, damaged, or of another format than this version reads.
    """
    return newest(checkpoint, _meta)[0]


def read_config(checkpoint: Path | str) -> Any:
    """The settings of the detector in a checkpoint, of the detector's config class.

    Raises:
        CheckpointError: missing, damaged, of another format or class, or of settings that this version does not have.
    """
    return newest(checkpoint, _config)[0]


def read_outline(checkpoint: Path | str) -> Detector:
    """The detector of a checkpoint without its arrays: what it asks of images, its settings, categories and the like.

    Nothing is loaded, also where its networks lie elsewhere.

    Raises:
        CheckpointError: missing, damaged, of another format or class, or of settings that this version does not have.
    """
    return newest(checkpoint, _outline)[0]


def pretrained_identity(checkpoint: Path | str) -> tuple[str, str] | None:
    """What the pretrained networks of a checkpoint are, wherever they are loaded from: hash and, of random ones, name.

    None of a detector without such networks.

    Raises:
        CheckpointError: as for `read_meta`.
    """
    record = read_meta(checkpoint).get("pretrained")
    return record and (record["sha256"], "" if record["sha256"] else record["id"])


def restore(
    checkpoint: Path | str, *, backbone: str | None = None, pass_over: bool = False, **config_changes: Any
) -> Restored:
    """A detector as it was saved.

    Args:
        checkpoint: a workdir, or one step's folder. Of a workdir it is the newest whole step; newer ones of which
            files are missing or cut off are passed over, and named in the notes.
        backbone: folder or id from which to load the pretrained networks instead; their hash must be the recorded one.
            Detectors that may swap them (`Pretrained.swaps`) also take others; the threshold is then left out.
        pass_over: whether to pass over newer steps too that were whole once, and whose bytes have changed since.
        config_changes: fields of the detector's config to change, e.g. start_timestep=200. Only fields that change no
            parameter make sense; others are reported as a mismatch. The threshold is left out, as it holds for the
            settings it was measured under, unless only the precision or `RESOURCES` of the config change.

    Raises:
        DamagedError: no step is whole, or bytes of the newest have changed (`pass_over` takes an older one).
        CheckpointError: missing, of another format or class, or arrays that do not fit; lists every difference.
    """
    keep_programs()
    restored, passed = newest(checkpoint, lambda step: _restored(step, backbone, config_changes), changed=pass_over)
    return dataclasses.replace(restored, notes=passed + restored.notes)


def _restored(step: Step, backbone: str | None, changes: Mapping[str, Any]) -> Restored:
    detector_class, recorded = _detector_class(step), _config(step)
    folder, record = step.folder, step.meta["pretrained"]
    embedded = record is not None and record["embedded"] and backbone is None
    items = ["model", "backbone"] if embedded else ["model"]
    step.check(*items)
    meta, threshold, notes = _ending(step)
    config = from_json(detector_class.config_class, {**meta["config"], **changes})
    config.check()
    changed = [name for name in changes if getattr(config, name) != getattr(recorded, name)]
    if settled := set(getattr(recorded, "settled", tuple)()).intersection(changed):
        names = ", ".join(sorted(settled))
        raise CheckpointError(
            f"{folder}: {names}: what was measured after training holds for the recorded values alone"
        )
    resources = ("precision", *getattr(detector_class.config_class, "RESOURCES", ()))
    if threshold and (others := [name for name in changed if name not in resources]):
        settings = ", ".join(f"{name} = {getattr(config, name)}" for name in others)
        notes.append(f"{settings}: the threshold, measured under other settings, is left out")
        threshold = None
    network, own = None, {}
    if record is not None and not embedded:
        network = _load_pretrained(folder, detector_class, config, record, backbone)
        _, own = module_state.split(network)
        own = {f"{record['attribute']}/{path}": array for path, array in own.items()}
        if backbone is None:
            notes.append(f"the pretrained networks were read from {record['id']}, which the checkpoint names")
        if not _is_recorded(network, record):
            left_out = "; the threshold, measured with the latter, is left out" if threshold else ""
            notes.append(f"{network.id} compares in place of {record['id']}{left_out}")
            config = dataclasses.replace(config, **{record["attribute"]: network.id})
            threshold = None
    # Shapes are compared before any array is read, so that a strange checkpoint cannot make room for itself.
    abstract = _abstract(step, detector_class, config, network)
    shapes = {path: shape for item in items for path, shape in declared(step, item).items()}
    check_fit(abstract, own | shapes, folder)
    arrays = own | {path: array for item in items for path, array in read_arrays(step, item).items()}
    detector = module_state.merge(module_state.split(abstract)[0], arrays)
    _note_data(detector, meta)
    meta = {**meta, "threshold": None if threshold is None else threshold.to_json()}
    if (source := detector.pretrained) is not None and record is not None:
        meta["pretrained"] = network_record(source, record["embedded"] and network is None)
    return Restored(detector, threshold, meta, folder, tuple(notes), step.manifest.seal)


def _outline(step: Step) -> Detector:
    detector = _abstract(step, _detector_class(step), _config(step), None)
    _note_data(detector, step.meta)
    return detector


def _note_data(detector: Detector, meta: Mapping[str, Any]) -> None:
    """Tells a detector of the data that it was fitted on."""
    detector.categories = tuple(meta["categories"])
    detector.depths = tuple(sorted(meta.get("depths", {}).items()))
    detector.tiling = None if (tiling := meta.get("tiling")) is None else Tiling.from_json(tiling)
    detector.regions = tuple((name, Region.from_json(region)) for name, region in meta.get("regions", {}).items())


def _ending(step: Step) -> tuple[dict[str, Any], Threshold | None, list[str]]:
    """All that a step records, its threshold, and what to say of it."""
    meta, notes = _meta(step), []
    try:
        step.ending()
    except DamagedError as error:
        notes.append(f"{error}; the threshold is left out, run the same `jaxad fit` again to choose it anew")
    try:
        return meta, None if meta["threshold"] is None else Threshold.from_json(meta["threshold"]), notes
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{step.folder}: its threshold is none of jaxad's: {error!r}") from error


def _meta(step: Step) -> dict[str, Any]:
    """All that a step records; without a threshold, and not complete, where what says so is damaged."""
    try:
        return step.meta | step.ending()
    except DamagedError:
        return {**step.meta, "threshold": None, "complete": False}


def _config(step: Step) -> Any:
    """The settings of the detector in a step."""
    try:
        return from_json(_detector_class(step).config_class, step.meta["config"])
    except ConfigError as error:
        raise CheckpointError(f"{step.folder}: {error}; it may come from a newer version") from error


def _abstract(step: Step, detector_class: type[Detector], config: Any, network: Any) -> Detector:
    record = step.meta["pretrained"]
    try:
        return detector_class.abstract(config, record and record["config"], network)
    except JaxadError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{step.folder}: records networks that cannot be built: {error!r}") from error


def _detector_class(step: Step) -> type[Detector]:
    """The class that a checkpoint names; the registry must know it, so that a checkpoint cannot make jaxad import."""
    folder, meta, name = step.folder, step.meta, step.meta["system"]
    if "model" not in step.items:
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
    if class_name(found) != meta["class"]:
        raise CheckpointError(f"{folder}: of the class {meta['class']}, but {name!r} is {class_name(found)} here")
    return found


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
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder}: records networks that cannot be built: {error!r}") from error
    if not _is_recorded(network, record) and not (override and record["swaps"]):
        raise CheckpointError(
            f"{network.id}: SHA-256 {_shortened(network.sha256)} is not the backbone this checkpoint was trained on "
            f"({record['id']}, {_shortened(record['sha256'])})"
        )
    return network


def _is_recorded(network: Any, record: Mapping[str, Any]) -> bool:
    # Untrained networks have no file to hash; their names say what they are.
    return network.sha256 == record["sha256"] and (bool(network.sha256) or network.id == record["id"])


def _shortened(hashes: str) -> str:
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1...", hashes)
