import pytest

from experiments.dpdiff import table5
from tests.experiments.dpdiff.toy_rows import toy_rows


@pytest.mark.slow
def test_table5_trains_every_row_and_resumes(parts, tmp_path, capsys):
    rows = table5.main(toy_rows(parts, tmp_path))
    assert rows.keys() == table5.PUBLISHED.keys()
    runs = {run.name for run in tmp_path.iterdir()}
    assert runs == {"features", "diffusion", "diffusion-local", "diffusion-global", "diffusion-local-global"}
    printed = capsys.readouterr().out
    assert "65.6" in printed
    again = table5.main(toy_rows(parts, tmp_path))
    assert again == rows
    assert "nothing to train" in capsys.readouterr().err
