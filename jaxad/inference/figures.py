"""What the page of an evaluation shows beyond report.json: curves, the gallery, mistakes, prototypes and patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from jaxad import metrics
from jaxad.inference.album import Album
from jaxad.inference.decisions import Decision, mistakes
from jaxad.inference.evaluation import Scored
from jaxad.inference.heat import fit_mask
from jaxad.inference.maps import kept_to
from jaxad.inference.method import draw, words_of
from jaxad.inference.predictor import Detail
from jaxad.inference.results import (
    PICTURE,
    SMALLER,
    Case,
    Curves,
    Evaluation,
    MethodFigure,
    PrototypeFigure,
    Rank,
    Shown,
    TsneInput,
    choose_cases,
    choose_patches,
)
from jaxad.inference.threshold import POOLED, Threshold
from jaxad.io.pictures import shrink
from jaxad.types import Explanation, Source

if TYPE_CHECKING:
    from jaxad.inference.sheet import Sheet

PICTURED = 60
"""False alarms, and misses, that the page has pictures of at most."""
SHOWN = 320
"""Longer side of these pictures in pixels at most."""
EXPLAINED_IMAGES, METHOD = 24, 160
"""Images that the page has pictures of the method of at most, and their longer side in pixels."""
GALLERY, EXPLAINED_CATEGORIES = 80, 32
"""Categories, the weakest ones, that the gallery has room for in its smallest pictures, and of which images are
explained: none is predicted again for a page that does not show it."""
HELD = 24_000_000
"""Bytes of the gallery's pictures, and of those of the mistakes: more than the page has room for once compressed."""


def figures(
    scored: Scored,
    *,
    baseline: Scored | None = None,
    sheet: Sheet | None = None,
) -> Evaluation:
    """What the HTML report shows beyond report.json; predicts the images of the gallery and the mistakes once more.

    Args:
        scored: a finished pass; its threshold is drawn into histograms and overlays.
        baseline: a finished pass of the comparison detector.
        sheet: several detectors beside each other.
    """
    threshold = scored.threshold
    results = scored.results()
    seen = list(results)
    chosen = {
        name: choose_cases(np.array(scored.classes[name].scores), np.array(scored.classes[name].labels))
        for name in seen
    }
    # The weakest categories come first, as on the page: where not all have room, it is these that have.
    aurocs = {name: found["image_auroc"] for name, found in results.items()}
    weakest = sorted(seen, key=lambda name: 2.0 if aurocs[name] is None else aurocs[name])
    gallery = {name: chosen[name] for name in weakest[:GALLERY]}
    ranks: dict[int, Rank] = {
        scored.indices[name][at]: rank for name, own in gallery.items() for rank, at in own.items()
    }
    wrong = [decision.index for own in mistakes(scored.decisions).values() for decision in own[:PICTURED]]
    decided = {decision.index: decision for decision in scored.decisions}
    cases: Album[Case] = Album((PICTURE, *SMALLER), HELD)
    pictures: Album[Shown] = Album((SHOWN, 240, 160, 112), HELD)
    shown = list(dict.fromkeys([*ranks, *wrong]))
    for output in scored.predictor.stream(scored.source, indices=shown, originals=True):
        for place, index in enumerate(output.loaded.indices):
            image, mask = _original(scored.source, index, output.loaded.originals[place]), scored.source.mask(index)
            detail = output.detail(place)._replace(mask=mask)
            limit = None if threshold is None else threshold.of(decided[index].category).pixel
            if index in ranks:
                cases.add(index, Case(decided[index], rank=ranks[index], **_judged(image, detail, limit, PICTURE)))
            if index in wrong:
                pictures.add(index, Shown(**_judged(image, detail, limit, SHOWN)))
    limits = {name: threshold.of(name) for name in seen} if threshold is not None else {}
    explained = [scored.indices[name] for name in seen if name in weakest[:EXPLAINED_CATEGORIES]]
    prototypes, methods, tsne = _explanations(scored, explained, ranks, decided)
    return Evaluation(
        system=scored.detector.title,
        baseline="" if baseline is None else baseline.detector.title,
        curves={name: _curves(scored.classes[name]) for name in seen},
        baseline_curves={}
        if baseline is None
        else {n: _curves(s) for n, s in baseline.classes.items() if len(s.labels)},
        scores={name: (scored.classes[name].scores, scored.classes[name].labels) for name in seen},
        thresholds={name: limit.image for name, limit in limits.items()},
        threshold_note="" if threshold is None else _threshold_note(threshold, seen),
        heat=scored.heat,
        pixel_thresholds={name: limit.pixel for name, limit in limits.items()},
        cases=list(cases.pictures.values()),
        prototypes=prototypes,
        methods=methods,
        sheet=sheet,
        tsne=tsne,
        decisions=scored.decisions,
        baseline_decisions=() if baseline is None else baseline.decisions,
        pictures=pictures.pictures,
        warnings=() if threshold is None else threshold.warnings,
    )


def _original(source: Source, index: int, image: np.ndarray | None) -> np.ndarray:
    """The image that was decoded; with several hosts another one may have done that."""
    return source[index].image if image is None else image


def _judged(image: np.ndarray, detail: Detail, limit: float | None, side: int) -> dict[str, Any]:
    """Image of so many pixels, map and mask, with nothing to see outside of what is judged."""
    image, map, mask = shrink(image, side), detail.map, detail.mask
    if detail.inside is not None:
        size, map = image.shape[:2], kept_to(detail.inside, map, limit)
        mask = None if mask is None else fit_mask(mask, size) & fit_mask(detail.inside, size)
    return {"image": image, "map": map, "mask": mask}


def _explanations(
    scored: Scored, categories: Sequence[Sequence[int]], ranks: Mapping[int, Rank], decided: Mapping[int, Decision]
) -> tuple[list[PrototypeFigure], list[MethodFigure], TsneInput | None]:
    """Prototype maps and pictures of the method of one defective and one normal image per category; t-SNE's patches.

    Categories are given by the images of each.
    """
    pairs = []
    for members in categories:
        defective = [i for i in members if ranks.get(i) == "median" and decided[i].label]
        pairs += defective[:1] + [i for i in members if decided[i].label == 0][:1]
    prototypes, methods, patches = [], [], None
    for index, (found, image) in zip(pairs, scored.predictor.explain(scored.source, pairs), strict=True):
        decision, mask = decided[index], scored.source.mask(index)
        if len(methods) < EXPLAINED_IMAGES and {*words_of(found)} - {"input"}:
            methods.append(_method(decision, found, _original(scored.source, index, image)))
        if found.similarity is not None:
            small = shrink(_original(scored.source, index, image), METHOD)
            outlined = None if mask is None else fit_mask(mask, small.shape[:2])
            similarity = np.array(found.similarity)
            prototypes.append(PrototypeFigure(decision, small, similarity, found.prototypes, outlined))
        if found.before is not None and found.after is not None:
            grid = found.before.shape[0], found.before.shape[1]
            patches = patches or _Patches(scored.source, [decided[index] for index in pairs], grid)
            patches.add(decision, np.asarray(found.before), np.asarray(found.after))
    return prototypes, methods, None if patches is None else patches.taken()


class _Patches:
    """The patches of t-SNE, chosen of all images at first, by their masks; of other patches nothing is held.

    Args:
        source: the images.
        decisions: about those whose features are to come.
        grid: (h, w) of the features of each.
    """

    def __init__(self, source: Source, decisions: Sequence[Decision], grid: tuple[int, int]):
        marked = {}
        for decision in decisions:
            mask = source.mask(decision.index)
            # Without a mask nobody can say which patches of a defective image are defective.
            if mask is not None or not decision.label:
                marked[decision.index] = _patch_labels(mask, grid)
        chosen, number = choose_patches(np.concatenate([np.empty(0, bool), *marked.values()])), grid[0] * grid[1]
        self._chosen = {index: chosen[chosen // number == place] - place * number for place, index in enumerate(marked)}
        self._marked = {index: marks[self._chosen[index]] for index, marks in marked.items()}
        self._before: list[np.ndarray] = []
        self._after: list[np.ndarray] = []
        self._anomalous: list[np.ndarray] = []
        self._categories: list[str] = []

    def add(self, decision: Decision, before: np.ndarray, after: np.ndarray) -> None:
        """Takes what is chosen of the features [h w c] of an image."""
        chosen = self._chosen.get(decision.index, ())
        if not len(chosen):
            return
        for taken, features in ((self._before, before), (self._after, after)):
            taken.append(features.reshape(-1, features.shape[-1])[chosen])
        self._anomalous.append(self._marked[decision.index])
        self._categories += [decision.category] * len(chosen)

    def taken(self) -> TsneInput | None:
        """All of them, None where there are none."""
        if not self._before:
            return None
        before, after, anomalous = map(np.concatenate, (self._before, self._after, self._anomalous))
        return TsneInput(before, after, anomalous, self._categories)


def _method(decision: Decision, found: Explanation, image: np.ndarray) -> MethodFigure:
    """Small pictures of all words, each of the image's proportions, which a detector's view of it may not have.

    Similarities to prototypes, which have a figure of their own, are left out.
    """
    found, size = dataclasses.replace(found, similarity=None), shrink(image, METHOD).shape[:2]
    pictures = {
        f"{word} {part}".strip() if word != "terms" else part: cv2.resize(
            picture, (size[1], size[0]), interpolation=cv2.INTER_AREA
        )
        for word in words_of(found)
        for part, picture in draw(word, found, (size[0], size[1])).items()
    }
    return MethodFigure(decision, pictures)


def _patch_labels(mask: np.ndarray | None, grid: tuple[int, int]) -> np.ndarray:
    """Whether at least a quarter of each patch is marked, bool [n]."""
    if mask is None:
        return np.zeros(grid[0] * grid[1], bool)
    rows = np.linspace(0, mask.shape[0], grid[0] + 1).astype(int)
    columns = np.linspace(0, mask.shape[1], grid[1] + 1).astype(int)
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))[np.ix_(rows, columns)]
    marked = sums[1:, 1:] - sums[:-1, 1:] - sums[1:, :-1] + sums[:-1, :-1]
    areas = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return (marked >= 0.25 * areas).ravel() & (marked.ravel() > 0)


def _curves(state: metrics.ClassMetrics | metrics.ClassResults) -> Curves:
    return Curves(**{name: (points[:, 0], points[:, 1]) for name, points in state.curves().items()})


def _threshold_note(threshold: Threshold, seen: Sequence[str]) -> str:
    """Where the thresholds come from, and what the smallest hold-out behind them vouches for."""
    if threshold.value is not None:
        return f"The threshold was set by hand to {threshold.value:g}."
    chosen = [name for name in seen if not threshold.of(name).by_hand]
    by_hand = ", ".join(name for name in seen if name not in chosen)
    said = [
        f"Thresholds come from {threshold.limits[POOLED].normals} normal hold-out images that training never saw: "
        "conformal quantile at a false-alarm rate of "
        f"{', '.join(f'{100 * rate:.3g}%' for rate in sorted({threshold.asked(name) or 0 for name in chosen}))} "
        "per category."
    ] * bool(chosen)
    few = [name for name in chosen if threshold.supported(name) != threshold.asked(name)]
    if few:
        least = min(few, key=lambda name: threshold.of(name).normals)
        number = threshold.of(least).normals
        said.append(
            f"The {number} hold-out images of {least} cannot support that: up to {100 / (number + 1):.3g}% "
            f"(1/{number + 1}) of further good parts may be rejected."
        )
    return " ".join([*said, *([f"Set by hand: {by_hand}."] if by_hand else [])])
