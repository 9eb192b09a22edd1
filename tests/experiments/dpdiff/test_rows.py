"""Rows of DPDiff-AD's tables, on toy data."""

from __future__ import annotations

import json

import pytest

from experiments.dpdiff import table3, table5, table6, table7, table8, table9
from experiments.dpdiff.rows import Table
from jaxad.metrics import METRICS
from jaxad.report.comparison.comparison import compare
from tests.experiments.dpdiff.toy_rows import toy_rows


@pytest.mark.slow
def test_rows_change_what_they_say(parts, tmp_path, capsys):
    table = Table(toy_rows(parts, tmp_path, seeds=(0, 1)), {"other blocks": range(8)}, "Table 8")
    table.row("other blocks", blocks=(1, 2), local_prototypes=0, global_prototypes=0, depth=1)
    table.row("other rate", train={"learning_rate": 1e-5}, local_prototypes=0, global_prototypes=0, depth=1)
    for seed in (0, 1):
        blocks = json.loads((tmp_path / "other-blocks" / f"seed-{seed}" / "config.json").read_text())
        rate = json.loads((tmp_path / "other-rate" / f"seed-{seed}" / "config.json").read_text())
        assert blocks["config"]["blocks"] == [1, 2]
        assert rate["config"]["blocks"] == "middle"
        assert (blocks["train"]["seed"], rate["train"]["learning_rate"]) == (seed, 1e-5)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line[29:39].strip() for line in lines] == ["ours", "std", "published", "ours", "std"]
    assert "left out: for the 15 categories of mvtec_ad, of which" in lines[2]
    found = compare([tmp_path / "reports"], resamples=100, metrics=("image_auroc",))
    assert [(method.name, method.seeds) for method in found.methods] == [
        ("other-blocks", ("0", "1")),
        ("other-rate", ("0", "1")),
    ]
    assert "published values of DPDiff-AD, Table 8 left out" in " ".join(found.notes)


@pytest.mark.parametrize("table", [table3, table5, table6, table7, table8, table9])
def test_published_numbers_are_consistent(table):
    for name, values in table.PUBLISHED.items():
        assert len(values) == len(METRICS)
        *metrics, mean = values
        assert mean == pytest.approx(sum(metrics) / len(metrics), abs=0.11), name
