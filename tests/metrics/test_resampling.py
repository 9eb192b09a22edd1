"""Metrics of resamples are those of the images repeated so often, by scikit-learn and by `jaxad.metrics.curves`."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxad.metrics import IMAGE_METRICS, MetricRules
from jaxad.metrics.curves import exact_steps, f1_max
from jaxad.metrics.resampling import resampled

ORACLES = dict(
    zip(
        IMAGE_METRICS,
        (
            lambda labels, scores: roc_auc_score(labels, scores),
            lambda labels, scores: average_precision_score(labels, scores),
            lambda labels, scores: f1_max(exact_steps(scores, labels)),
        ),
        strict=True,
    )
)


@pytest.mark.parametrize("metric", IMAGE_METRICS)
def test_a_resample_is_its_images_repeated(metric):
    rng = np.random.default_rng(0)
    labels = np.array([0] * 9 + [1] * 7)
    # Ties within and between the labels.
    scores = rng.integers(0, 6, 16) / 4 + labels / 2
    counts = rng.integers(0, 3, (20, 16))
    expected = [ORACLES[metric](np.repeat(labels, row), np.repeat(scores, row)) for row in counts]
    np.testing.assert_allclose(resampled(metric, scores, labels, counts), expected, rtol=1e-12)


def test_one_label_alone_has_no_metric_and_protocols_may_flip():
    scores, labels = np.array([3.0, 2.0, 1.0]), np.array([0, 1, 1])
    counts = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0]])
    plain = resampled("image_auroc", scores, labels, counts)
    assert plain[0] == 0
    assert np.isnan(plain[1:]).all()
    assert resampled("image_auroc", scores, labels, counts, MetricRules(flip_auroc=True))[0] == 1
    assert resampled("image_ap", scores, labels, counts, MetricRules(flip_auroc=True))[0] < 1
