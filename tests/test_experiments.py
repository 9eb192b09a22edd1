"""The published tables and figures as runnable experiments, on toy data."""

from __future__ import annotations

import pytest

from experiments import dpdiff_figure6, dpdiff_table5


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


@pytest.mark.slow
def test_table5_trains_every_row_and_resumes(parts, tmp_path, capsys):
    options = dpdiff_table5.Table5(parts.name, tmp_path, preset="small", steps=3, backbone="random:48x8", image_size=56)
    rows = dpdiff_table5.main(options)
    assert rows.keys() == dpdiff_table5.PUBLISHED.keys()
    runs = {run.name for run in tmp_path.iterdir()}
    assert runs == {"features", "diffusion", "diffusion-local", "diffusion-global", "diffusion-local-global"}
    printed = capsys.readouterr().out
    assert "65.6" in printed
    again = dpdiff_table5.main(options)
    assert again == rows
    assert "nothing to train" in capsys.readouterr().err


def test_published_numbers_are_consistent():
    for name, values in dpdiff_table5.PUBLISHED.items():
        assert len(values) == len(dpdiff_table5.METRICS)
        *metrics, mean = values
        assert mean == pytest.approx(sum(metrics) / len(metrics), abs=0.11), name
