import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from jaxad.metrics.curves import auroc, average_precision, exact_steps, f1_max, pr_points, roc_points, thinned
from tests import oracles

scored = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=2, max_size=60).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


@given(scored)
def test_image_metrics_equal_scikit_learn_with_ties(pairs):
    scores, labels = np.array(pairs, float).T[0], np.array(pairs).T[1]
    steps, expected = exact_steps(scores, labels), oracles.image_metrics(labels, scores)
    assert auroc(steps) == pytest.approx(expected["image_auroc"], abs=1e-12)
    assert average_precision(steps) == pytest.approx(expected["image_ap"], abs=1e-12)
    assert f1_max(steps) == pytest.approx(expected["image_f1max"], abs=1e-12)


@given(scored)
def test_points_are_the_curves_of_scikit_learn(pairs):
    scores, labels = np.array(pairs, float).T[0], np.array(pairs).T[1]
    steps = exact_steps(scores, labels)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc_points(steps, 1000), np.stack([fpr, tpr], axis=1))
    precision, recall, _ = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(pr_points(steps, 1000), np.stack([recall, precision], axis=1)[::-1])


def test_thinned_points_stay_on_the_curve_and_keep_its_ends():
    random = np.random.default_rng(0)
    labels = np.arange(5000) % 2
    steps = exact_steps(random.standard_normal(5000) + labels, labels)
    whole, few = roc_points(steps, 10_000), roc_points(steps, 50)
    assert len(few) <= 50
    assert {tuple(point) for point in few} <= {tuple(point) for point in whole}
    np.testing.assert_array_equal(few[[0, -1]], [[0, 0], [1, 1]])
    corner = np.concatenate([np.linspace([0, 0], [0, 1], 5000), np.linspace([0, 1], [1, 1], 5000)])
    assert np.abs(thinned(corner, 120) - [0, 1]).sum(axis=1).min() < 0.02
    np.testing.assert_array_equal(thinned(corner[:7], 120), corner[:7])
    assert np.abs(np.trapezoid(few[:, 1], few[:, 0]) - auroc(steps)) < 2e-3


def test_untied_positives_count_with_their_least_precision():
    steps = exact_steps(np.array([2.0, 1, 1, 1, 0]), np.array([0, 1, 1, 1, 0]))
    loose = average_precision(steps._replace(untied=steps.positives))
    assert loose == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3, abs=0.01)
    assert loose <= (1 / 2 + 2 / 3 + 3 / 4) / 3 < average_precision(steps)
