"""The folder that `jaxad predict` leaves: predictions.jsonl, and overlays, maps and masks at each image's own size.

    DIR/predictions.jsonl       one line of JSON for each image
    DIR/problems.jsonl          one line (file, kind, detail) for each reason why an image was left out, if any was
    DIR/overlay/NAME.jpg        the image under its heat, with what lies above the pixel limit outlined
    DIR/map/NAME.npy or .tiff   float32, unscaled
    DIR/mask/NAME.png           0 and 255

NAME is the image's path below the folder that all images share, so that equal file names from several folders do not
collide. Results of an earlier run in DIR stay as they are until the new ones are complete, and then give way to them.
One process at a time writes to DIR; what one that was killed left half done there, the next one ends or removes.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from jaxad.errors import ConfigError, Problem
from jaxad.inference.maps import heat_scale
from jaxad.inference.prediction import ImagePrediction
from jaxad.inference.threshold import Threshold
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.locks import occupied
from jaxad.io.scratch import scratch
from jaxad.io.signals import held
from jaxad.io.text import name_text
from jaxad.io.threads import map_threads
from jaxad.report.images import save_map, save_mask, save_overlay

KINDS = ("overlay", "map", "mask")
LINES, PROBLEMS = "predictions.jsonl", "problems.jsonl"
PREFIX = ".predict-"
"""Of hidden folders of results that are not complete."""
WRITERS = 2
"""Threads that draw and write pictures; each holds three images and their maps at most."""
LONGEST = 240
"""Bytes of a name, of the 255 that file systems take."""


class PredictionFolder:
    """Collects predictions in a hidden folder inside `folder` and puts them in place on leaving without an error.

    Args:
        folder: made if missing; may hold earlier results, which are replaced as a whole.
        files: the images, in the order in which they will be added; those that are not added are left out.
        save: which of `KINDS` to write.
        map_format: of raw maps.
        threshold: for the outline and the colors of overlays; None scales each by its own map.

    Raises:
        ConfigError: on entering: the folder cannot be written, another process uses it, or results would replace files
            that jaxad did not write, or the images themselves.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        *,
        save: Sequence[str] = ("overlay",),
        map_format: Literal["npy", "tiff"] = "npy",
        threshold: Threshold | None = None,
    ):
        self.folder, self._save, self._map_format, self._threshold = folder, save, map_format, threshold
        self._files = files
        self._names = dict(zip(map(str, files), picture_names(files), strict=True))
        self._lines: list[str] = []
        self._problems: list[str] = []

    def __enter__(self) -> PredictionFolder:
        with ExitStack() as stack:
            stack.enter_context(occupied(self.folder, "folder"))
            self._scratch = stack.enter_context(scratch(self.folder, PREFIX, self._finish))
            _check(self.folder, self._files)
            for kind in KINDS:
                (self._scratch / "new" / kind).mkdir(parents=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        with self._stack:
            if kind is None:
                with held():
                    new = self._scratch / "new"
                    write_whole(new / PROBLEMS, "".join(f"{line}\n" for line in self._problems))
                    write_whole(new / LINES, "".join(f"{line}\n" for line in self._lines))
                    self._finish(self._scratch)

    def leave_out(self, problems: Sequence[Problem]) -> None:
        """Notes why images of `files` are not added."""
        self._problems += [json_text({"file": name_text(p.file), "kind": p.kind, "detail": p.detail}) for p in problems]

    def add(self, found: Iterable[tuple[np.ndarray, ImagePrediction]]) -> Iterator[ImagePrediction]:
        """Takes images uint8 [h w 3] with their predictions, as `jaxad.inference.prediction.predict_stream` gives them.

        Threads draw and write pictures while the next images are judged.

        Yields:
            The predictions, each when its pictures are written.
        """
        for prediction in map_threads(self._write, found, WRITERS):
            self._lines.append(json_text(prediction.to_json()))
            yield prediction

    def _write(self, found: tuple[np.ndarray, ImagePrediction]) -> ImagePrediction:
        """Writes the pictures of an image."""
        image, prediction = found
        name, new = self._names[prediction.file], self._scratch / "new"
        if "overlay" in self._save:
            limits = None if self._threshold is None else self._threshold.of(prediction.category)
            if limits is None:
                low, high = heat_scale(normal=prediction.map)
            else:
                low, high = heat_scale(limits.pixel, np.array([limits.typical]))
            save_overlay(
                new / "overlay" / f"{name}.jpg",
                image,
                prediction.map,
                low=low,
                high=high,
                threshold=None if limits is None else limits.pixel,
            )
        if "map" in self._save:
            save_map(new / "map" / f"{name}.{self._map_format}", prediction.map)
        if "mask" in self._save and prediction.mask is not None:
            save_mask(new / "mask" / f"{name}.png", prediction.mask)
        return prediction

    def _finish(self, place: Path) -> None:
        """Puts complete results in place of earlier ones; goes on where a process was killed at that."""
        new, old = place / "new", place / "old"
        if not (new / LINES).is_file():
            return
        old.mkdir(exist_ok=True)
        for kind in KINDS:
            # What is still there has not taken its place; where it is empty, this run has no such pictures.
            if not (new / kind).is_dir():
                continue
            if (self.folder / kind).exists():
                os.replace(self.folder / kind, old / kind)
            if any((new / kind).iterdir()):
                os.replace(new / kind, self.folder / kind)
            else:
                (new / kind).rmdir()
        # The lines come last: where they are new, all else is.
        if (new / PROBLEMS).is_file():
            if (new / PROBLEMS).stat().st_size:
                os.replace(new / PROBLEMS, self.folder / PROBLEMS)
            else:
                (self.folder / PROBLEMS).unlink(missing_ok=True)
        os.replace(new / LINES, self.folder / LINES)


def picture_names(files: Sequence[Path]) -> list[str]:
    """For each file its path below the folder that all share, without extension unless that tells two files apart.

    Names are text (`jaxad.io.text`) that every file system takes; one that is too long for that ends in a hash.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]
    shared = os.path.commonpath([file.parent for file in absolute])
    relative = [file.relative_to(shared) for file in absolute]
    holders = Counter(path.with_suffix("") for path in set(relative))
    own = [path if holders[path.with_suffix("")] > 1 else path.with_suffix("") for path in relative]
    return ["/".join(_fitting(name_text(part)) for part in path.parts) for path in own]


def _fitting(name: str) -> str:
    """A name that has room for the extension of a picture."""
    encoded = name.encode()
    if len(encoded) <= LONGEST:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: LONGEST - 17].decode(errors='ignore')}-{digest}"


def _check(folder: Path, files: Sequence[Path]) -> None:
    present = [folder / name for name in (*KINDS, PROBLEMS) if (folder / name).exists()]
    if present and not (folder / LINES).is_file():
        names = " and ".join(map(str, present))
        raise ConfigError(
            f"folder = {folder}: {names} would be replaced but did not come from jaxad; choose another folder"
        )
    replaced = [path.resolve() for path in present]
    inputs = [str(file) for file in files if any(file.resolve().is_relative_to(path) for path in replaced)]
    if inputs:
        raise ConfigError(
            f"folder = {folder}: would replace the images to judge, {inputs[0]} first; choose another folder"
        )
