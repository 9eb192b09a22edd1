import json

import pytest

import jaxad
from experiments.dpdiff import table5
from experiments.dpdiff.rows import Table
from experiments.rows import slug
from jaxad.errors import ProtocolError
from tests.experiments.dpdiff.toy_rows import toy_rows


@pytest.mark.slow
def test_table5_trains_every_row_and_resumes(parts, tmp_path, capsys):
    rows = table5.main(toy_rows(parts, tmp_path))
    assert rows.keys() == table5.PUBLISHED.keys()
    assert {run.name for run in tmp_path.iterdir()} == {"reports", *map(slug, rows)}
    alone = json.loads((tmp_path / "local-prototypes-alone" / "seed-0" / "config.json").read_text())["config"]
    assert (alone["denoiser"], alone["local_prototypes"] > 0, alone["global_prototypes"]) == ("none", True, 0)
    printed = capsys.readouterr().out
    assert printed.count("left out: for the 15 categories of mvtec_ad") == len(rows)
    assert {report.parent.name for report in tmp_path.glob("reports/*/seed-0")} == {slug(name) for name in rows}
    again = table5.main(toy_rows(parts, tmp_path))
    assert again == rows
    assert "nothing to train" in capsys.readouterr().err


def test_one_pass_is_kept_under_every_protocol(parts, tmp_path):
    protocols, folders = ("exact-256", "dpdiff", "ader"), ("reports", "reports-dpdiff", "reports-ader")
    with Table(toy_rows(parts, tmp_path, protocols=protocols), {"alone": range(8)}, "Table 5", shares=True) as table:
        table.row("alone", denoiser="none", score="prototype")
        assert {file.name for file in (tmp_path / "features").iterdir()} == {"train", "test"}
    assert not (tmp_path / "features").exists()
    kept = [json.loads((tmp_path / name / "alone" / "seed-0" / "report.json").read_text()) for name in folders]
    assert [report["protocol"] for report in kept] == list(protocols)
    assert table.reports["alone"] == kept[:1]
    trained = jaxad.restore(tmp_path / "alone" / "seed-0").detector
    for report in kept:
        alone = jaxad.evaluate(trained, parts.test, protocol=report["protocol"])
        for metric, value in alone["mean"].items():
            # Features that are kept are rounded to float16.
            assert report["mean"][metric] == pytest.approx(value, abs=2e-3), (report["protocol"], metric)


@pytest.mark.slow
def test_features_stay_for_a_table_that_fails_and_none_are_kept_where_asked(parts, tmp_path):
    def failing():
        with Table(toy_rows(parts, tmp_path), {}, "Table 6") as table:
            table.row("alone", denoiser="none", score="prototype")
            assert {file.name for file in (tmp_path / "features").iterdir()} == {"train"}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (tmp_path / "features" / "train").is_dir()
    other = toy_rows(parts, tmp_path / "other", cache="off")
    with Table(other, {}, "Table 5", shares=True) as table:
        table.row("alone", denoiser="none", score="prototype")
        assert not list((tmp_path / "other").rglob("features"))
    with pytest.raises(ProtocolError, match="nowhere"):
        Table(toy_rows(parts, tmp_path, protocols=("nowhere",)), {}, "Table 5")
