"""The folder of a run: whose it is, and how fast the run goes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.config.training import up_to_date
from jaxad.data.holdout import digests
from jaxad.errors import CheckpointError, ConfigError, DamagedError
from jaxad.features import FEATURES
from jaxad.inference.steps import FOLDER, newest, numbered, set_aside_damaged
from jaxad.io.atomic import set_aside, write_whole
from jaxad.io.digests import DamageError, read_object
from jaxad.io.locks import LOCK, occupied, require_room
from jaxad.io.places import check_storable
from jaxad.io.progress import Reporter
from jaxad.nn.precision import compute_dtype
from jaxad.types import Source

_REASONS = {
    "train.schedule_steps": " (the cosine's last step: with another one every rate is; a new run may begin with the "
    "parameters of this one, by a warm start)",
    "adversary": " (whether the run is long enough for a discriminator, which is there from the beginning)",
    "from.sha256": " (the warm start's step: name its folder where its run has gone on)",
}
"""Why some settings make another run, where that is not plain."""


def content_hash(
    source: Source, annotations: Mapping[str, np.ndarray] | None = None, *, workers: int | None = None
) -> str:
    """SHA-256 of what a run takes from a source, whatever its files: pixels of images, their categories, their order.

    Args:
        source: decodes every image that has no digest yet.
        annotations: what else the run takes from its records (`jaxad.features.extras_of`), arrays with a row for each.
        workers: threads that decode; None for one per CPU.
    """
    hasher = hashlib.sha256("\0".join(source.categories).encode())
    for record, digest in zip(source.records, digests(source, workers=workers), strict=True):
        hasher.update(f"\n{record.category}\0".encode() + digest)
    if depths := getattr(source, "depths", {}):
        hasher.update(f"\n{sorted(depths.items())}".encode())
    for name, array in sorted((annotations or {}).items()):
        hasher.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def claim(workdir: Path, settings: Mapping[str, Any], resources: Mapping[str, Sequence[str]] = {}) -> list[str]:
    """Makes the workdir that of a run, or checks that it is; what is damaged in it is mended or set aside.

    What the newest whole checkpoint records says whose the workdir is, else config.json, which is written again where
    the checkpoint knows better. Steps that are damaged are renamed to `damaged-STEP`, so that the run goes on from the
    newest that is whole, or from its beginning.

    Args:
        workdir: the run's folder, made if need be.
        settings: JSON-ready values that a resumed run must share with the one it resumes. Of "data" only "sha256",
            {part: `content_hash`}, has to be the same; all else there says where the images are from, as with "from",
            the run of a warm start. Settings of "config" that "weights" names are compared by the identities there,
            however they are spelled. "train" may have more steps, where its schedule is the same with them.
        resources: names of the settings in "config" and "train" that do not have to be the same.

    Returns:
        What was mended or set aside, for the user.

    Raises:
        ConfigError: the folder's path is not UTF-8.
        CheckpointError: the folder holds another run, all differing settings listed, or something else.
    """
    check_storable("workdir", workdir)
    mine = json.loads(json.dumps(settings))
    file, steps = workdir / "config.json", workdir / FOLDER
    recorded, told = _recorded(workdir, mine), []
    try:
        written = read_object(file) if file.exists() or file.is_symlink() else None
    except DamageError as error:
        written, told = None, [f"{error}; written anew"]
        if recorded is None:
            raise CheckpointError(
                f"{error}, and no checkpoint tells whose {workdir} is; use a new workdir, or delete this one"
            ) from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    theirs = written if recorded is None else recorded
    if theirs is None and workdir.exists() and any(path.name != LOCK for path in workdir.iterdir()):
        raise CheckpointError(f"{workdir} is not empty and holds no run of jaxad; use a new workdir")
    differences = [] if theirs is None else _differences(theirs, mine, resources) + _taken_back(workdir, mine)
    if differences:
        listing = "\n".join(f"  {line}" for line in differences)
        raise CheckpointError(f"{workdir} holds another run; use a new workdir, or the same settings:\n{listing}")
    parallel.wait_for_others("workdir checked")

    def write() -> None:
        others = written is None or _differences(written, mine, resources)
        if written is None or others or _changing(written) != _changing(mine):
            if file.is_dir():
                set_aside(file, "config-damaged.json")
            write_whole(file, json.dumps(mine, indent=2))
            if others and recorded is not None and not told:
                told.append(f"{file}: is not that of the checkpoints; written anew")
        told.extend(set_aside_damaged(steps))

    _by_main(workdir, write)
    return told


def _changing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What may be another with every call for a run, and is recorded."""
    return {"false_alarm": settings.get("false_alarm"), "steps": _object(settings, "train").get("steps")}


def _taken_back(workdir: Path, mine: Mapping[str, Any]) -> list[str]:
    """A line where fewer steps are asked for than were done, or an end at a step that was saved on the way."""
    asked, done = _object(mine, "train").get("steps"), numbered(workdir / FOLDER)
    if asked is None or not done:
        return []
    if asked < int(done[0].name):
        return [f"train.steps: {done[0].name} are done there, {asked} now; steps are not taken back"]
    with suppress(DamagedError):
        step = newest(workdir, lambda step: step)[0]
        planned = _object(step.meta, "train").get("steps", asked)
        if step.number == asked != planned and not step.ending():
            how = f"step {asked} was saved on the way, without what follows the last one; ask for more steps than that"
            return [f"train.steps: {planned} there, {asked} now ({how})"]
    return []


def _recorded(workdir: Path, mine: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the newest checkpoint that is whole says of the settings, None where there is none."""
    if not numbered(workdir / FOLDER):
        return None
    with suppress(DamagedError):
        meta = newest(workdir, lambda step: step.meta)[0]
        return {name: meta.get(name) for name in mine}
    return None


def _differences(
    theirs: Mapping[str, Any], mine: Mapping[str, Any], resources: Mapping[str, Sequence[str]]
) -> list[str]:
    """A line for each setting that makes the other run another one."""
    theirs, mine = _essential(theirs, resources), _essential(mine, resources)
    data, weights, config = (_object(theirs, part) for part in ("data", "weights", "config"))
    if data.get("sha256") == mine["data"]["sha256"]:
        theirs["data"] = mine["data"]
    for settings in (theirs, mine):
        settings["from"] = {"sha256": _object(settings, "from").get("sha256")}
    for name, identity in _object(mine, "weights").items():
        if weights.get(name) == identity and name in mine["config"]:
            config[name] = mine["config"][name]
    changed = ((key, old, new) for key, old, new in _leaves("", theirs, mine) if old != new)
    return [f"{key}: {old!r} there, {new!r} now{_REASONS.get(key, '')}" for key, old, new in changed]


def _object(settings: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A part of the settings; an empty one where it is not what it must be, or there is none."""
    value = settings.get(part)
    return value if isinstance(value, dict) else {}


def _essential(settings: Mapping[str, Any], resources: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A copy of the settings without those that do not have to be the same, and with what "auto" stands for here.

    A threshold can be chosen anew without the images: its rate makes no other run.
    """
    copy = {name: value for name, value in json.loads(json.dumps(settings)).items() if name != "false_alarm"}
    if isinstance(copy.get("train"), dict):
        copy["train"] = up_to_date(copy["train"])
    for part, names in resources.items():
        if isinstance(copy.get(part), dict):
            copy[part] = {name: value for name, value in copy[part].items() if name not in names}
    train, config = _object(copy, "train"), _object(copy, "config")
    # More steps are the same run going on, but for a schedule that ends with the last one.
    steps = train.pop("steps", None)
    if train.get("schedule") == "cosine":
        train["schedule_steps"] = train.get("schedule_steps") or steps
    if config.get("precision") == "auto" and compute_dtype("auto") == "float32":
        config["precision"] = "float32"
    return copy


@contextmanager
def in_use(workdir: Path | str) -> Iterator[None]:
    """Keeps a workdir for this run alone (`jaxad.io.locks.occupied`); the main process does it for all.

    Raises:
        ConfigError: another process uses it, it cannot be written, or its path is not UTF-8.
    """
    check_storable("workdir", workdir)
    within = (FEATURES, f"{FOLDER}/*")
    with ExitStack() as stack:
        _by_main(workdir, lambda: stack.enter_context(occupied(workdir, "workdir", within=within)))
        yield


def require_room_for_steps(workdir: Path, size: int, keep: int) -> None:
    """Raises ConfigError where the disk has no room for the checkpoints that are still to be written.

    Args:
        workdir: of the run.
        size: bytes of a checkpoint.
        keep: how many are kept; one more is there while it is written.
    """

    def check() -> None:
        steps = numbered(workdir / FOLDER)
        there = sum(file.stat().st_size for step in steps for file in step.rglob("*") if file.is_file())
        require_room(workdir, max(size * (keep + 1) - there, size), "workdir")

    _by_main(workdir, check)


def _by_main(workdir: Path | str, check: Callable[[], object]) -> None:
    elsewhere = ConfigError(f"workdir = {workdir}: the main process cannot use it, and says why")
    parallel.by_main(check, elsewhere)


@dataclass(frozen=True)
class Place:
    """Where a run takes place.

    Attributes:
        workdir: its folder.
        mesh: its devices.
        workers: threads that decode images; None for one per CPU.
        reporter: shows progress.
        profile: first and last step to trace, counted from 1; None for none.
    """

    workdir: Path
    mesh: Mesh
    workers: int | None
    reporter: Reporter
    profile: tuple[int, int] | None = None


class Speed:
    """Images per second since the first logged step, so that compilation does not count.

    Args:
        step: optimizer steps done at the start.
        images: images of a step.
    """

    def __init__(self, step: int, images: int):
        self._images, self._first = images, step
        self._time: float | None = None
        self.rate: float | None = None

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What takes place within does not count."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._time is not None:
                self._time += time.perf_counter() - began

    def __call__(self, step: int) -> float:
        """The rate after `step` steps, not a number at the first call."""
        now = time.perf_counter()
        if self._time is None:
            self._first, self._time = step, now
            return float("nan")
        self.rate = (step - self._first) * self._images / (now - self._time)
        return self.rate


def _leaves(prefix: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _leaves(f"{prefix}.{key}".strip("."), old.get(key), new.get(key))
    else:
        yield prefix, old, new
