"""The published tables and figures as runnable experiments, on toy data."""

from __future__ import annotations

import json

import pytest

from experiments.dpdiff import figure6 as dpdiff_figure6
from experiments.dpdiff import table3 as dpdiff_table3
from experiments.dpdiff import table5 as dpdiff_table5
from experiments.dpdiff import table6 as dpdiff_table6
from experiments.dpdiff import table7 as dpdiff_table7
from experiments.dpdiff import table8 as dpdiff_table8
from experiments.dpdiff import table9 as dpdiff_table9
from experiments.dpdiff.rows import RowOptions, Table
from jaxad.metrics import METRICS


def test_figure6_evaluates_every_setting(trained, parts, capsys):
    options = dpdiff_figure6.Figure6(trained.workdir, parts.name, timesteps=(100, 250), steps=(1,), draws=(2,))
    rows = dpdiff_figure6.main(options)
    settings = [(setting["start_timestep"], setting["residual"]) for setting, _ in rows]
    assert settings == [(100, "squared"), (100, "cosine"), (250, "squared"), (250, "cosine")]
    assert all(0 <= (mean["pixel_ap"] or -1) <= 1 for _, mean in rows)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert printed[1].split()[:5] == ["100", "1", "2", "squared", "2"]
    assert printed[1].split()[6] == f"{100 * (rows[0][1]['pixel_ap'] or 0):.1f}"


def toy_rows(parts, out, **changes):
    small = {"preset": "small", "steps": 2, "backbone": "random:48x8", "image_size": 56}
    return RowOptions(data=parts.name, out=out, **small, **changes)


@pytest.mark.slow
def test_table5_trains_every_row_and_resumes(parts, tmp_path, capsys):
    rows = dpdiff_table5.main(toy_rows(parts, tmp_path))
    assert rows.keys() == dpdiff_table5.PUBLISHED.keys()
    runs = {run.name for run in tmp_path.iterdir()}
    assert runs == {"features", "diffusion", "diffusion-local", "diffusion-global", "diffusion-local-global"}
    printed = capsys.readouterr().out
    assert "65.6" in printed
    again = dpdiff_table5.main(toy_rows(parts, tmp_path))
    assert again == rows
    assert "nothing to train" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_change_what_they_say(parts, tmp_path, capsys):
    table = Table(toy_rows(parts, tmp_path, seeds=(0, 1)), {"other blocks": range(8)})
    table.row("other blocks", blocks=(1, 2), local_prototypes=0, global_prototypes=0, depth=1)
    table.row("other rate", train={"learning_rate": 1e-5}, local_prototypes=0, global_prototypes=0, depth=1)
    for seed in (0, 1):
        blocks = json.loads((tmp_path / "other-blocks" / f"seed-{seed}" / "config.json").read_text())
        rate = json.loads((tmp_path / "other-rate" / f"seed-{seed}" / "config.json").read_text())
        assert blocks["config"]["blocks"] == [1, 2]
        assert rate["config"]["blocks"] == "middle"
        assert (blocks["train"]["seed"], rate["train"]["learning_rate"]) == (seed, 1e-5)
    names = [line.split()[-9] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == ["ours", "std", "published", "ours", "std"]


@pytest.mark.parametrize(
    "table", [dpdiff_table3, dpdiff_table5, dpdiff_table6, dpdiff_table7, dpdiff_table8, dpdiff_table9]
)
def test_published_numbers_are_consistent(table):
    for name, values in table.PUBLISHED.items():
        assert len(values) == len(METRICS)
        *metrics, mean = values
        assert mean == pytest.approx(sum(metrics) / len(metrics), abs=0.11), name


def test_table7_names_a_backbone_for_every_row():
    assert dpdiff_table7.BACKBONES.keys() == dpdiff_table7.PUBLISHED.keys()
