"""`jaxad evaluate`: report and page, the table, overrides, what it refuses before work."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from jaxad.cli.evaluate import _on_the_way
from jaxad.errors import CheckpointError
from jaxad.inference.checkpoint import restore
from jaxad.inference.decisions import COUNTS
from jaxad.io.digests import read_manifest, write_manifest
from jaxad.io.progress import Reporter
from jaxad.metrics import METRICS
from jaxad.report.schema import validate_report
from tests.cli.shell import failure, jaxad


def test_evaluate_writes_report_and_page(work):
    report = json.loads((work / "report/report.json").read_text())
    validate_report(report)
    assert report["protocol"] == "exact-256"
    assert set(report["classes"]) == {"disc", "tile"}
    assert set(METRICS) <= set(report["classes"]["disc"])
    assert report["config"]["system"] == "dpdiff"
    assert report["config"]["train"]["steps"] == 12
    assert report["config"]["threshold"]["false_alarm"] == 0.01
    assert report["baseline"]["config"]["system"] == "patch-bank"
    assert report["environment"]["images_per_second"] is None or report["environment"]["images_per_second"] > 0
    page = (work / "report/report.html").read_text()
    assert "DPDiff-AD" in page
    assert "Patch bank" in page


def test_the_csv_the_report_and_the_page_agree(work):
    report = json.loads((work / "report/report.json").read_text())
    page = (work / "report/report.html").read_text()
    with (work / "report/images.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 16
    verdicts = Counter(row["verdict"] for row in rows)
    total = report["decisions"]["total"]
    assert {key: verdicts[verdict] for verdict, key in COUNTS.items()} == total
    for verdict in ("missed", "false alarm"):
        assert page.count(f'data-verdict="{verdict}"') == verdicts[verdict]
    theirs = Counter(row["baseline_verdict"] for row in rows)
    assert {key: theirs[verdict] for verdict, key in COUNTS.items()} == report["baseline"]["decisions"]["total"]
    for category, metrics in report["classes"].items():
        own = [row for row in rows if row["category"] == category]
        labels = [int(row["label"]) for row in own]
        for scores, values in (("score", metrics), ("baseline_score", report["baseline"]["classes"][category])):
            area = roc_auc_score(labels, [float(row[scores]) for row in own])
            assert area == pytest.approx(values["image_auroc"], abs=1e-12)
        for row in own:
            called = row["verdict"] in ("found", "false alarm")
            assert called == (float(row["score"]) > float(row["threshold"])) == bool(row["box"])
            assert 0 <= float(row["flagged"]) <= 1
            assert bool(row["overlap"]) == (row["label"] == "1")
            box = [int(side) for side in row["box"].split()]
            assert not box or (0 <= box[0] < box[2] <= 70 and 0 <= box[1] < box[3] <= 70)


def test_evaluate_prints_the_table_and_takes_overrides(work, tmp_path, capsys):
    data = ("--data", f"folder:{work}/my parts", "--categories", "tile", "--out", tmp_path)
    jaxad("evaluate", "--checkpoint", work / "bank", *data, "--override", "neighbors=2", "distance=euclidean")
    printed = capsys.readouterr().out
    heads, tile, mean = (line.split() for line in printed.splitlines()[1:4])
    assert heads == ["category", "I-AUROC", "I-AP", "I-F1max", "P-AUROC", "P-AP", "P-F1max", "AUPRO", "mAD"]
    assert (tile[0], mean[0], tile[1:]) == ("tile", "mean", mean[1:])
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["config"]["model"]["neighbors"], report["config"]["model"]["distance"]) == (2, "euclidean")
    assert tile[1] == f"{100 * report['mean']['image_auroc']:.1f}"
    assert f"note: {report['notes'][0]}" in printed
    assert "random weights" in report["notes"][0]


def test_evaluate_writes_pictures_and_runs_side_by_side(work, tmp_path):
    command = ("evaluate", "--checkpoint", work / "my run", "--data", f"folder:{work}/my parts", "--out", tmp_path)
    beside = ("--beside", work / "bank", "--images", "disc/test/good/001.png", "tile/test/blot/003.png")
    jaxad(*command, "--save", "overlay", "mask", "terms", *beside)
    report = json.loads((tmp_path / "report.json").read_text())
    whole = json.loads((work / "report/report.json").read_text())
    # Another program rounds otherwise.
    for name in ("image_auroc", "pixel_ap", "aupro"):
        assert report["mean"][name] == pytest.approx(whole["mean"][name], abs=1e-5)
    assert report["environment"]["images_per_second"] is None
    names = {f"{c}/test/{kind}/{n:03}" for c in ("disc", "tile") for kind in ("good", "blot") for n in range(4)}
    for kind, suffix in (("overlay", "jpg"), ("mask", "png"), ("explained/terms/residual", "jpg")):
        place = tmp_path / "pictures" / kind
        assert {path.relative_to(place).with_suffix("").as_posix() for path in place.rglob(f"*.{suffix}")} == names
    with Image.open(tmp_path / "pictures/overlay/disc/test/blot/000.jpg") as picture:
        assert picture.size == (70, 70)
    listed = json.loads((tmp_path / "pictures/pictures.json").read_text())
    assert listed["save"] == ["overlay", "mask", "terms"]
    assert listed["model"]["sha256"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (4 * 164, 14 + 2 * (14 + 74))
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figcaption>DPDiff-AD</figcaption>") == page.count("<figcaption>Patch bank</figcaption>") == 2
    assert "disc/test/good/001.png" in page[page.index('id="beside"') :]
    assert "<figcaption>features after</figcaption>" in page[page.index('id="method"') :]
    # Pictures of a later run take the place of these as a whole.
    jaxad(*command, "--save", "map")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"map", "pictures.json"}
    assert not list(tmp_path.glob(".pictures-*"))


def test_runs_side_by_side_are_prepared_alike(work, tmp_path, monkeypatch):
    """One run beside itself: the same networks, region and batches make the same column."""
    calls = []

    def noted(place, **how):
        calls.append((place.name, how["backbone"]))
        return restore(place, **how)

    monkeypatch.setattr("jaxad.inference.checkpoint.restore", noted)
    command = ("evaluate", "--checkpoint", work / "my run", "--data", f"folder:{work}/my parts", "--out", tmp_path)
    beside = ("--beside", work / "my run", work / "bank", "--images", "disc/test/blot/000.png")
    jaxad(*command, *beside, "--roi", '{"box": [10, 10, 60, 60]}', "--backbone", "random:32x2", "--batch-size", 2)
    assert calls == [("my run", "random:32x2"), ("my run", "random:32x2"), ("bank", "random:32x2")]
    with Image.open(tmp_path / "sheet.png") as sheet:
        columns = np.split(np.asarray(sheet)[28:], 5, axis=1)
    np.testing.assert_array_equal(columns[2], columns[3])
    assert (columns[3] != columns[4]).any()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "folder:{work}/missing"], "no such folder"),
        (
            ["--save", "autoencoder"],
            "--save autoencoder: this dpdiff has overlay map mask",
        ),
        (["--beside", "{work}/nowhere"], "--beside: {work}/nowhere: no checkpoint there"),
        (["--images", "000.png"], "--images 000.png: are those of --beside"),
        (["--categories", "screw"], "no category screw"),
        (["--override", "draws"], "NAME=VALUE"),
        (["--override", "drawers=2"], "did you mean draws?"),
        (["--override", "draws=many"], "--override draws=many: must be an int"),
        (["--override", "depth=5"], "does not fit its config"),
        (["--checkpoint", "{work}/report"], "no checkpoint there"),
        (["--checkpoint", "{work}/nowhere"], "no checkpoint there"),
        (["--baseline", "{work}/nowhere"], "--baseline: {work}/nowhere: no checkpoint there"),
        (["--backbone", "/no/such/folder"], "needs the backbone random:32x2"),
        (["--out", "{work}/report/report.json"], "is a file"),
        (["--batch-size", "0"], "--batch-size 0"),
    ],
)
def test_evaluate_refuses_before_work(work, tmp_path, capsys, flags, said):
    command = {"--checkpoint": work / "my run", "--data": f"folder:{work}/my parts", "--out": tmp_path / "report"}
    name, value = flags
    command[name] = value.format(work=work)
    words = (word for pair in command.items() for word in pair)
    assert said.format(work=work) in failure(capsys, "evaluate", *words)
    assert not (tmp_path / "report").exists()


def test_evaluate_needs_labels_and_known_categories(work, tmp_path, capsys):
    checkpoint = ("evaluate", "--checkpoint", work / "my run", "--out", tmp_path / "report")
    shutil.copytree(work / "my parts/tile/train", tmp_path / "untested/tile/train")
    message = failure(capsys, *checkpoint, "--data", f"folder:{tmp_path}/untested")
    assert "no labeled test images" in message
    shutil.copytree(work / "my parts/tile/test/blot", tmp_path / "unlabeled/tile/test")
    message = failure(capsys, *checkpoint, "--data", f"folder:{tmp_path}/unlabeled")
    assert "no labeled test images" in message
    shutil.copytree(work / "my parts/tile/test", tmp_path / "new/screw/test")
    bank = ("evaluate", "--checkpoint", work / "bank", "--out", tmp_path / "report")
    assert "was not fitted on screw" in failure(capsys, *bank, "--data", f"folder:{tmp_path}/new")
    for flag in ("--baseline", "--beside"):
        message = failure(capsys, *checkpoint, "--data", f"folder:{tmp_path}/new", flag, work / "bank")
        assert f"{flag} {work / 'bank'}: patch-bank was not fitted on screw" in message
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": "flow"}, "detector 'flow' is unknown"),
        ({"format": 99}, "upgrade jaxad"),
        ({"format": 1}, "fit anew"),
    ],
)
def test_checkpoints_of_other_detectors_and_formats(work, tmp_path, capsys, change, said):
    shutil.copytree(work / "bank", tmp_path / "run")
    step = tmp_path / "run/checkpoints/0"
    manifest, file = read_manifest(step), step / "meta/metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    write_manifest(step, manifest.files, **manifest.about)
    message = failure(
        capsys,
        *("evaluate", "--checkpoint", tmp_path / "run"),
        *("--data", f"folder:{work}/my parts", "--out", tmp_path / "report"),
    )
    assert said in message
    assert str(tmp_path / "run") in message


def test_errors_are_of_the_documented_classes(work, tmp_path):
    with pytest.raises(CheckpointError):
        jaxad("evaluate", "--checkpoint", work / "nowhere", "--data", f"folder:{work}/missing", "--out", tmp_path)


def test_a_threshold_of_other_captions_is_left_out(work, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxad.cli._captions.unlike_the_threshold", lambda *_: "it is of another kind")
    words = ("evaluate", "--checkpoint", work / "bank", "--data", f"folder:{work}/my parts", "--categories", "tile")
    jaxad(*words, "--out", tmp_path)
    assert "threshold left out: it is of another kind" in capsys.readouterr().err.replace("\n", " ")
    assert json.loads((tmp_path / "report.json").read_text())["config"]["threshold"] is None


def test_what_the_run_noted_on_the_way_is_in_the_report_up_to_its_step(trained, tmp_path, capsys):
    run = shutil.copytree(trained.workdir, tmp_path / "run")
    table = run / "evaluations-test.csv"
    table.write_text("step,seconds,images,of,image_auroc,aupro\n0,1,4,9,0.5,\n12,2,4,9,0.75,\n24,3,4,9,1.0,\n")
    restored, reporter = restore(run), Reporter()
    expected = {"images": 4, "of": 9, "steps": [0, 12], "values": {"image_auroc": [0.5, 0.75]}}
    assert _on_the_way(restored, reporter) == {"test": expected}
    table.write_text("nothing of the kind\n1\n")
    assert _on_the_way(restored, reporter) == {}
    assert str(run) in capsys.readouterr().err
    taken_out = shutil.copytree(run / "checkpoints/12", tmp_path / "step")
    table.write_text("step,seconds,image_auroc\n0,1,0.5\n")
    assert _on_the_way(restore(taken_out), reporter) == {}
