"""What other thresholds would do: the table, and the numbers of the slider."""

from __future__ import annotations

import json

import numpy as np

from jaxad.report import operating
from tests.report.cases import make_decisions

DRAW = np.random.default_rng(3)
GOOD, DEFECTIVE = DRAW.normal(0, 1, 200), DRAW.normal(2, 1, 60)
SCORES = {"cup": (np.concatenate([GOOD, DEFECTIVE]), np.repeat([0, 1], [200, 60]))}


def test_thresholds_decide_as_they_are_shown():
    (table,) = operating.alternatives(make_decisions(SCORES), {"cup": 1.5})
    assert (table["good"], table["defective"]) == (200, 60)
    limits = [float(row["threshold"]) for row in table["rows"]]
    assert limits == sorted(limits)
    for row, limit in zip(table["rows"], limits, strict=True):
        assert row["found"] == (limit < DEFECTIVE).sum()
        assert row["alarms"] == (limit < GOOD).sum()
    assert [row["alarms"] for row in table["rows"] if not row["notes"]] == [40, 20, 10, 4, 2]
    noted = {row["notes"][0].split()[0]: row for row in table["rows"] if row["notes"]}
    assert noted["highest"]["found"] == 60
    assert noted["lowest"]["alarms"] == 0
    assert float(noted["in"]["threshold"]) == 1.5


def test_a_category_without_good_or_without_defective_images():
    decisions = make_decisions({"cup": ([1.0], [1]), "mug": ([1.0], [0])})
    cup, mug = operating.alternatives(decisions, {"cup": 1.5, "mug": 1.5})
    assert [(row["threshold"], row["found"]) for row in cup["rows"]] == [("0.9999999999999999", 1), ("1.5", 0)]
    assert [(row["threshold"], row["alarms"]) for row in mug["rows"]] == [("1", 0), ("1.5", 0)]


def test_the_slider_has_every_score_and_cannot_end_its_script():
    scores = {"</script>": SCORES["cup"]}
    text = operating.slider(make_decisions(scores), {"</script>": 1.5})
    assert "<" not in text
    found = json.loads(text)["</script>"]
    assert found["in_force"] == 1.5
    np.testing.assert_allclose(found["good"], np.sort(GOOD), rtol=1e-8)
    np.testing.assert_allclose(found["defective"], np.sort(DEFECTIVE), rtol=1e-8)
