import json

import pytest

from experiments.dpdiff import table5
from experiments.dpdiff.rows import Table
from experiments.rows import slug
from tests.experiments.dpdiff.toy_rows import toy_rows


@pytest.mark.slow
def test_table5_trains_every_row_and_resumes(parts, tmp_path, capsys):
    rows = table5.main(toy_rows(parts, tmp_path))
    assert rows.keys() == table5.PUBLISHED.keys()
    assert {run.name for run in tmp_path.iterdir()} == {"features", "reports", *map(slug, rows)}
    alone = json.loads((tmp_path / "local-prototypes-alone" / "seed-0" / "config.json").read_text())["config"]
    assert (alone["denoiser"], alone["local_prototypes"] > 0, alone["global_prototypes"]) == ("none", True, 0)
    printed = capsys.readouterr().out
    assert printed.count("left out: for the 15 categories of mvtec_ad") == len(rows)
    assert {report.parent.name for report in tmp_path.glob("reports/*/seed-0")} == {slug(name) for name in rows}
    again = table5.main(toy_rows(parts, tmp_path))
    assert again == rows
    assert "nothing to train" in capsys.readouterr().err


def test_a_row_is_kept_under_either_protocol(parts, tmp_path, capsys):
    for name in ("exact-256", "dpdiff"):
        table = Table(toy_rows(parts, tmp_path, protocol=name), {"alone": range(8)}, "Table 5")
        table.row("alone", denoiser="none", score="prototype")
        assert table.rows["alone"]["pixel_auroc"] is not None
    kept = [tmp_path / folder / "alone" / "seed-0" / "report.json" for folder in ("reports", "reports-dpdiff")]
    assert [json.loads(file.read_text())["protocol"] for file in kept] == ["exact-256", "dpdiff"]
