"""Judging images: scores, decisions, boxes and maps at the size of each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxad.data import ImageList
from jaxad.data.batches import padded_size
from jaxad.detector import Detector
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.inference.maps import fit_map, hottest_box
from jaxad.inference.predictor import Predictor
from jaxad.io.problems import problems_of
from jaxad.io.text import name_text
from jaxad.types import Source

if TYPE_CHECKING:
    from jaxad.inference.threshold import Threshold


FAINT = 0.8
"""Share of its highest pixel above which the hottest region of a faint anomaly is drawn."""


@dataclass(frozen=True)
class ImagePrediction:
    """The answer for one image.

    Attributes:
        file: its path, or a name for images given as arrays.
        category: as given or found, "" where unknown.
        score: image score; higher is more anomalous.
        threshold: limit of the score, None where the detector has no threshold.
        anomalous: whether the score is above the limit; None without a threshold.
        box: [x0, y0, x1, y1] of the hottest region in pixels of the image (x1, y1 exclusive) if it is anomalous.
        map: float32 [h w] at the image's own size.
        mask: bool [h w], pixels above the pixel limit; None without a threshold.
    """

    file: str
    category: str
    score: float
    threshold: float | None
    anomalous: bool | None
    box: tuple[int, int, int, int] | None
    map: np.ndarray
    mask: np.ndarray | None

    def to_json(self) -> dict[str, Any]:
        """A line of predictions.jsonl; the file's name as `jaxad.io.text.name_text` writes it."""
        return {
            "file": name_text(self.file),
            "category": self.category,
            "score": self.score,
            "threshold": self.threshold,
            "anomalous": self.anomalous,
            "box": None if self.box is None else list(self.box),
        }


def predict(
    detector: Detector,
    images: Any,
    *,
    threshold: Threshold | None = None,
    category: str = "",
    protocol: str | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[ImagePrediction]:
    """Judges images; `predict_stream` with all predictions held in memory.

    Args:
        detector: trained, or with its memory filled.
        images: one or several of: path of a file or folder, PIL image, uint8 array [h w 3] or [h w].
        threshold: a `jaxad.Threshold`, e.g. `run.threshold`; None gives scores and maps alone.
        category: which category all images show, where it matters for the threshold or the detector.
        protocol: how maps are smoothed and scored; None takes the threshold's, else "exact-256".
        batch_size: images at once, at most; fewer images are filled up to a power of two.
        workers, progress: as in `Predictor.stream`.

    Returns:
        One prediction for each image, in the order given; folders are read in the order of their paths.

    Raises:
        DataError: no images, or some that cannot be read; lists all of them.
        ConfigError: a protocol other than the threshold's.
    """
    source = images if isinstance(images, ImageList) else ImageList(images, category)
    stream = predict_stream(
        detector,
        source,
        threshold=threshold,
        protocol=protocol,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    return [prediction for _, prediction in stream]


def predict_stream(
    detector: Detector,
    source: Source,
    *,
    threshold: Threshold | None = None,
    protocol: str | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    on_bad: Callable[[Sequence[Problem]], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[np.ndarray, ImagePrediction]]:
    """Judges the images of a source one by one, each opened and decoded once, in memory that does not grow.

    Arguments are those of `predict`, and `on_bad`, which is called with what is wrong with each image that cannot be
    used, in place of the error.

    Yields:
        Image uint8 [h w 3] at its own size, and what is found in it.

    Raises:
        DataError: images that cannot be used, after all others have been judged, and with every one of them; with
            `on_bad` only where none can be.
        ConfigError: a protocol other than the threshold's.
    """
    if threshold is not None and protocol not in (None, threshold.protocol):
        raise ConfigError(f"protocol = {protocol!r}: the threshold was measured under {threshold.protocol!r}")
    name = protocol or (threshold.protocol if threshold else "exact-256")
    # Of tiles there are many more than images.
    images = padded_size(len(source), batch_size) if detector.tiling is None else batch_size
    predictor = Predictor(detector, name, batch_size=images)
    unusable: list[Problem] = []
    stream = predictor.stream(source, originals=True, on_unreadable="mark", workers=workers, progress=progress)
    for output in stream:
        loaded = output.loaded
        answers = zip(output.scores, output.maps, loaded.records, loaded.indices, loaded.originals, strict=True)
        for (score, map, record, index, image), problems in zip(answers, loaded.problems, strict=True):
            if image is None and not problems:
                # With several hosts, one that another host has decoded, and may have been unable to.
                try:
                    image = source[index].image
                except DataError as error:
                    problems = problems_of(error, "unreadable image", record.file)
            if image is None or problems:
                unusable += problems
                if on_bad is not None:
                    on_bad(problems)
                continue
            fitted = fit_map(map, image.shape[:2])
            if output.inside is not None:
                fitted = _kept_to(output.inside[0], fitted, threshold.of(record.category).pixel if threshold else None)
            yield image, _judge(float(score), fitted, str(record.file), record.category, threshold)
    files = len({problem.file for problem in unusable})
    if files and (on_bad is None or files == len({str(record.file) for record in source.records})):
        raise DataError(f"{files} of {len(source)} images cannot be read:", unusable)


def _judge(score: float, map: np.ndarray, file: str, category: str, threshold: Threshold | None) -> ImagePrediction:
    if threshold is None:
        return ImagePrediction(file, category, score, None, None, None, map, None)
    limits = threshold.of(category)
    anomalous, box = score > limits.image, None
    # An anomalous image always has a place to look at, also where no single pixel passes the pixel limit.
    if anomalous and (hottest := hottest_box(map, min(limits.pixel, FAINT * float(map.max())))):
        box = (hottest[0], hottest[1], hottest[2], hottest[3])
    mask = map > limits.pixel
    return ImagePrediction(file, category, score, limits.image, anomalous, box, map, mask)


def _kept_to(inside: np.ndarray, map: np.ndarray, limit: float | None) -> np.ndarray:
    """The map [h w] of a region, `inside` bool [h' w'], with nothing above the limit outside."""
    rows, columns = (
        ((np.arange(to) + 0.5) * length / to).astype(int) for to, length in zip(map.shape, inside.shape, strict=True)
    )
    lowest = map.min() if limit is None else min(float(map.min()), limit)
    return np.where(inside[np.ix_(rows, columns)], map, np.float32(lowest))
