"""The folder that `jaxad predict` leaves: predictions.jsonl, and overlays, maps and masks at each image's own size.

    DIR/predictions.jsonl       one line of JSON for each image
    DIR/overlay/NAME.jpg        the image under its heat, with what lies above the pixel limit outlined
    DIR/map/NAME.npy or .tiff   float32, unscaled
    DIR/mask/NAME.png           0 and 255

NAME is the image's path below the folder that all images share, so that equal file names from several folders do not
collide. Results of an earlier run in DIR stay as they are until the new ones are complete, and then give way to them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from jaxad.errors import ConfigError
from jaxad.inference.maps import heat_scale
from jaxad.inference.prediction import ImagePrediction
from jaxad.inference.threshold import Threshold
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.text import name_text
from jaxad.report.images import save_map, save_mask, save_overlay

KINDS = ("overlay", "map", "mask")
LINES = "predictions.jsonl"
LONGEST = 240
"""Bytes of a name, of the 255 that file systems take."""


class PredictionFolder:
    """Collects predictions in a hidden folder inside `folder` and puts them in place on leaving without an error.

    Args:
        folder: made if missing; may hold earlier results, which are replaced as a whole.
        files: the images that will be added, in that order.
        save: which of `KINDS` to write.
        map_format: of raw maps.
        threshold: for the outline and the colors of overlays; None scales each by its own map.

    Raises:
        ConfigError: results would replace files that jaxad did not write, or the images themselves.
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
        self._names = picture_names(files)
        self._lines: list[str] = []
        _check(folder, files)

    def __enter__(self) -> PredictionFolder:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._scratch = tempfile.TemporaryDirectory(dir=self.folder, prefix=".predict-")
        self._new = Path(self._scratch.name) / "new"
        self._new.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        with self._scratch:
            if kind is None:
                write_whole(self._new / LINES, "".join(f"{line}\n" for line in self._lines))
                self._replace()

    def add(self, image: np.ndarray, prediction: ImagePrediction) -> None:
        """Takes the next image, uint8 [h w 3], and its prediction."""
        name = self._names[len(self._lines)]
        self._lines.append(json_text(prediction.to_json()))
        if "overlay" in self._save:
            limits = None if self._threshold is None else self._threshold.of(prediction.category)
            if limits is None:
                low, high = heat_scale(normal=prediction.map)
            else:
                low, high = heat_scale(limits.pixel, np.array([limits.typical]))
            save_overlay(
                self._new / "overlay" / f"{name}.jpg",
                image,
                prediction.map,
                low=low,
                high=high,
                threshold=None if limits is None else limits.pixel,
            )
        if "map" in self._save:
            save_map(self._new / "map" / f"{name}.{self._map_format}", prediction.map)
        if "mask" in self._save and prediction.mask is not None:
            save_mask(self._new / "mask" / f"{name}.png", prediction.mask)

    def _replace(self) -> None:
        old = Path(self._scratch.name) / "old"
        old.mkdir()
        for kind in KINDS:
            if (self.folder / kind).exists():
                os.replace(self.folder / kind, old / kind)
            if (self._new / kind).exists():
                os.replace(self._new / kind, self.folder / kind)
        # The lines come last: where they are new, all pictures are.
        os.replace(self._new / LINES, self.folder / LINES)


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
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"folder = {folder}: is a file; choose a folder")
    present = [folder / kind for kind in KINDS if (folder / kind).exists()]
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
