"""Judging images one after another: scores, decisions, boxes and maps at the size of each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jaxad.data import ImageList
from jaxad.data.batches import padded_size
from jaxad.detector import Detector
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.inference.answer import Answer, Answers
from jaxad.inference.maps import finite_map
from jaxad.inference.predictor import Predictor
from jaxad.inference.uncaptioned import Uncaptioned, describe
from jaxad.io.problems import problems_of
from jaxad.io.progress import counted
from jaxad.types import Source

if TYPE_CHECKING:
    from jaxad.inference.threshold import Threshold

OnBad = Callable[[Sequence[Problem]], None]


AT_ONCE = 16
"""Images of a batch where all are there already."""


def at_once(detector: Detector, images: int, batch_size: int | None = None) -> int:
    """The batch size for so many images: no larger than they need, of which it is filled up to a power of two.

    Args:
        detector: of tiles, of which there are many more than images, or of whole images.
        images: their number.
        batch_size: the largest; None for `AT_ONCE`.
    """
    batch_size = batch_size or AT_ONCE
    return padded_size(images, batch_size) if detector.tiling is None else batch_size


def predict(
    detector: Detector,
    images: Any,
    *,
    threshold: Threshold | None = None,
    category: str = "",
    protocol: str | None = None,
    captions: str | Sequence[str] | None = None,
    explain: Sequence[str] = (),
    batch_size: int = AT_ONCE,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Answers:
    """Judges images once; `jaxad.load` is for whoever asks often.

    Args:
        detector: trained, or with its memory filled.
        images: one or several of: path of a file or folder, PIL image, uint8 array [h w 3] or [h w].
        threshold: a `jaxad.Threshold`, e.g. `run.threshold`; None gives scores and maps alone.
        category: which category all images show, where it matters for the threshold or the detector; without it those
            in subfolders named as categories of the detector show these.
        protocol: how maps are smoothed and scored; None takes the threshold's, else "exact-256".
        captions: texts of the images, one for each, for a detector that they condition; None where there are none.
        explain: words for pictures of the method (`Answer.pictures`), which answers then hold what they need for.
        batch_size: images at once, at most; fewer images are filled up to a power of two.
        workers, progress: as in `Predictor.stream`; without `progress` a notebook shows it.

    Returns:
        One answer for each image, in the order given; folders are read in the order of their paths.

    Raises:
        DataError: no images, or some that cannot be read; lists all of them.
        ConfigError: a protocol other than the threshold's, captions that the detector does not take, or pictures that
            it does not have.
    """
    source = images if isinstance(images, ImageList) else ImageList(images, category, known=detector.categories)
    if captions is not None:
        describe(source, captions, detector)
    Uncaptioned(detector).look(source)
    name = protocol_of(threshold, protocol)
    predictor = Predictor(detector, name, batch_size=at_once(detector, len(source), batch_size))
    with counted("predict", len(source), progress) as shown:
        how: dict[str, Any] = {"threshold": threshold, "explain": explain, "workers": workers, "progress": shown}
        return Answers(answers(predictor, source, **how))


def protocol_of(threshold: Threshold | None, protocol: str | None) -> str:
    """The protocol to judge under: the one named, else the threshold's, else "exact-256".

    Raises:
        ConfigError: it is not the threshold's.
    """
    if threshold is not None and protocol not in (None, threshold.protocol):
        raise ConfigError(f"protocol = {protocol!r}: the threshold was measured under {threshold.protocol!r}")
    return protocol or (threshold.protocol if threshold else "exact-256")


def answers(
    predictor: Predictor,
    source: Source,
    *,
    threshold: Threshold | None = None,
    model: str = "",
    explain: Sequence[str] = (),
    workers: int | None = None,
    on_bad: OnBad | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Answer]:
    """Judges the images of a source one by one, each opened and decoded once, in memory that does not grow.

    Args:
        predictor: of the detector, under the threshold's protocol.
        source: the images.
        threshold: as in `predict`.
        model: what answers say of the checkpoint (`Answer.model`).
        explain: as in `predict`.
        workers, progress: as in `Predictor.stream`.
        on_bad: called with what is wrong with each image that cannot be used, in place of the error.

    Raises:
        DataError: images that cannot be used, after all others have been judged, and with every one of them; with
            `on_bad` only where none can be.
    """
    unusable: list[Problem] = []
    how: dict[str, Any] = {"threshold": threshold, "model": model, "explain": explain, "workers": workers}
    for _, found in outcomes(predictor, source, **how, progress=progress):
        if isinstance(found, Answer):
            yield found
            continue
        unusable += found
        if on_bad is not None:
            on_bad(found)
    files = len({problem.file for problem in unusable})
    if files and (on_bad is None or files == len({str(record.file) for record in source.records})):
        raise DataError(f"{files} of {len(source)} images cannot be read:", unusable)


def outcomes(
    predictor: Predictor,
    source: Source,
    *,
    threshold: Threshold | None,
    model: str,
    explain: Sequence[str] = (),
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Answer | tuple[Problem, ...]]]:
    """For each image, in order, its position and its answer, or what is wrong with it. Arguments as of `answers`."""
    how: dict[str, Any] = {"explain": explain, "workers": workers, "progress": progress}
    for output in predictor.stream(source, originals=True, on_unreadable="mark", **how):
        loaded = output.loaded
        explained = output.explanations or [None] * len(loaded.records)
        results = zip(output.scores, output.maps, loaded.records, loaded.indices, loaded.originals, strict=True)
        for (score, map, record, index, image), problems, shown in zip(
            results, loaded.problems, explained, strict=True
        ):
            if image is None and not problems:
                # With several hosts, one that another host has decoded, and may have been unable to.
                try:
                    image = source[index].image
                except DataError as error:
                    problems = problems_of(error, "unreadable image", record.file)
            if image is None or problems:
                yield index, problems
                continue
            # A copy: an answer that is kept must not keep its batch.
            file, map = str(record.file), finite_map(map).copy()
            inside = None if output.inside is None else output.inside[0]
            yield index, Answer(file, record.category, float(score), image, threshold, model, map, inside, shown)
