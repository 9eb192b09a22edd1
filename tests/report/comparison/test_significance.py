"""Tests of differences against exact enumeration, scikit-learn, and the worked examples of the literature."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata, wilcoxon
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxad.metrics import MetricRules
from jaxad.report.comparison.significance import Pair, holm, on_categories, on_images, ranking

HOW = {"resamples": 2000, "seed": 0}


def made_pair(seed: int = 0, *, images: int = 40, shift: float = 1.0, seeds: tuple[int, int] = (1, 1)) -> Pair:
    """A category on which the first method tells the labels apart better than the second, whose scale is another."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    first = labels * (1 + shift) + rng.normal(size=(seeds[0], images))
    return Pair(labels, first, 1000 * (labels + rng.normal(size=(seeds[1], images))))


@pytest.mark.parametrize(("metric", "oracle"), [("image_auroc", roc_auc_score), ("image_ap", average_precision_score)])
def test_the_permutation_test_takes_all_exchanges_of_few_images(metric, oracle):
    pair = made_pair(3, images=8)
    ranks = rankdata(pair.first[0]), rankdata(pair.second[0])

    def difference(exchanged):
        mine, theirs = (np.where(exchanged, *side) for side in (ranks[::-1], ranks))
        return oracle(pair.labels, mine) - oracle(pair.labels, theirs)

    every = np.array([difference(np.array(one)) for one in itertools.product([False, True], repeat=8)])
    observed = difference(np.zeros(8, bool))
    tails = (every <= observed + 1e-12).mean(), (every >= observed - 1e-12).mean()
    found = on_images([pair], metric, **HOW)
    assert found.value == pytest.approx(observed, abs=1e-12)
    assert found.permutation_p == pytest.approx(min(1, 2 * min(tails)), abs=1e-12)


def test_the_interval_is_that_of_drawing_images_of_each_label_anew():
    pair, rng = made_pair(1), np.random.default_rng(7)
    drawn = []
    for _ in range(300):
        images = np.concatenate([rng.choice(np.flatnonzero(pair.labels == label), 20) for label in (0, 1)])
        scores = (roc_auc_score(pair.labels[images], rows[0][images]) for rows in (pair.first, pair.second))
        drawn.append(next(scores) - next(scores))
    found = on_images([pair], "image_auroc", **HOW)
    np.testing.assert_allclose([found.low, found.high], np.quantile(drawn, [0.025, 0.975]), atol=0.04)
    assert found.low < found.value < found.high


def test_a_mean_over_seeds_and_categories_is_compared():
    pairs = [made_pair(1, seeds=(3, 2)), made_pair(2, images=24, seeds=(3, 2))]
    means = [
        np.mean([roc_auc_score(pair.labels, row) for row in pair.first])
        - np.mean([roc_auc_score(pair.labels, row) for row in pair.second])
        for pair in pairs
    ]
    assert on_images(pairs, "image_auroc", **HOW).value == pytest.approx(np.mean(means), abs=1e-12)


def test_what_is_equal_does_not_differ_and_what_is_far_apart_does():
    pair = made_pair(0)
    same = on_images([pair._replace(second=10 * pair.first)], "image_auroc", **HOW)
    assert (same.value, same.low, same.high, same.bootstrap_p, same.permutation_p) == (0, 0, 0, 1, 1)
    apart = on_images([made_pair(0, images=200, shift=3.0)], "image_auroc", **HOW)
    assert max(apart.bootstrap_p, apart.permutation_p) < 0.002
    assert min(apart.bootstrap_p, apart.permutation_p) > 0
    flipped = on_images([pair._replace(second=-pair.second)], "image_auroc", **HOW, rules=MetricRules(flip_auroc=True))
    assert flipped.value == pytest.approx(on_images([pair], "image_auroc", **HOW).value)


def test_one_image_of_a_label_has_no_interval():
    pair = Pair(np.array([0, 1, 1]), np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 1.0, 3.0]]))
    found = on_images([pair], "image_auroc", **HOW)
    assert (found.low, found.bootstrap_p) == (None, None)
    assert found.permutation_p is not None


def test_categories_change_signs():
    first, second = np.array([0.9, 0.8, 0.7, 0.95, 0.6]), np.array([0.8, 0.75, 0.71, 0.9, 0.55])
    found = on_categories(first, second, **HOW)
    every = [np.mean((first - second) * signs) for signs in itertools.product([-1, 1], repeat=5)]
    assert found.permutation_p == pytest.approx(2 * np.mean(np.array(every) >= found.value - 1e-12))
    # Both are exact tests of the same exchanges; on five categories they can hardly tell more.
    assert wilcoxon(first, second).pvalue > 0.05
    assert found.low < found.value < found.high
    assert on_categories(first[:1], second[:1], **HOW).permutation_p is None


def test_holm_as_in_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, None, 0.8]) == [1.0, None, 1.0]
    assert holm([]) == []


DEMSAR = np.array(
    [
        [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957],
        [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978],
        [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946],
        [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970],
    ]
)
"""AUC of four trees on 14 data sets: Demšar, JMLR 7 (2006), Table 6; 0.9751 ranks before its like in the next row."""


def test_ranks_as_published():
    found = ranking(DEMSAR)
    np.testing.assert_allclose(found.ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    # The paper's critical difference is 1.25; its two best differ from the first by less than that.
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    assert found.friedman_p < 0.05
    assert found.groups == ((3, 1, 2, 0),)
    assert ranking(DEMSAR[:2]) is None
    assert ranking(DEMSAR[:, :1]) is None


def test_groups_overlap_and_hold_none_within_another():
    values = np.stack(
        [np.full(30, level) + np.arange(30) % 2 * step for level, step in ((3, 0), (2, 0), (1, 0), (0, 0))]
    )
    assert ranking(values).groups == ()
    values[1, ::2], values[2, ::2] = 1, 2
    assert ranking(values).groups == ((1, 2),)
    equal = ranking(np.ones((3, 4)))
    assert (equal.friedman_p, equal.groups) == (1.0, ((0, 1, 2),))
