"""The commands from the shell's point of view: files they leave, what they print, what they refuse before work."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxad import cli
from jaxad.cli import commands
from jaxad.cli.fit import next_command
from jaxad.data.demo.dataset import DemoCounts
from jaxad.errors import CheckpointError, ConfigError, DataError
from jaxad.metrics import METRICS
from jaxad.models.catalog import networks
from jaxad.report.prediction_folder import picture_names
from jaxad.report.schema import validate_report
from jaxad.types import Record
from tests import toy
from tests.parts import make_parts

BANK = ("--model.backbone", toy.MODEL["backbone"], "--image-size", toy.MODEL["image_size"])
TILE = ("--category", "tile")
BAD = {
    "tile/train/good/001.png": "truncated image",
    "tile/train/good/broken.png": "unreadable image",
    "tile/train/good/bomb.png": "decompression bomb",
    "tile/train/good/copy.png": "duplicate in train and test",
    "tile/ground_truth/blot/002_mask.png": "mask size",
    "tile/ground_truth/blot/old_mask.png": "mask without image",
    "nothing": "empty category",
}


def jaxad(*arguments: object) -> None:
    commands.run(cli.parse([str(argument) for argument in arguments]))


def toy_flags(**train: object) -> list[object]:
    """The toy detector and its training, as flags of `fit dpdiff`."""
    settings = {"model": toy.MODEL, "train": toy.TRAIN | train}
    pairs = (
        (f"--{part}.{name.replace('_', '-')}", v) for part, values in settings.items() for name, v in values.items()
    )
    return [word for pair in pairs for word in pair]


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command line that ends with status 1 prints on stderr."""
    words, sys.argv = sys.argv, ["jaxad", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        sys.argv = words
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("jaxad: ") :]


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with `my parts`, runs of both systems on them, and a report that compares the two."""
    root = tmp_path_factory.mktemp("work")
    data = f"folder:{make_parts(root / 'my parts', size=70)}"
    jaxad("fit", "dpdiff", "--data", data, "--workdir", root / "my run", *toy_flags())
    jaxad("fit", "patch-bank", "--data", data, "--workdir", root / "bank", *BANK, "--model.per-category")
    to_compare = ("--baseline", root / "bank", "--out", root / "report")
    jaxad("evaluate", "--checkpoint", root / "my run", "--data", data, *to_compare)
    return root


@pytest.fixture
def odd_images(tmp_path) -> Path:
    """Images of odd sizes and several modes in two folders that share a file name."""
    random = np.random.default_rng(0)
    color = random.integers(0, 256, (91, 57, 4), np.uint8)
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/b").mkdir()
    Image.fromarray(color).save(tmp_path / "in/a/1.png")
    Image.fromarray(color[:33, :, 0]).save(tmp_path / "in/b/1.png")
    Image.fromarray(color[:40, :, 1]).convert("P").save(tmp_path / "in/b/1.gif")
    Image.fromarray(random.integers(0, 65536, (23, 101), np.uint16)).save(tmp_path / "in/b/deep.tiff")
    return tmp_path / "in"


SIZES = {"a/1.png": (91, 57), "b/1.gif": (40, 57), "b/1.png": (33, 57), "b/deep.tiff": (23, 101)}


def test_fit_leaves_the_files_of_design_section_6(work):
    config = json.loads((work / "my run/config.json").read_text())
    assert config["system"] == "dpdiff"
    assert (config["config"]["blocks"], config["config"]["image_size"]) == (None, 56)
    assert (config["train"]["steps"], config["data"]["preset"], config["data"]["holdout"]) == (12, "paper", 0.1)
    rows = (work / "my run/metrics.csv").read_text().splitlines()
    assert {"step", "seconds", "learning_rate", "loss", "images_per_second"} <= set(rows[0].split(","))
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 13)]
    assert (work / "my run/checkpoints/12").is_dir()
    assert (work / "bank/checkpoints/0").is_dir()


def test_fit_names_the_next_command_ready_to_be_copied(work, capsys):
    data = f"folder:{work}/my parts"
    jaxad("fit", "dpdiff", "--data", data, "--workdir", work / "my run", *toy_flags())
    said = capsys.readouterr().err
    assert "complete; nothing to train" in said
    line = next(line for line in said.splitlines() if line.startswith("next: "))
    command = cli.parse(shlex.split(line.removeprefix("next: "))[1:])
    assert command == cli.Evaluate(checkpoint=work / "my run", data=data, out=Path(f"{work}/my run-report"))


@pytest.mark.parametrize(("system", "flag"), [("dpdiff", "--categories"), ("clipfusion", "--classes")])
def test_the_next_command_reads_the_same_images(system, flag):
    source = shlex.split(f"--data mvtec_ad --data-dir 'my data' --on-bad skip {flag} 'metal nut' screw")
    command: Any = cli.parse(["fit", system, "--workdir", "run", "--protocol", "diad", *source])
    record = Record(Path("a.png"), "screw")
    for label, needs_category in ((0, False), (None, True), (None, False)):
        dataset: Any = SimpleNamespace(test=SimpleNamespace(records=[replace(record, label=label)]))
        result: Any = SimpleNamespace(model=SimpleNamespace(needs_category=needs_category))
        parsed: Any = cli.parse(shlex.split(next_command(command, dataset, result))[1:])
        if label is None:
            assert parsed.category == ("NAME" if needs_category else "")
            assert parsed.checkpoint == Path("run")
        else:
            assert (parsed.data, parsed.data_dir, parsed.on_bad) == ("mvtec_ad", Path("my data"), "skip")
            assert (parsed.categories, parsed.protocol) == (("metal nut", "screw"), "diad")


def test_the_next_command_has_the_captions_that_a_detector_takes(tmp_path):
    words = ["--data", "mvtec_ad", "--workdir", "run", "--captions", str(tmp_path), "--model.captions", "always"]
    command: Any = cli.parse(["fit", "vlmdiff", *words])
    dataset: Any = SimpleNamespace(test=SimpleNamespace(records=[Record(Path("a.png"), "screw", label=0)]))
    result: Any = SimpleNamespace(model=SimpleNamespace(config=command.model))
    evaluate: Any = cli.parse(shlex.split(next_command(command, dataset, result))[1:])
    assert (evaluate.captions, evaluate.protocol) == (tmp_path, "diad")


def test_fit_on_data_without_test_images_names_predict_next(work, tmp_path, capsys):
    shutil.copytree(work / "my parts/tile/train", tmp_path / "tile/train")
    jaxad("fit", "patch-bank", "--data", f"folder:{tmp_path}", "--workdir", tmp_path / "run", *BANK, "--holdout", 0)
    said = capsys.readouterr().err
    line = next(line for line in said.splitlines() if line.startswith("next: "))
    command = cli.parse(shlex.split(line.removeprefix("next: "))[1:])
    assert isinstance(command, cli.Predict)
    assert command.checkpoint == tmp_path / "run"


def test_fit_refuses_impossible_settings_all_at_once_and_writes_nothing(work, tmp_path, capsys):
    flags = shlex.split("--holdout 1 --false-alarm 0 --workers 0 --model.draws 0 --model.timesteps 9 --train.steps 0")
    message = failure(
        capsys, "fit", "dpdiff", "--data", f"folder:{work}/my parts", "--workdir", tmp_path / "run", *BANK, *flags
    )
    for part in ("--holdout 1.0:", "--false-alarm 0.0:", "--workers 0:", "--model:", "draws = 0", "timesteps = 9"):
        assert part in message
    assert "--train:" in message
    assert "steps = 0" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "flags", "said"),
    [
        ("{work}/my parts", [], "write folder:"),
        ("folder:{work}/missing", [], "no such folder"),
        ("folder:{work}/my parts", ["--categories", "screw"], "no category screw; there are disc, tile"),
        ("folder:{work}/my parts", ["--model.blocks", "7"], "blocks 0 to 1"),
        ("folder:{work}/my parts", ["--image-size", "50"], "multiple"),
        ("folder:{work}/my parts", ["--model.backbone", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_fit_refuses_data_and_models_that_are_not_there(work, tmp_path, capsys, data, flags, said):
    data = data.format(work=work)
    command = ("fit", "patch-bank", "--data", data, "--workdir", tmp_path / "run", *BANK, *flags)
    assert said in failure(capsys, *command)
    assert not (tmp_path / "run").exists()


def test_fit_does_not_touch_a_workdir_of_something_else(work, tmp_path, capsys):
    data = f"folder:{work}/my parts"
    other = failure(capsys, "fit", "dpdiff", "--data", data, "--workdir", work / "my run", *toy_flags(steps=9))
    assert "train.steps: 12 there, 9 now" in other
    (tmp_path / "notes.txt").write_text("mine")
    assert "not empty" in failure(capsys, "fit", "patch-bank", "--data", data, "--workdir", tmp_path, *BANK)
    file = failure(capsys, "fit", "patch-bank", "--data", data, "--workdir", tmp_path / "notes.txt", *BANK)
    assert "is a file" in file
    assert (tmp_path / "notes.txt").read_text() == "mine"


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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "folder:{work}/missing"], "no such folder"),
        (["--categories", "screw"], "no category screw"),
        (["--override", "draws"], "NAME=VALUE"),
        (["--override", "drawers=2"], "drawers: no such field in DPDiffConfig"),
        (["--override", "draws=many"], "must be of type int"),
        (["--override", "depth=5"], "does not fit its config"),
        (["--checkpoint", "{work}/report"], "no checkpoint there"),
        (["--checkpoint", "{work}/nowhere"], "no checkpoint there"),
        (["--baseline", "{work}/nowhere"], "no checkpoint there"),
        (["--backbone", "/no/such/folder"], "needs the backbone random:32x2"),
        (["--out", "{work}/report/report.json"], "is a file"),
        (["--batch-size", "0"], "--batch-size 0"),
    ],
)
def test_evaluate_refuses_before_work(work, tmp_path, capsys, flags, said):
    command = {"--checkpoint": work / "my run", "--data": f"folder:{work}/my parts", "--out": tmp_path / "report"}
    name, value = flags
    command[name] = value.format(work=work)
    assert said in failure(capsys, "evaluate", *(word for pair in command.items() for word in pair))
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
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"system": "flow"}, "system 'flow': jaxad has dpdiff, patch-bank"), ({"format": 99}, "format 99 is newer")],
)
def test_checkpoints_of_other_systems_and_formats(work, tmp_path, capsys, change, said):
    shutil.copytree(work / "bank", tmp_path / "run")
    (file,) = (path for path in (tmp_path / "run/checkpoints/0/meta").rglob("*") if b'"system"' in path.read_bytes())
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    message = failure(
        capsys,
        *("evaluate", "--checkpoint", tmp_path / "run"),
        *("--data", f"folder:{work}/my parts", "--out", tmp_path / "report"),
    )
    assert said in message
    assert str(tmp_path / "run") in message


def test_predict_writes_lines_and_pictures_at_each_images_own_size(work, odd_images, tmp_path):
    before = {file: file.read_bytes() for file in odd_images.rglob("*.*")}
    out = tmp_path / "out"
    jaxad("predict", odd_images, "--checkpoint", work / "my run", "--out", out, "--save", "overlay", "map", "mask")
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [["file", "category", "score", "threshold", "anomalous", "box"]] * 4
    assert [line["file"] for line in lines] == [str(odd_images / name) for name in SIZES]
    for line, (name, (height, width)) in zip(lines, SIZES.items(), strict=True):
        stem = name if name.startswith("b/1") else str(Path(name).with_suffix(""))
        map = np.load(out / f"map/{stem}.npy", allow_pickle=False)
        assert (map.shape, map.dtype) == ((height, width), np.float32)
        mask = np.array(Image.open(out / f"mask/{stem}.png"))
        assert mask.shape == (height, width)
        assert set(np.unique(mask)) <= {0, 255}
        assert Image.open(out / f"overlay/{stem}.jpg").size == (width, height)
        assert line["anomalous"] == (line["score"] > line["threshold"])
        assert (line["box"] is not None) == line["anomalous"]
        if line["box"]:
            left, top, right, bottom = line["box"]
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
    # Noise is nothing like the parts; without a box the test above would check nothing.
    assert any(line["box"] for line in lines)
    assert sum(file.is_file() for file in out.rglob("*")) == 13
    assert {file: file.read_bytes() for file in odd_images.rglob("*.*")} == before


def test_predict_replaces_earlier_results_as_a_whole(work, odd_images, tmp_path):
    checkpoint = ("--checkpoint", work / "bank", "--out", tmp_path / "out", *TILE)
    jaxad("predict", odd_images / "b", odd_images / "a/1.png", *checkpoint, "--save", "map", "mask")
    jaxad("predict", odd_images / "a/1.png", *checkpoint, "--save", "map", "--map-format", "tiff")
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*"))
    assert files == ["map", "map/1.tiff", "predictions.jsonl"]
    with Image.open(tmp_path / "out/map/1.tiff") as map:
        assert (map.mode, map.size) == ("F", (57, 91))
    (line,) = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    assert json.loads(line)["category"] == "tile"


def test_predict_that_fails_leaves_earlier_results(work, odd_images, tmp_path, capsys):
    command = ("predict", odd_images, "--checkpoint", work / "bank", "--out", tmp_path / "out", *TILE)
    jaxad(*command)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    (odd_images / "a/broken.png").write_bytes(b"not a picture")
    (odd_images / "b/short.png").write_bytes((odd_images / "a/1.png").read_bytes()[:200])
    message = failure(capsys, *command)
    assert "2 of 6 images cannot be read" in message
    assert "broken.png: unreadable image" in message
    assert "short.png: truncated image" in message
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file()} == before


def test_predict_never_replaces_what_it_did_not_write(work, odd_images, tmp_path, capsys):
    checkpoint = ("--checkpoint", work / "bank", *TILE)
    (odd_images / "mask").mkdir()
    (odd_images / "mask/truth.png").write_bytes(b"mine")
    assert "did not come from jaxad" in failure(capsys, "predict", odd_images / "a", *checkpoint, "--out", odd_images)
    assert (odd_images / "mask/truth.png").read_bytes() == b"mine"
    out = tmp_path / "out"
    jaxad("predict", odd_images / "a", *checkpoint, "--out", out)
    assert "would replace the images" in failure(capsys, "predict", out / "overlay", *checkpoint, "--out", out)
    assert (out / "overlay/1.jpg").is_file()
    (tmp_path / "file").write_text("")
    assert "is a file" in failure(capsys, "predict", odd_images / "a", *checkpoint, "--out", tmp_path / "file")


def test_predict_refuses_before_work(work, odd_images, tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    message = failure(capsys, "predict", "no1.png", odd_images, "no2.png", "--checkpoint", work / "bank", *out)
    assert "no1.png: no such file" in message
    assert "no2.png: no such file" in message
    command = ("predict", odd_images, "--checkpoint", work / "bank", *out)
    assert "knows disc, tile" in failure(capsys, *command, "--category", "screw")
    assert "--category: this patch-bank needs it" in failure(capsys, *command)
    assert "--batch-size 0" in failure(capsys, *command, "--batch-size", "0")
    (tmp_path / "empty").mkdir()
    assert "no image in this folder" in failure(capsys, "predict", tmp_path / "empty", *command[2:])
    assert not (tmp_path / "out").exists()


def test_picture_names():
    assert picture_names([Path("x/a.png")]) == ["a"]
    assert picture_names([Path("x/a.png"), Path("y/a.png"), Path("y/b/a.jpg")]) == ["x/a", "y/a", "y/b/a"]
    assert picture_names([Path("x/a.png"), Path("x/a.jpg"), Path("x/b.jpg")]) == ["a.png", "a.jpg", "b"]
    assert picture_names([Path("x/a.png"), Path("x/../x/a.png")]) == ["a", "a"]


def spoil(root: Path) -> Path:
    """One of each kind of bad input in `root`, as BAD lists them."""
    tile = root / "tile"
    whole = (tile / "train/good/001.png").read_bytes()
    (tile / "train/good/001.png").write_bytes(whole[: len(whole) // 2])
    (tile / "train/good/broken.png").write_bytes(b"GIF? no")
    Image.new("1", (9500, 9500)).save(tile / "train/good/bomb.png")
    shutil.copy(tile / "test/good/000.png", tile / "train/good/copy.png")
    Image.new("L", (9, 9), 255).save(tile / "ground_truth/blot/002_mask.png")
    Image.new("L", (70, 70), 255).save(tile / "ground_truth/blot/old_mask.png")
    (root / "nothing").mkdir()
    return root


def test_every_bad_input_stops_a_fit_in_one_message(work, tmp_path, capsys):
    data = spoil(Path(shutil.copytree(work / "my parts", tmp_path / "parts")))
    fit = ("fit", "patch-bank", "--data", f"folder:{data}", "--workdir", tmp_path / "run", *BANK)
    message = failure(capsys, *fit)
    assert f"{len(BAD)} problems" in message
    assert "--on-bad skip" in message
    for file, kind in BAD.items():
        assert f"{data / file}: {kind}" in message
    assert not (tmp_path / "run").exists()
    # What `check` says is what `fit` says.
    message = failure(capsys, "check", "--data", f"folder:{data}", "--out", tmp_path / "json/problems.json")
    assert f"{len(BAD)} problems would stop a run" in message
    listed = json.loads((tmp_path / "json/problems.json").read_text())["problems"]
    fatal = {problem["file"]: problem["kind"] for problem in listed if problem["fatal"]}
    assert fatal == {str(data / file): kind for file, kind in BAD.items()}


def test_bad_inputs_can_be_skipped_and_are_recorded(work, tmp_path):
    data = spoil(Path(shutil.copytree(work / "my parts", tmp_path / "parts")))
    source = ("--data", f"folder:{data}", "--on-bad", "skip")
    jaxad("fit", "patch-bank", *source, "--workdir", tmp_path / "run", *BANK)
    jaxad("evaluate", "--checkpoint", tmp_path / "run", *source, "--out", tmp_path / "report")
    report = json.loads((tmp_path / "report/report.json").read_text())
    bad = {str(data / file) for file in BAD}
    assert set(report["config"]["data"]["skipped"]) == bad
    assert bad <= {entry["file"] for entry in report["data"]["bad_files"]}
    assert report["data"]["counts"]["tile"]["test_anomalous"] == 3


def test_check_of_good_data(work, capsys):
    jaxad("check", "--data", f"folder:{work}/my parts", "--categories", "tile")
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["tile", "12", "0", "4", "4", "4"]
    assert printed.endswith("nothing that would stop a run\n")


def test_check_refuses(work, capsys):
    assert "no such folder" in failure(capsys, "check", "--data", f"folder:{work}/missing")
    assert "no data set 'mvtec'" in failure(capsys, "check", "--data", "mvtec")
    assert "no category screw" in failure(capsys, "check", "--data", f"folder:{work}/my parts", "--categories", "screw")


def test_errors_are_of_the_documented_classes(work, tmp_path):
    checkpoint, data = ("--checkpoint", work / "nowhere"), ("--data", f"folder:{work}/missing")
    with pytest.raises(CheckpointError):
        jaxad("evaluate", *checkpoint, *data, "--out", tmp_path)
    with pytest.raises(DataError):
        jaxad("check", *data)
    with pytest.raises(ConfigError):
        jaxad("check", *data, "--workers", 0)


def test_models_lists_every_network(capsys):
    jaxad("models")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(networks())
    unet = next(line for line in lines if line.startswith("SD 1.5 UNet"))
    assert "859.5" in unet
    assert "--model.diffusion" in unet


def test_demo_refuses_before_work(tmp_path, capsys):
    assert "steps = 0" in failure(capsys, "demo", "--out", tmp_path / "demo", "--steps", "0")
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_demo_trains_compares_and_says_how_to_go_on(tmp_path, capsys):
    counts = DemoCounts(12, 2, 2, 12, 2, 5, 3)
    commands.demo(cli.Demo(tmp_path / "my demo", steps=2), counts=counts)
    report = json.loads((tmp_path / "my demo/report/report.json").read_text())
    validate_report(report)
    assert report["data"]["source"] == "demo"
    assert set(report["classes"]) == {"brick", "grass", "gravel", "solar_mono", "solar_poly"}
    assert report["classes"]["solar_mono"]["pixel_ap"] is None
    assert report["baseline"]["config"]["system"] == "patch-bank"
    assert (tmp_path / "my demo/report/report.html").is_file()
    advice = [line.partition("jaxad ")[2] for line in capsys.readouterr().out.splitlines() if "jaxad " in line]
    predict, fit, evaluate = (cli.parse(shlex.split(line)) for line in advice)
    assert isinstance(fit, cli.FitDPDiff)
    assert isinstance(evaluate, cli.Evaluate)
    assert evaluate.checkpoint == fit.workdir
    commands.run(predict)
    assert (tmp_path / "my demo/predictions/predictions.jsonl").is_file()
