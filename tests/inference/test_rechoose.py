"""Choosing the threshold of a finished run anew: from its scores alone, and never half-way."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import jaxad
from jaxad.errors import CheckpointError, ConfigError, DamagedError
from jaxad.inference import rechoose as module
from jaxad.inference import steps
from jaxad.inference.calibrate import choose_limits
from jaxad.inference.card import CARD
from jaxad.inference.holdout_scores import HoldoutScores, joined
from jaxad.inference.predictor import Predictor
from jaxad.inference.rechoose import chosen_like, read_decided, rechoose
from jaxad.io import atomic
from jaxad.io.digests import read_sealed, sealed
from jaxad.testing import toy_model, toy_training

END = "checkpoints/12/complete.json"


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.workdir, tmp_path / "run")


def as_before(run):
    """What an older version left of the same run."""
    record = read_sealed(run / END)
    for name in ("sha256", "holdout", "false_alarm"):
        record.pop(name)
    for limits in record["threshold"]["limits"].values():
        del limits["above"], limits["spread"], limits["asked"], limits["by_hand"]
    (run / END).write_text(sealed(record))


def others(run):
    """Bytes of all files but the one that holds the decision and the one that tells of it."""
    telling = (run / END, run / CARD)
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path not in telling}


def test_the_scores_of_the_holdout_are_kept_with_the_run(trained, parts):
    kept = read_decided(trained.workdir).holdout
    assert kept is not None
    outputs = list(Predictor(trained.model).stream(parts.holdout))
    np.testing.assert_allclose(kept.scores, np.concatenate([o.scores for o in outputs]), rtol=1e-5)
    np.testing.assert_allclose(kept.peaks, np.concatenate([o.maps.max((1, 2)) for o in outputs]), rtol=1e-5)
    records = parts.holdout.records
    assert kept.files == tuple(record.identity for record in records)
    assert kept.categories == tuple(record.category for record in records)
    assert kept.digests == tuple(parts.holdout.digest(i).hex() for i in range(len(records)))
    assert choose_limits(kept) == trained.threshold


def test_another_rate_gives_the_threshold_that_fit_would_have_chosen(copy, trained, parts):
    before = others(copy)
    chosen = rechoose(copy, false_alarm=0.25)
    wanted = jaxad.choose_threshold(trained.model, parts.holdout, false_alarm=0.25)
    assert jaxad.restore(copy).threshold == chosen
    for name, limits in wanted.limits.items():
        found = chosen.limits[name]
        assert found.image == pytest.approx(limits.image, rel=1e-5)
        assert found.pixel == pytest.approx(limits.pixel, rel=1e-5)
        assert (found.normals, found.above) == (limits.normals, limits.above)
    assert chosen.limits[""].image < trained.threshold.limits[""].image
    assert others(copy) == before
    assert rechoose(copy, false_alarm=0.01) == trained.threshold


def test_a_value_keeps_pixel_limits_and_counts_the_holdout_above_it(copy, trained):
    scores = read_decided(copy).holdout.scores
    middle = float(np.median(scores))
    chosen = rechoose(copy, value=middle)
    assert {limits.image for limits in chosen.limits.values()} == {middle}
    assert chosen.limits[""].above == (scores > middle).sum() == 5
    assert chosen.supported() == 6 / 11
    assert chosen.limits["disc"].pixel == trained.threshold.limits["disc"].pixel


def test_one_category_may_have_a_decision_of_its_own(copy, trained):
    rechoose(copy, value=50.0, categories=["disc"])
    chosen = rechoose(copy, false_alarm=0.4, categories=["tile"])
    assert jaxad.restore(copy).threshold == chosen
    assert chosen.limits[""].image == trained.threshold.limits[""].image
    assert (chosen.limits["disc"].image, chosen.value) == (50.0, None)
    assert chosen.limits["tile"].image < trained.threshold.limits["tile"].image
    assert [chosen.asked(name) for name in ("", "disc", "tile")] == [0.01, None, 0.4]
    assert [chosen.supported(name) for name in ("", "disc", "tile")] == [1 / 11, 1 / 6, 0.4]
    (warning,) = chosen.warnings
    assert "all together 10. " in warning
    with pytest.raises(ConfigError, match=r"categories = screw: .* disc, tile"):
        rechoose(copy, value=1.0, categories=["disc", "screw"])
    assert jaxad.restore(copy).threshold == chosen


def test_an_error_in_writing_leaves_the_old_threshold(copy, trained, monkeypatch):
    def fail(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        rechoose(copy, false_alarm=0.25)
    monkeypatch.undo()
    assert jaxad.restore(copy).threshold == trained.threshold
    assert read_decided(copy).holdout is not None


def test_fit_with_another_rate_is_the_same_run_and_measures_nothing_anew(copy, parts, monkeypatch):
    before = others(copy)
    monkeypatch.setattr("jaxad.training.fit.measure_holdout", lambda *a, **k: 1 / 0)
    again = {"workdir": copy, "holdout": parts.holdout}
    run = jaxad.fit(toy_model(), parts.train, toy_training(), false_alarm=0.25, **again)
    assert run.threshold == choose_limits(read_decided(copy).holdout, false_alarm=0.25)
    changed = {path.name for path, content in others(copy).items() if before[path] != content}
    assert changed == {"config.json"}
    assert json.loads((copy / "config.json").read_text())["false_alarm"] == 0.25
    # What was decided since stays, until fit is asked for another rate.
    rechoose(copy, value=0.5)
    assert jaxad.fit(toy_model(), parts.train, toy_training(), false_alarm=0.25, **again).threshold.value == 0.5
    assert jaxad.fit(toy_model(), parts.train, toy_training(), **again).threshold.value is None


def test_runs_of_older_versions_say_what_to_run(copy, parts, trained):
    as_before(copy)
    assert jaxad.restore(copy).threshold.limits["disc"].image == trained.threshold.limits["disc"].image
    with pytest.raises(CheckpointError, match=r"run `jaxad threshold --checkpoint .* --data folder:.* once"):
        rechoose(copy, false_alarm=0.25)
    run = jaxad.fit(toy_model(), parts.train, toy_training(), workdir=copy, holdout=parts.holdout, false_alarm=0.25)
    assert len(read_decided(copy).holdout) == 10
    assert run.threshold.false_alarm == 0.25


def test_damaged_and_unfinished_ends_choose_nothing(copy):
    whole = (copy / END).read_text()
    (copy / END).write_text(whole.replace('"scores": [\n', '"scores": [\n 0.5,', 1))
    with pytest.raises(DamagedError, match=r"complete\.json"):
        rechoose(copy, false_alarm=0.25)
    (copy / END).unlink()
    with pytest.raises(CheckpointError, match="not at its end"):
        rechoose(copy, false_alarm=0.25)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": [1.0]}, "different lengths"),
        ({"peaks": None}, "needs a list"),
        ({"medians": ["a"] * 10}, "must hold numbers"),
        ({"medians": [10**400] * 10}, "must hold numbers"),
    ],
)
def test_scores_of_another_form_are_refused(copy, change, said):
    record = read_sealed(copy / END)
    record.pop("sha256")
    (copy / END).write_text(sealed(record | {"holdout": record["holdout"] | change}))
    with pytest.raises(CheckpointError, match=said):
        module.read_decided(copy)


def test_the_end_is_read_once_and_again_once_it_was_written(copy, monkeypatch):
    read = []
    monkeypatch.setattr(steps, "read_sealed", lambda file: read.append(file.name) or read_sealed(file))
    decided = read_decided(copy)
    assert read == ["complete.json"]
    decided.step.end(None, None, 0.5)
    assert decided.step.ending()["false_alarm"] == 0.5


def test_limits_are_chosen_like_those_of_a_rule():
    """Set by hand, at a rate of their own, at that of the rule; of a new category like the pooled ones."""
    names = ("a",) * 9 + ("b",) * 9
    numbers = np.tile(np.arange(1.0, 10), 2)
    scores = HoldoutScores("exact-256", "s", names, names, ("00" * 16,) * 18, numbers, numbers, numbers)
    rule = choose_limits(scores, false_alarm=0.1)
    by_hand, own = replace(rule.limits["a"], image=3.5, by_hand=True), replace(rule.limits["b"], asked=0.5)
    rule = replace(rule, limits={**rule.limits, "a": by_hand, "b": own})
    more = joined([scores, HoldoutScores("exact-256", "s", ("c",), ("c",), ("01" * 16,), *np.full((3, 1), 40.0))], "s")
    limits = chosen_like(rule, more).limits
    assert (limits["a"].image, limits["a"].by_hand, limits["a"].above) == (3.5, True, 6)
    assert (limits["b"].image, limits["b"].asked) == (pytest.approx(5, rel=1e-4), 0.5)
    assert [limits[name].image for name in ("", "c")] == pytest.approx([9, 40], rel=1e-4)
    assert chosen_like(choose_limits(scores, value=2.5), more).value == 2.5


def test_json_round_trip_is_exact(trained):
    kept = read_decided(trained.workdir).holdout
    again = HoldoutScores.from_json(json.loads(json.dumps(kept.to_json())))
    assert again.to_json() == kept.to_json()
    np.testing.assert_array_equal(again.scores, kept.scores)
