"""Drift: scores of accepted parts against the hold-out's."""

import json

import numpy as np
import pytest

import jaxad
from jaxad import cli
from jaxad.errors import ConfigError, DataError
from jaxad.inference.calibrate import choose_limits
from jaxad.inference.drift import FEW, PARTS, Line, compare, read_lines
from jaxad.inference.holdout_scores import HoldoutScores


def holdout(scores, categories=None):
    n, scores = len(scores), np.asarray(scores, np.float64)
    names = tuple(map(str, range(n)))
    return HoldoutScores("exact-256", "made up", names, tuple(categories or ["a"] * n), names, scores, scores, scores)


def lines(scores, category="a"):
    return [Line(category, float(score), None) for score in scores]


RNG = np.random.default_rng(0)
NORMAL = holdout(RNG.normal(1, 0.1, 200))
RULE = choose_limits(NORMAL, false_alarm=0.05)


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        (RNG.normal(1, 0.1, 300), "steady"),
        (RNG.normal(1.05, 0.1, 300), "higher"),
        (RNG.normal(0.9, 0.1, 300), "lower"),
        (np.where(RNG.random(600) < 0.5, 0.85, 1.15) + RNG.normal(0, 0.01, 600), "changed"),
        (RNG.normal(1, 0.1, FEW - 1), "too few"),
    ],
)
def test_the_verdict_says_where_scores_have_gone(scores, verdict):
    (found,) = compare(lines(scores), NORMAL, RULE)
    assert found.verdict == verdict
    assert (found.p is None) == (verdict == "too few")
    assert found.images == len(scores)


def test_rejected_parts_are_no_drift():
    """As many as you like above the limit: the accepted ones are compared with hold-out images below it."""
    accepted = RNG.normal(1, 0.1, 400)
    accepted = accepted[accepted <= RULE.of("a").image]
    (found,) = compare(lines([*accepted, *[9.0] * 400]), NORMAL, RULE)
    assert (found.verdict, found.accepted) == ("steady", len(accepted))
    assert found.holdout == (NORMAL.scores <= RULE.of("a").image).sum()


def test_shares_above_the_limit_are_told_in_order():
    (found,) = compare(lines([1.0] * 50 + [9.0] * 50), NORMAL, RULE)
    assert found.above == (0.0,) * 5 + (1.0,) * 5
    assert len(found.above) == PARTS
    (few,) = compare(lines([1.0, 9.0]), NORMAL, RULE)
    assert few.above == (0.0, 1.0)


def test_each_category_has_its_own_hold_out_and_together_they_must_be_surer():
    known = holdout([*RNG.normal(1, 0.1, 100), *RNG.normal(5, 0.1, 100)], ["a"] * 100 + ["b"] * 100)
    rule = choose_limits(known, false_alarm=0.05)
    moved = [*lines(RNG.normal(1, 0.1, 100)), *lines(RNG.normal(4.9, 0.1, 100), "b")]
    assert [(one.category, one.verdict) for one in compare(moved, known, rule)] == [("a", "steady"), ("b", "lower")]
    # What nobody named a category for is compared with all.
    (found,) = compare(lines(known.scores, ""), known, rule)
    assert (found.verdict, found.holdout) == ("steady", (known.scores <= rule.of("").image).sum())


def test_lines_that_are_no_predictions_are_counted(tmp_path):
    good = {"file": "x", "category": "a", "score": 1.0, "threshold": None}
    texts = [json.dumps(good), "{", json.dumps({**good, "score": "high"}), "", json.dumps({**good, "score": True})]
    (tmp_path / "predictions.jsonl").write_text("\n".join(texts))
    with pytest.raises(DataError, match="no predictions in lines 2, 3, 5"):
        read_lines(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_lines(tmp_path / "nothing")


def test_the_command_reads_what_predict_has_written(trained, parts, tmp_path, capsys):
    file = tmp_path / "predictions.jsonl"
    answers = jaxad.predict(trained.model, [r.file for r in parts.holdout.records], threshold=trained.threshold)
    file.write_text("".join(json.dumps(answer.to_json()) + "\n" for answer in answers))
    cli.run(cli.parse(["drift", str(trained.workdir), str(file), str(file), "--out", str(tmp_path / "drift.json")]))
    said = capsys.readouterr().out
    assert "all: no sign of drift" in said or "all: too few to say" in said
    (record,) = json.loads((tmp_path / "drift.json").read_text())
    assert record["images"] == 2 * len(answers)
    assert record["holdout_median"] == pytest.approx(record["median"], rel=1e-4)


def test_predictions_of_another_version_are_refused(trained, tmp_path):
    line = {"file": "x", "category": "", "score": 1.0, "threshold": 123.0}
    (tmp_path / "predictions.jsonl").write_text(json.dumps(line))
    with pytest.raises(ConfigError, match=r"with the threshold 123 and .* of another run, or of another version"):
        jaxad.drift(trained.workdir, [tmp_path])
