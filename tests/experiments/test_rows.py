import re
from pathlib import Path

import pytest

from experiments.records import Printed, keep, run_record
from experiments.rows import DataOptions, Lines, percent, slug
from jaxad.inference.checkpoint import read_meta
from jaxad.inference.evaluation import score
from jaxad.report.comparison.comparison import compare
from jaxad.report.published import Published

PRINTED = Printed("A paper, Table 1", "diad", ("image_auroc", "aupro"), {"one": (90.0, 80.0), "two": (None, 1)}, "nuts")


def test_rows_show_means_and_deviations_beside_the_published_values(capsys):
    lines = Lines(PRINTED, width=8)
    mean = lines.show("one", [{"image_auroc": 0.5, "aupro": None}, {"image_auroc": 0.7, "aupro": 0.2}])
    lines.show("three", [{"image_auroc": 1.0, "aupro": 0.0}])
    assert mean == {"image_auroc": pytest.approx(0.6), "aupro": None}
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["one", "ours", "60.0", "-"],
        ["std", "14.1", "-"],
        ["published", "90.0", "80.0"],
        ["three", "ours", "100.0", "0.0"],
    ]


def test_published_values_of_other_data_are_left_out(capsys):
    lines, means = Lines(PRINTED, width=8), [{"image_auroc": 1.0, "aupro": None}]
    report = {"protocol": "diad", "data": {"source": "bolts"}, "classes": {}}
    lines.show("one", means, reports=[report, report])
    lines.show("one", means, data="bolts", reports=[report])
    lines.show("two", means, data="bolts", reports=[{**report, "protocol": "ader"}])
    printed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "published" in line]
    assert printed == [
        ["published", "left out: for nuts, not bolts"],
        ["published", "90.0        80.0"],
        ["published", "left out: under diad, not ader"],
    ]


def test_a_published_row_has_what_is_printed():
    row = PRINTED.row("two", "bolts")
    assert row == Published("A paper, Table 1", "bolts", "diad", {"aupro": 0.01}, "two")
    assert PRINTED.row("one").data == "nuts"
    assert PRINTED.row("three") is None


def test_a_record_is_a_report_that_can_be_compared(trained, parts, tmp_path):
    published = Published("A paper, Table 1", parts.name, "exact-256", {"aupro": 0.5}, "one")
    provenance = {"row": "one", "preset": "small", **run_record(read_meta(trained.workdir))}
    report = keep(tmp_path / "one", score(trained.model, parts.test), parts, published=published, provenance=provenance)
    (found,) = compare([tmp_path]).methods
    assert compare([tmp_path]).published == {"one": published}
    (result,) = found.results
    assert result.report == report
    assert result.seed == "0"
    assert sum(len(images.files) for images in result.images.values()) == len(parts.test)
    config, data, environment = (report[part] for part in ("config", "data", "environment"))
    assert {"row", "preset", "train", "data", "step", "backbone"} <= config.keys()
    assert config["data"]["sha256"].keys() == {"images", "holdout"}
    assert data["sha256"]["test"]
    assert environment["date"]
    assert environment["device"]
    assert environment["versions"]["jaxad"]


def test_shares_are_columns_of_percent():
    assert percent([0.5, None], 6) == "  50.0      -"


def test_names_become_folders():
    assert slug("mvtec_ad, DiAD, 100 epochs") == "mvtec_ad-DiAD-100-epochs"
    assert slug("folder:/my/parts") == "folder-my-parts"


def test_data_sets_have_all_of_their_training_images(parts):
    dataset = DataOptions().load(parts.name, categories=("tile",))
    assert (dataset.categories, len(dataset.train)) == (("tile",), 12)


def test_every_experiment_is_in_the_index_and_says_what_to_expect():
    folder = Path(__file__).parents[2] / "experiments"
    text = (folder / "README.md").read_text("utf-8")
    files = [file for file in folder.glob("*/*.py") if "rows" not in file.stem and file.stem != "__init__"]
    assert files
    for file in files:
        assert f"`{file.relative_to(folder)}`" in text
        assert re.search(r"^(Expected:|No published numbers:)", file.read_text("utf-8"), re.MULTILINE), file
