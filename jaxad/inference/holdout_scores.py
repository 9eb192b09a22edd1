"""What normal hold-out images scored: all that choosing a threshold needs of them, kept with the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxad.detector import Detector
from jaxad.errors import DataError, TrainingError
from jaxad.types import Source

if TYPE_CHECKING:
    from jaxad.features import FeatureCache

_TEXTS, _NUMBERS = ("files", "categories", "digests"), ("scores", "peaks", "medians")


@dataclass(frozen=True)
class HoldoutScores:
    """Scores of n normal images that a detector has not seen; in columns, image i in place i of each.

    Attributes:
        protocol: evaluation protocol in which they were measured.
        source: name of the data that the images are of.
        files: names of the images in it.
        categories: of the images.
        digests: 16 bytes of each image's pixels in hexadecimal (`jaxad.types.Source.digest`).
        scores: float64 [n], image scores.
        peaks: float64 [n], highest pixel of each map, from which pixel limits are chosen.
        medians: float64 [n], middle pixel of what is judged of each map, from which the cold end of colors is.
    """

    protocol: str
    source: str
    files: tuple[str, ...]
    categories: tuple[str, ...]
    digests: tuple[str, ...]
    scores: np.ndarray
    peaks: np.ndarray
    medians: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def select(self, chosen: Iterable[bool]) -> HoldoutScores:
        """The images for which `chosen` [n] is True, in their order."""
        rows = np.fromiter(chosen, bool, len(self))
        texts: dict[str, Any] = {name: tuple(np.array(getattr(self, name))[rows].tolist()) for name in _TEXTS}
        numbers: dict[str, Any] = {name: getattr(self, name)[rows] for name in _NUMBERS}
        return HoldoutScores(self.protocol, self.source, **texts, **numbers)

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values, every number exactly; the inverse of `from_json`."""
        texts = {name: list(getattr(self, name)) for name in _TEXTS}
        numbers = {name: getattr(self, name).tolist() for name in _NUMBERS}
        return {"protocol": self.protocol, "source": self.source, **texts, **numbers}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HoldoutScores:
        """Scores as `to_json` wrote them.

        Raises:
            ValueError: columns that are missing, of different lengths or of other types.
        """
        columns = {name: values.get(name) for name in (*_TEXTS, *_NUMBERS)}
        if not all(isinstance(column, list) and column for column in columns.values()):
            raise ValueError(f"needs a list for each of {', '.join(columns)}")
        if len({len(column) for column in columns.values()}) > 1:  # type: ignore[arg-type]
            raise ValueError("its lists have different lengths")
        texts: dict[str, Any] = {name: tuple(map(str, columns[name])) for name in _TEXTS}  # type: ignore[arg-type]
        if not all(type(value) is float for name in _NUMBERS for value in columns[name]):  # type: ignore[union-attr]
            raise ValueError(f"{', '.join(_NUMBERS)} must hold numbers")
        numbers: dict[str, Any] = {name: np.array(columns[name]) for name in _NUMBERS}
        if not all(np.isfinite(column).all() for column in numbers.values()):
            raise ValueError("holds numbers that are not finite")
        return cls(str(values.get("protocol")), str(values.get("source")), **texts, **numbers)


def joined(parts: Sequence[HoldoutScores], source: str) -> HoldoutScores:
    """The scores of several parts of the data `source` in one, all of one protocol."""
    texts: dict[str, Any] = {name: tuple(text for part in parts for text in getattr(part, name)) for name in _TEXTS}
    numbers: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _NUMBERS}
    return HoldoutScores(parts[0].protocol, source, **texts, **numbers)


def measure_holdout(
    detector: Detector,
    source: Source,
    *,
    protocol: str = "exact-256",
    features: FeatureCache | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> HoldoutScores:
    """Scores normal images that the detector has not seen.

    Args:
        detector: trained, or with its memory filled.
        source: normal images; those labeled anomalous are refused.
        protocol: of `jaxad.evaluate`.
        features, batch_size, workers, progress: as in `Predictor.stream`.

    Raises:
        DataError: no images, or anomalous ones among them.
        TrainingError: scores or maps that are not finite.
    """
    anomalous = [record.identity for record in source.records if record.label]
    if anomalous or not len(source):
        reason = f"anomalous images among them: {', '.join(anomalous[:5])}" if anomalous else "no images"
        raise DataError(f"{source.name}: a threshold needs normal images; {reason}")
    scores, peaks, medians = [], [], []
    # Grain, which reads images, takes half a second to import, and whoever restores a checkpoint may read none.
    from jaxad.inference.predictor import Predictor

    predictor = Predictor(detector, protocol, batch_size=batch_size)
    for output in predictor.stream(source, features=features, workers=workers, progress=progress):
        scores.extend(output.scores)
        peaks.extend(output.maps.max(axis=(1, 2)))
        # Outside of a region maps have their least value, which says nothing.
        inside = [...] * len(output.maps) if output.inside is None else output.inside
        medians.extend(np.median(map[part]) for map, part in zip(output.maps, inside, strict=True))
    scores, peaks, medians = (np.array(column, np.float64) for column in (scores, peaks, medians))
    if not (finite := np.isfinite(scores) & np.isfinite(peaks) & np.isfinite(medians)).all():
        files = ", ".join(str(record.file) for record, good in zip(source.records, finite, strict=True) if not good)
        raise TrainingError(
            f"scores or maps of {(~finite).sum()} of {len(source)} normal images are not finite, no threshold can be "
            f"chosen: {files}. Fit anew, with a lower learning_rate or with precision = float32"
        )
    return HoldoutScores(
        protocol,
        source.name,
        tuple(record.identity for record in source.records),
        tuple(record.category for record in source.records),
        tuple(source.digest(index).hex() for index in range(len(source))),
        scores,
        peaks,
        medians,
    )
