"""Versions of a finished run: each is a step of its own, the newest counts, and taking one back is one renaming.

An update is written beside the steps, in `update/`, and moved among them once it is whole with its threshold.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxad import data
from jaxad.config import DataConfig
from jaxad.errors import CheckpointError, DataError, JaxadError
from jaxad.inference.steps import FOLDER, Step, newest, open_step
from jaxad.io.atomic import set_aside
from jaxad.training.run_folder import content_hash, in_use

SCRATCH = "update"


@dataclass(frozen=True)
class Origin:
    """Images that a version has learned from, as its run records them.

    Attributes:
        source: what `jaxad.data.load` takes, or the folder of loose images.
        category: of loose images, "" of a data set.
        categories: those that were used.
        holdout: share of the normal images that was held out.
        skipped: files that could not be used.
        sha256: `content_hash` of the images that were learned.
    """

    source: str
    categories: tuple[str, ...]
    holdout: float
    sha256: str
    category: str = ""
    skipped: tuple[str, ...] = ()


@contextmanager
def scratch(workdir: Path) -> Iterator[Path]:
    """An empty folder in a run for an update; it goes with its content, whatever becomes of it."""
    folder = workdir / SCRATCH
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, step: int, workdir: Path) -> Path:
    """Makes a whole step in a scratch folder the newest of a run, by renaming it."""
    target = workdir / FOLDER / str(step)
    os.rename(folder / FOLDER / str(step), target)
    return target


def revert(workdir: Path | str) -> tuple[int, Path]:
    """Takes back the last update of a run: the step before counts again.

    Args:
        workdir: of the run.

    Returns:
        The step that counts now, and the folder in which the other one is kept.

    Raises:
        CheckpointError: the newest step is no update, or the one before is not there or not whole.
        ConfigError: the run is in use.
    """
    workdir = Path(workdir)
    with in_use(workdir):
        last = newest(workdir, lambda step: step)[0]
        update = last.meta.get("update")
        if not update:
            raise CheckpointError(f"{last.folder}: is no update; there is nothing to take back")
        before = last.folder.with_name(str(update["of"]))
        if not before.is_dir():
            raise CheckpointError(f"{before}: is missing, which {last.folder} was made from; restore a copy of it")
        open_step(before).check()
        return update["of"], set_aside(last.folder, f"reverted-{last.number}")


def origins(step: Step) -> list[Origin]:
    """What a run has learned from: the data that it was fitted on, and those of each update."""
    known = step.meta.get("data") or {}
    if "origins" in known:
        return [Origin(**{**one, "categories": tuple(one["categories"])}) for one in known["origins"]]
    name = str(known.get("source", "")).removesuffix("/train")
    sha256 = (known.get("sha256") or {}).get("images", "")
    skipped = tuple(known.get("skipped", ()))
    return [Origin(name, tuple(step.meta["categories"]), known.get("holdout", 0.0), sha256, skipped=skipped)]


def load_again(
    origin: Origin,
    known: Collection[bytes],
    extras: Callable[[Any], Any],
    data_dir: Path | None,
    workers: int | None,
) -> tuple[Any, Any]:
    """The training and the hold-out images of an origin.

    Args:
        origin: as recorded.
        known: digests of the images of origins before it, which were left out.
        extras: what a detector takes from records besides images.
        data_dir: folder of prepared data sets.
        workers: threads that decode.

    Raises:
        DataError: they are not there, or others than they were.
    """
    try:
        train, holdout = load_normal(origin, data_dir, workers)
    except JaxadError as error:
        raise DataError(f"{origin.source}: cannot be read again: {error}") from error
    train, holdout = without(train, known), without(holdout, known)
    if content_hash(train, extras(train), workers=workers) != origin.sha256:
        raise DataError(f"{origin.source}: holds other images than those that the run has learned from")
    return train, holdout


def load_normal(origin: Origin, data_dir: Path | None, workers: int | None) -> tuple[Any, Any]:
    """Normal images to learn, and those to hold out; `origin.sha256` is not looked at."""
    if origin.category:
        images = data.loose_images(origin.source, origin.category)
        learned, held = data.split_holdout(images, origin.holdout, workers=workers)
        return images.select(learned), images.select(held, f"{images.name}/holdout")
    on_bad = "skip" if origin.skipped else "stop"
    config = DataConfig(origin.categories or None, origin.holdout, on_bad, workers)
    found = data.load(origin.source, data_dir, config=config)
    return found.train, found.holdout


def digests(*sources: Any) -> set[bytes]:
    """The digests of all images of some sources."""
    return {source.digest(index) for source in sources for index in range(len(source))}


def without(source: Any, known: Collection[bytes]) -> Any:
    """The images of a source that are not among `known` digests."""
    return source.select(index for index in range(len(source)) if source.digest(index) not in known)
