"""Versions of a finished run: each is a step of its own, the newest counts, and taking one back is one renaming.

An update is written beside the steps, in `update/`, and moved among them once it is whole with its threshold.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jaxad import data
from jaxad.config import DataConfig
from jaxad.config.training import NAMES
from jaxad.data.captions.attach import Captions
from jaxad.data.captions.record import described
from jaxad.data.depth import common_depths
from jaxad.data.holdout import digests
from jaxad.errors import CheckpointError, DataError, JaxadError
from jaxad.inference.rechoose import renew_card
from jaxad.inference.steps import FOLDER, Step, newest, open_step
from jaxad.io.atomic import set_aside
from jaxad.training.run_folder import in_use

SCRATCH = "update"


@dataclass(frozen=True)
class Origin:
    """Images that a version has learned from, as its run records them.

    Attributes:
        source: what `jaxad.data.load` takes, or the folder of loose images.
        category: of loose images, "" of a data set.
        categories: those that were used.
        names: names of folders that were given (`jaxad.config.DataConfig.names`).
        captions: folder or file of the captions of a data set, "" for those stored with it.
        holdout: share of the normal images that was held out.
        sha256: `content_hash` of the images that were learned.
    """

    source: str
    category: str = ""
    categories: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    captions: str = ""
    holdout: float = 0.0
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Origin:
        """As `to_json` wrote it."""
        names = {name: tuple(words) for name, words in values["names"].items()}
        return cls(**{**values, "categories": tuple(values["categories"]), "names": names})


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


def revert(workdir: Path | str, warn: Callable[[Sequence[str]], object] = lambda texts: None) -> tuple[int, Path]:
    """Takes back the last update of a run: the step before counts again.

    Args:
        workdir: of the run.
        warn: told of a model card that cannot be written.

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
        kept = set_aside(last.folder, f"reverted-{last.number}")
        renew_card(workdir, warn)
        return update["of"], kept


def origins(step: Step) -> list[Origin]:
    """What a run has learned from: the data that it was fitted on, and those of each update."""
    known = step.meta.get("data") or {}
    if "origins" in known:
        return [Origin.from_json(one) for one in known["origins"]]
    first = {
        "source": str(known.get("source", "")).removesuffix("/train"),
        "categories": step.meta["categories"],
        "names": {name: known[name] for name in NAMES if name in known},
        "captions": (known.get("captions") or {}).get("source") or "",
        "holdout": known.get("holdout", 0.0),
        "sha256": (known.get("sha256") or {}).get("images", ""),
    }
    return [Origin.from_json(first)]


def load_again(
    origin: Origin, learned: Collection[bytes], held: Collection[bytes], data_dir: Path | None, workers: int | None
) -> tuple[Any, Any]:
    """The images of an origin that a run has learned, and those of its hold-out; what else lies there is left out.

    Args:
        origin: as recorded.
        learned: digests of the images that were learned from it.
        held: digests of images of the hold-out, here or elsewhere.
        data_dir: folder of prepared data sets.
        workers: threads that decode.

    Raises:
        DataError: images that were learned are not there any more.
    """
    try:
        images, _ = load_normal(replace(origin, holdout=0.0), data_dir, workers, on_bad="skip")
    except JaxadError as error:
        raise DataError(f"{origin.source}: cannot be read again: {error}") from error
    there = digests(images, workers=workers)
    if missing := len(set(learned) - set(there)):
        raise DataError(
            f"{origin.source}: {missing} of the {len(learned)} images that the run has learned from are not there any "
            "more, or others now"
        )
    parts = ([place for place, one in enumerate(there) if one in chosen] for chosen in (learned, held))
    train, holdout = (images.select(places) for places in parts)
    return train, holdout


def load_normal(
    origin: Origin, data_dir: Path | None, workers: int | None, *, on_bad: Literal["stop", "skip"] = "stop"
) -> tuple[Any, Any]:
    """Normal images to learn, and those to hold out, with their captions; `origin.sha256` is not looked at.

    Raises:
        DataError: no such data, or captions that do not fit them.
    """
    if origin.category:
        images = data.loose_images(origin.source, origin.category)
        learned, held = data.split_holdout(images, origin.holdout, workers=workers)
        images = images.at_depths(common_depths((origin.category, images.facts(i).bits) for i in range(len(images))))
        return images.select(learned), images.select(held, f"{images.name}/holdout")
    config = DataConfig(origin.categories or None, origin.holdout, on_bad, workers, **origin.names)
    found = data.load(origin.source, data_dir, config=config)
    captions = Captions.load(origin.captions, "train") if origin.captions else None
    return described(found.train, captions), described(found.holdout, captions)


def without(source: Any, known: Collection[bytes], *, workers: int | None = None) -> Any:
    """The images of a source that are not among `known` digests."""
    return source.select(place for place, one in enumerate(digests(source, workers=workers)) if one not in known)
