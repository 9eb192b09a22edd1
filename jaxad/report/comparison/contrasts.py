"""Every method against one of them: image metrics by images, on each category and on the mean; others by categories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxad.metrics import IMAGE_METRICS
from jaxad.report.comparison.methods import MEAN, Method
from jaxad.report.comparison.significance import LEVEL, Difference, Pair, holm, on_categories, on_images


@dataclass(frozen=True)
class Contrast:
    """A method against the reference, in one metric on one category or on their mean.

    Attributes:
        method, metric: names.
        category: its name, `MEAN` for the mean over all.
        pairs: what is paired, "images" or "categories".
        difference: the method less the reference.
        holm_p: p-value of the permutation test, adjusted for all tests of this metric on categories, or on the mean.
    """

    method: str
    metric: str
    category: str
    pairs: str
    difference: Difference
    holm_p: float | None = None


def contrasts(
    methods: Sequence[Method],
    reference: str,
    metrics: Sequence[str],
    *,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Contrast], list[str]]:
    """The other methods against the reference, and notes on what cannot be tested."""
    (base,) = (method for method in methods if method.name == reference)
    others = [method for method in methods if method is not base]
    how = {"resamples": resamples, "seed": seed}
    listed = [result.file for method in methods for result in method.results if not result.images]
    notes = [f"{file.parent}: no images.csv, so no test on images; evaluate again" for file in listed] if others else []
    jobs = [
        (metric, category, method)
        for metric in metrics
        if metric not in IMAGE_METRICS or not listed
        for category in (*(base.categories if metric in IMAGE_METRICS else ()), MEAN)
        for method in others
    ]
    found = []
    for number, (metric, category, method) in enumerate(jobs):
        pairs, tested = ("images", _on_images) if metric in IMAGE_METRICS else ("categories", _on_categories)
        if (difference := tested(method, base, metric, category, how)) is not None:
            found.append(Contrast(method.name, metric, category, pairs, difference))
        if progress is not None:
            progress(number + 1, len(jobs))
    fewest = 2.0 ** (1 - len(base.categories))
    if others and fewest > 1 - LEVEL and any(contrast.pairs == "categories" for contrast in found):
        notes.append(
            f"pixel metrics and mAD are tested on {len(base.categories)} categories: p cannot be below {fewest:g}"
        )
    return _adjusted(found), notes


def _adjusted(found: Sequence[Contrast]) -> list[Contrast]:
    """The same with p-values adjusted for the contrasts of the same metric: those on categories, and those on means."""
    families: dict[tuple[str, bool], list[int]] = {}
    for number, contrast in enumerate(found):
        families.setdefault((contrast.metric, contrast.category == MEAN), []).append(number)
    adjusted: dict[int, float | None] = {}
    for members in families.values():
        adjusted |= zip(members, holm([found[number].difference.permutation_p for number in members]), strict=True)
    return [replace(contrast, holm_p=adjusted[number]) for number, contrast in enumerate(found)]


def _on_images(method: Method, base: Method, metric: str, category: str, how: dict[str, int]) -> Difference | None:
    """The difference in an image metric, None where it is undefined."""
    categories = [
        name
        for name in (base.categories if category == MEAN else [category])
        if None not in (*method.values(metric, name), *base.values(metric, name))
    ]
    pairs = []
    for name in categories:
        first, second = (np.stack([result.images[name].scores for result in one.results]) for one in (method, base))
        pairs.append(Pair(base.results[0].images[name].labels, first, second))
    return on_images(pairs, metric, **how, rules=base.results[0].rules) if pairs else None


def _on_categories(method: Method, base: Method, metric: str, category: str, how: dict[str, int]) -> Difference | None:
    """The difference in the mean of a metric, None where it is undefined."""
    means = [(method.mean(metric, name), base.mean(metric, name)) for name in base.categories]
    known = np.array([pair for pair in means if None not in pair], float)
    return on_categories(*known.T, **how) if len(known) else None
