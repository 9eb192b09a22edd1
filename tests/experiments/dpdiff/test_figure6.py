import pytest

from experiments.dpdiff import figure6


@pytest.mark.slow
def test_figure6_evaluates_and_keeps_every_setting(trained, parts, tmp_path, capsys):
    options = figure6.Figure6(trained.workdir, parts.name, timesteps=(100, 250), steps=(1,), draws=(2,), out=tmp_path)
    rows = figure6.main(options)
    settings = [(setting["start_timestep"], setting["residual"]) for setting, _ in rows]
    assert settings == [(100, "squared"), (100, "cosine"), (250, "squared"), (250, "cosine")]
    assert all(0 <= (mean["pixel_ap"] or -1) <= 1 for _, mean in rows)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert printed[1].split()[:5] == ["100", "1", "2", "squared", "2"]
    assert printed[1].split()[6] == f"{100 * (rows[0][1]['pixel_ap'] or 0):.1f}"
    names = {f"start_timestep-{t}-sampling_steps-1-draws-2-residual-{r}" for t, r in settings}
    assert {file.parent.name for file in tmp_path.glob("*/images.csv")} == names
