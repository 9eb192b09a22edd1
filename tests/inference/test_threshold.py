import json
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxad
from jaxad.data import FolderSource
from jaxad.errors import ConfigError, DataError, TrainingError
from jaxad.inference.calibrate import ROUNDING, choose_threshold, conformal_quantile
from jaxad.inference.predictor import Output, Predictor
from jaxad.inference.threshold import Limits, Threshold, overridden

scores = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60)
# Rates as people write them, so that (n + 1)(1 - rate) is often whole and rounding would show.
rates = st.integers(1, 99).map(lambda percent: Fraction(percent, 100))

finite = st.floats(-1e6, 1e6)


@given(scores, rates)
def test_conformal_quantile_is_its_definition(values, rate):
    rank = -((-(len(values) + 1) * (1 - rate)) // 1)
    expected = sorted(values)[min(int(rank), len(values)) - 1]
    assert conformal_quantile(np.array(values), float(rate)) == expected


@given(scores.filter(lambda values: len(values) > 1), rates)
def test_a_further_normal_image_passes_at_most_as_often_as_stated(values, rate):
    # Any of the n + 1 exchangeable scores may be the further one: count over all of them.
    n = len(values) - 1
    passed = sum(
        value > conformal_quantile(np.array(values[:i] + values[i + 1 :]), float(rate))
        for i, value in enumerate(values)
    )
    assert passed <= max(float(rate), 1 / (n + 1)) * (n + 1) + 1e-9


@pytest.fixture(scope="module")
def measured(trained, parts):
    outputs = list(Predictor(trained.model, batch_size=8).stream(parts.holdout))
    return np.concatenate([o.scores for o in outputs]), np.concatenate([o.maps.max((1, 2)) for o in outputs])


def test_limits_are_measured_per_category_and_pooled(trained, parts, measured):
    rule = choose_threshold(trained.model, parts.holdout, false_alarm=0.25)
    names = np.array([record.category for record in parts.holdout.records])
    for name in ("", "disc", "tile"):
        own = (names == name) | (name == "")
        assert rule.limits[name].normals == own.sum()
        image, pixel = (conformal_quantile(values[own], 0.25) * (1 + ROUNDING) for values in measured)
        assert rule.limits[name].image == pytest.approx(image, rel=1e-5)
        assert rule.limits[name].pixel == pytest.approx(pixel, rel=1e-5)
    assert rule.limits["disc"] != rule.limits["tile"]
    assert rule.protocol == "exact-256"
    assert set(rule.images) == {record.identity for record in parts.holdout.records}
    assert rule.warnings == ()


def test_unknown_categories_fall_back_to_the_pooled_limits(trained):
    rule = trained.threshold
    assert rule.of("disc") == rule.limits["disc"]
    assert rule.of("bolt") == rule.of("") == rule.of(None) == rule.limits[""]


def test_too_few_normal_images_are_warned_about(trained):
    (warning,) = trained.threshold.warnings
    assert "a false-alarm rate of 0.01 needs 99 hold-out images" in warning
    assert "all together 10, disc 5, tile 5" in warning


def test_json_round_trip(trained):
    assert Threshold.from_json(json.loads(json.dumps(trained.threshold.to_json()))) == trained.threshold


def test_rules_of_older_runs_are_read():
    limits = {"": {"image": 2.0, "pixel": 1.0, "typical": 0.1, "normals": 4}}
    old = {"false_alarm": 0.01, "protocol": "exact-256", "limits": limits, "images": ["a"], "warnings": []}
    rule = Threshold.from_json(old)
    assert (rule.value, rule.of("a").above, rule.scaled(2.0), rule.scaled(4.0)) == (None, None, 0.5, 0.75)


@given(finite, finite, st.floats(0, 1e3), st.floats(-1e3, 1e3))
def test_scaled_scores_keep_order_and_decision(first, second, spread, limit):
    rule = Threshold(0.01, "exact-256", {"": Limits(limit, 1.0, 0.0, 5, spread=spread)})
    low, high = sorted((first, second))
    assert 0 <= rule.scaled(low) <= rule.scaled(high) <= 1
    assert (rule.scaled(first) > 0.5) == (first > limit)
    assert rule.scaled(limit) == 0.5


def test_scaled_scores_count_standard_deviations_of_the_category():
    limits = {"": Limits(10.0, 1.0, 0.0, 9, spread=2.0), "cup": Limits(3.0, 1.0, 0.0, 5, spread=0.5)}
    rule = Threshold(0.01, "exact-256", limits)
    assert (rule.scaled(3.5, "cup"), rule.scaled(12.0), rule.scaled(8.0, "mug")) == (0.75, 0.75, 0.25)
    assert rule.scaled(4.5, "cup") == pytest.approx(0.5 + 0.5 * 3 / 4)


def test_a_rate_is_supported_as_far_as_the_holdout_goes():
    rule = Threshold(0.01, "exact-256", {"": Limits(1.0, 1.0, 0.0, 99), "cup": Limits(1.0, 1.0, 0.0, 5, above=2)})
    assert (rule.supported(), rule.supported("cup")) == (0.01, 1 / 6)
    by_hand = Threshold(0.01, "exact-256", rule.limits, value=1.0)
    assert (by_hand.supported(), by_hand.supported("cup")) == (None, 3 / 6)


def test_an_override_sets_image_limits_alone(trained):
    rule = overridden(trained.threshold, 0.25, protocol="exact-256")
    assert rule.value == 0.25
    for name, limits in trained.threshold.limits.items():
        assert rule.limits[name].image == 0.25
        assert (rule.limits[name].pixel, rule.limits[name].normals) == (limits.pixel, limits.normals)
    assert Threshold.from_json(json.loads(json.dumps(rule.to_json()))) == rule


def test_overrides_that_cannot_be(trained):
    with pytest.raises(ConfigError, match="no threshold"):
        overridden(None, 0.5)
    with pytest.raises(ConfigError, match="exact-256"):
        overridden(trained.threshold, 0.5, protocol="ader")
    with pytest.raises(ConfigError, match="threshold = nan"):
        overridden(trained.threshold, float("nan"))


def test_anomalous_images_and_no_images_are_refused(trained, parts):
    with pytest.raises(DataError, match=r"anomalous images among them: disc/test/blot/000\.png"):
        choose_threshold(trained.model, parts.test)
    with pytest.raises(DataError, match="no images"):
        choose_threshold(trained.model, FolderSource("empty", ()))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_rates_are_refused(trained, parts, rate):
    with pytest.raises(ConfigError, match="false_alarm"):
        choose_threshold(trained.model, parts.holdout, false_alarm=rate)


def test_no_holdout_image_is_called_anomalous_by_its_own_limit(trained, parts):
    for record in parts.holdout.records[:3]:
        prediction = jaxad.predict(trained.model, record.file, threshold=trained.threshold, category=record.category)[0]
        assert not prediction.anomalous
        assert not prediction.mask.any()


def test_scores_and_maps_that_are_not_finite_choose_nothing(trained, parts, monkeypatch):
    def stream(self, source, **options):
        maps = np.zeros((len(source), 2, 2), np.float32)
        maps[1, 0, 1] = np.nan
        yield Output(np.arange(len(source)) * np.float32(1), maps, SimpleNamespace(records=source.records))

    monkeypatch.setattr(Predictor, "stream", stream)
    with pytest.raises(TrainingError, match="1 of 10 normal images") as error:
        choose_threshold(trained.model, parts.holdout)
    assert str(parts.holdout.records[1].file) in str(error.value)
    assert str(parts.holdout.records[2].file) not in str(error.value)
