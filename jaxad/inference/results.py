"""What an evaluation leaves behind: the arrays that only the HTML page shows, and the choice of its gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxad.inference.decisions import Decision

if TYPE_CHECKING:
    from jaxad.inference.sheet import Sheet

PICTURE, SMALLER = 360, (256, 160, 112)
"""Longer side of the gallery's pictures in pixels at most, and where there are many: nothing larger is kept for it."""
PATCHES = 1500
"""Patches that t-SNE embeds at most: no more features are kept for it."""
Rank = Literal["best", "median", "worst"]
Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Curves:
    """The curves of one category, each as (x [m], y [m]) in drawing order, any number of points.

    Attributes:
        image_roc, pixel_roc: false-positive rate and true-positive rate.
        image_pr, pixel_pr: recall and precision.
    None where the curve is undefined.
    """

    image_roc: Curve | None = None
    image_pr: Curve | None = None
    pixel_roc: Curve | None = None
    pixel_pr: Curve | None = None


@dataclass(frozen=True)
class Case:
    """One test image for the gallery.

    Attributes:
        decision: what came of the image; without a threshold its name, label and score.
        image: uint8 [h w 3], made smaller.
        map: float [h w] after the protocol's smoothing, of any size.
        rank: where it stands in its category, as `choose_cases` says.
        mask: the true defect, [h w] of any size, or None.
    """

    decision: Decision
    image: np.ndarray
    map: np.ndarray
    rank: Rank
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Shown:
    """What is shown of an image that was decided wrongly.

    Attributes:
        image: uint8 [h w 3], made smaller.
        map: float [h w] of the protocol, of any size.
        mask: the true defect, [h w] of any size, or None.
    """

    image: np.ndarray
    map: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class PrototypeFigure:
    """Similarity of one image's patches to its prototypes (paper Fig. 8).

    Attributes:
        decision: what came of the image.
        image: uint8 [h w 3], made smaller.
        maps: float [k h w], cosine similarity to each prototype.
        names: k names, e.g. "local 1" or "global 2"; equal names in several figures share one color scale.
        mask: the true defect, [h w] of any size, or None.
    """

    decision: Decision
    image: np.ndarray
    maps: np.ndarray
    names: Sequence[str]
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class MethodFigure:
    """What the detector makes of one image on the way to its map (`jaxad.inference.method`).

    Attributes:
        decision: what came of the image.
        pictures: uint8 [h w 3] by name, made smaller, in the order in which they come about.
    """

    decision: Decision
    pictures: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TsneInput:
    """Patch features before and after reconstruction (paper Fig. 7); the report embeds at most 1,500 of them.

    Attributes:
        before, after: float [m c], the same m patches; fewer than 10 are not drawn.
        anomalous: bool [m], whether the patch lies on a defect.
        categories: m category names.
    """

    before: np.ndarray
    after: np.ndarray
    anomalous: np.ndarray
    categories: Sequence[str]


@dataclass(frozen=True)
class Evaluation:
    """Everything the HTML page shows beyond report.json. What a detector or a data set does not have is left out.

    Attributes:
        system, baseline: names to print, e.g. "DPDiff-AD" and "Patch bank"; "" takes `config.system` of the report.
        curves, baseline_curves: by category.
        scores: (scores [m], labels [m] of 0 and 1) of all test images, by category.
        thresholds: image threshold by category; an image is called anomalous when its score is above it.
        threshold_note: where the thresholds come from, one sentence.
        heat: (low, high) of the map colors by category, from `heat_scale`. Categories left out take it from the maps
            of their normal cases and their pixel threshold.
        pixel_thresholds: pixel threshold by category.
        cases: the gallery, in any order; where categories of `scores` have none, the page says how many.
        prototypes: figures of a few images, best one anomalous and one normal per category.
        methods: what the detector makes of a few images, best one anomalous and one normal per category.
        sheet: several detectors beside each other.
        tsne: features before and after reconstruction.
        decisions, baseline_decisions: what came of each test image, in one order.
        pictures: of images that were decided wrongly, by their index in the source.
        warnings: what to know of the thresholds.
    """

    system: str = ""
    baseline: str = ""
    curves: Mapping[str, Curves] = field(default_factory=dict)
    baseline_curves: Mapping[str, Curves] = field(default_factory=dict)
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    threshold_note: str = ""
    heat: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    pixel_thresholds: Mapping[str, float] = field(default_factory=dict)
    cases: Sequence[Case] = ()
    prototypes: Sequence[PrototypeFigure] = ()
    methods: Sequence[MethodFigure] = ()
    sheet: Sheet | None = None
    tsne: TsneInput | None = None
    decisions: Sequence[Decision] = ()
    baseline_decisions: Sequence[Decision] = ()
    pictures: Mapping[int, Shown] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def choose_cases(scores: np.ndarray, labels: np.ndarray) -> dict[Rank, int]:
    """Which images of a category the gallery shows.

    Args:
        scores: float [m].
        labels: [m] of 0 (normal) and 1 (anomalous).

    Returns:
        Indices. "best" is the anomalous image with the highest score, "median" the anomalous one in the middle.
        "worst" is the image most wrongly placed: the anomalous one that most normal ones pass, or the normal one that
        passes most anomalous ones, whichever share is larger. In a category without anomalous images the three are the
        normal images with the lowest, middle and highest score. Fewer than three images leave ranks out.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    defective, normal = np.flatnonzero(labels), np.flatnonzero(~labels)
    if defective.size:
        order = defective[np.argsort(-scores[defective], kind="stable")]
        worst = order[-1]
        if normal.size:
            highest = normal[np.argmax(scores[normal])]
            missed, alarmed = (scores[normal] >= scores[worst]).mean(), (scores[defective] <= scores[highest]).mean()
            worst = highest if alarmed > missed else worst
    else:
        order = normal[np.argsort(scores[normal], kind="stable")]
        worst = order[-1] if order.size else None
    if not order.size:
        return {}
    ranks: dict[Rank, Any] = {"best": order[0], "median": order[(order.size - 1) // 2], "worst": worst}
    return {rank: int(i) for n, (rank, i) in enumerate(ranks.items()) if i not in list(ranks.values())[:n]}


def choose_patches(anomalous: np.ndarray) -> np.ndarray:
    """Which patches t-SNE embeds: up to a third anomalous, the rest normal, drawn with a fixed seed.

    Args:
        anomalous: bool [m], whether a patch lies on a defect.

    Returns:
        Indices, int [at most `PATCHES`], ascending; all where there are no more.
    """
    draw = np.random.default_rng(0)
    stars, dots = (draw.permutation(np.flatnonzero(anomalous == value)) for value in (True, False))
    stars = stars[: max(PATCHES // 3, PATCHES - dots.size)]
    return np.sort(np.concatenate([stars, dots[: PATCHES - stars.size]]))


def notes_of(report: Mapping[str, Any]) -> list[str]:
    """What a report says about its results and its baseline's, each sentence once."""
    runs = (report, report.get("baseline") or {})
    return list(dict.fromkeys(note for run in runs for note in run.get("notes", ())))
