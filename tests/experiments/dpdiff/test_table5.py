import pytest

from experiments.dpdiff import table5
from experiments.rows import slug
from tests.experiments.dpdiff.toy_rows import toy_rows


@pytest.mark.slow
def test_table5_trains_every_row_and_resumes(parts, tmp_path, capsys):
    rows = table5.main(toy_rows(parts, tmp_path))
    assert rows.keys() == table5.PUBLISHED.keys()
    runs = {run.name for run in tmp_path.iterdir()}
    assert runs == {"features", "reports", "diffusion", "diffusion-local", "diffusion-global", "diffusion-local-global"}
    printed = capsys.readouterr().out
    assert printed.count("left out: for the 15 categories of mvtec_ad") == len(rows)
    assert {report.parent.name for report in tmp_path.glob("reports/*/seed-0")} == {slug(name) for name in rows}
    again = table5.main(toy_rows(parts, tmp_path))
    assert again == rows
    assert "nothing to train" in capsys.readouterr().err
