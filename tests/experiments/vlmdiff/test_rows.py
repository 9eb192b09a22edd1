"""The rows of VLMDiff's tables: their numbers, and their runs on a toy Stable Diffusion."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

import jaxad
from experiments.vlmdiff import results, sampling, table9, table11, table12, table13, table14, table15
from experiments.vlmdiff import rows as vlmdiff_rows
from experiments.vlmdiff.rows import COCO_SPLITS, METRICS, RowOptions, Table, check_lpips
from jaxad.config import VLMDiffConfig
from jaxad.data.captions.writing import write_captions
from jaxad.errors import CheckpointError, ConfigError
from tests.experiments.vlmdiff.made_captions import captioned
from tests.models.stable_diffusion.made_checkpoints import write_pipeline
from tfds_builders.listing import benchmark
from tfds_builders.prepare import data_name

TABLES = {
    9: table9,
    11: table11,
    12: table12,
    13: table13,
    14: table14,
}
SHORT = {data: (row[0], row[3], row[6]) for data, row in results.PUBLISHED.items()}
"""The results table in the columns of the others."""


def mean(rows):
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def test_every_row_has_every_column():
    assert {len(row) for row in results.PUBLISHED.values()} == {len(results.COLUMNS)}
    rows = [row for table in TABLES.values() for row in table.PUBLISHED.values()]
    rows += [row for detector in table15.PUBLISHED.values() for row in detector.values()]
    assert {len(row) for row in rows} == {3}


def test_published_tables_agree_with_each_other():
    """The same runs stand in several tables."""
    for data in table9.DATA:
        assert table9.PUBLISHED[f"{data}, VLMDiff, 300 epochs"] == SHORT[data]
        assert table11.PUBLISHED[f"{data}, InternVL-2-8B"] == SHORT[data]
    assert table13.PUBLISHED["DINO ViTS/8"] == SHORT["mvtec_ad"]
    assert table14.PUBLISHED["Avg, VLMDiff"] == SHORT["coco_ad"]
    assert table15.PUBLISHED["VLMDiff"]["mean"] == SHORT["real_iad"]


@pytest.mark.parametrize("detector", ["DiAD", "VLMDiff"])
def test_published_means_are_those_of_their_rows(detector):
    splits = [table14.PUBLISHED[f"{split}, {detector}"] for split in table14.SPLITS]
    assert mean(splits) == pytest.approx(table14.PUBLISHED[f"Avg, {detector}"], abs=0.06)
    rows = dict(table15.PUBLISHED[detector])
    average = rows.pop("mean")
    assert mean(rows.values()) == pytest.approx(average, abs=0.06)


def test_names_are_those_of_data_sets_categories_and_rows():
    assert tuple(table15.PUBLISHED["VLMDiff"]) == (*benchmark("real_iad").categories, "mean")
    assert table15.PUBLISHED.keys() == {"DiAD", "VLMDiff"}
    assert table13.NETWORKS.keys() == table13.PUBLISHED.keys()
    (split,) = benchmark("coco_ad").options
    assert [data_name("coco_ad", None, {"split": choice}) for choice in split.choices] == list(COCO_SPLITS)
    rows = {f"{data}, {name}" for data in table11.DATA for name in table11.CAPTIONERS}
    assert table11.PUBLISHED.keys() == rows


def test_epochs_become_steps():
    """48 images a step; 300 epochs of MVTec-AD and VisA, 100 of the others, as published."""
    paper = VLMDiffConfig.training("paper")
    table = Table(RowOptions(), {})
    assert table.steps("mvtec_ad", 3_629, paper) == 22_682
    assert table.steps("mvtec_ad", 3_629, paper, epochs=100) == 7_561
    assert table.steps("real_iad", 36_465, paper) == 75_969
    assert table.steps("coco_ad/all-split_1", 65_133, paper) == 135_694
    assert Table(RowOptions(epochs=30), {}).steps("visa", 8_659, paper, epochs=100) == 1_804
    assert Table(RowOptions(steps=9), {}).steps("visa", 8_659, paper, epochs=100) == 3
    small = Table(RowOptions(preset="small"), {})
    assert small.steps("folder:parts", 40, VLMDiffConfig.training("small")) == VLMDiffConfig.training("small").steps


HEADERS = {
    results: RowOptions,
    sampling: sampling.Sampling,
    table9: RowOptions,
    table11: RowOptions,
    table12: RowOptions,
    table13: table13.Table13,
    table14: RowOptions,
    table15: table15.Table15,
}


@pytest.mark.parametrize("module", HEADERS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_commands_of_the_headers_can_be_run_as_printed(module, monkeypatch):
    """Those that finetune an autoencoder say where it finds LPIPS; here kl-f8.ckpt is taken to bring it."""
    monkeypatch.setattr("experiments.vlmdiff.rows.find_part", lambda source, part: source)
    monkeypatch.setattr("experiments.vlmdiff.rows.holds_lpips", lambda source: source == "kl-f8.ckpt")
    name = module.__name__
    commands = re.findall(rf"python -m {name} ((?:.*\\\n)*.*)", module.__doc__)
    assert commands
    for command in commands:
        options = tyro.cli(HEADERS[module], args=shlex.split(command.replace("\\\n", "")))
        if isinstance(options, RowOptions) and getattr(options, "report", None) is None:
            check_lpips(options)


def test_finetuning_without_lpips_is_refused_before_any_work(tmp_path):
    data = str(tmp_path / "no such data")
    write_pipeline(tmp_path / "sd")
    for start in (None, "random:8", str(tmp_path / "sd")):
        table = Table(RowOptions(out=tmp_path / "runs", autoencoder_start=start), {})
        with pytest.raises(ConfigError) as caught:
            table.train(data)
        for option in ("--autoencoder-start kl-f8.ckpt", "--vgg and --lpips", "--no-perceptual", "--autoencoder "):
            assert option in str(caught.value)
    assert not (tmp_path / "runs").exists()
    for given in ({"vgg": "vgg16.pth"}, {"perceptual": False}, {"autoencoder": "pretrained"}, {"preset": "small"}):
        check_lpips(RowOptions(**given))


def test_rows_record_how_many_captions_are_missing(parts, tmp_path, monkeypatch):
    """Of training and test images; found below the folder of captions by the beginning of the captioner's name."""
    name, trained, evaluated = Path(parts.name).name, [], []
    ids = sorted(record.identity for record in (*parts.train.records, *parts.holdout.records))
    texts = ["a disc", "", *["a disc"] * (len(ids) - 2)]
    folder = write_captions(tmp_path, name, "internvl3-8b-hf", "pd", "train", ids, lambda images: texts)
    captioned(tmp_path, parts, "test", "with a hole", name, "internvl3-8b-hf")
    detector = SimpleNamespace(inputs=SimpleNamespace(captions="always"))
    restored = SimpleNamespace(detector=detector, meta={"train": None, "data": {}, "step": 1, "pretrained": ""})
    monkeypatch.setattr(jaxad.VLMDiff, "create", lambda config, key: detector)
    monkeypatch.setattr(jaxad, "fit", lambda *_, provenance, **__: trained.append(provenance))
    monkeypatch.setattr(jaxad, "restore", lambda workdir: restored)
    report = {"mean": dict.fromkeys(METRICS, 0.5)}
    monkeypatch.setattr(vlmdiff_rows, "score", lambda *_, **__: None)
    monkeypatch.setattr(vlmdiff_rows, "keep", lambda *_, provenance, **__: evaluated.append(provenance) or report)
    options = RowOptions(
        out=tmp_path / "runs", captions=tmp_path, preset="small", autoencoder="pretrained", seeds=(1, 2)
    )
    Table(options, {}).row("all", parts.name)
    record = {"vlm": "internvl", "source": str(folder), "kind": "internvl3-8b-hf, pd", "images": 24, "missing": 1}
    assert trained == [{"captions": record, "preset": "small", "holdout": 0.0}] * 2
    tested = {**record, "images": len(parts.test), "missing": 0}
    assert [provenance["test_captions"] for provenance in evaluated] == [tested] * 2


@pytest.fixture(scope="module")
def options(parts, tmp_path_factory):
    """Two steps of everything, on a toy Stable Diffusion and made-up captions."""
    folder = tmp_path_factory.mktemp("tables")
    write_pipeline(folder / "sd")
    name = Path(parts.name).name
    for split in ("train", "test"):
        captioned(folder / "captions", parts, split, "with a hole", name, "internvl2-8b")
    return {
        "out": folder / "runs",
        "data": (parts.name,),
        "captions": folder / "captions",
        "preset": "small",
        "stable_diffusion": str(folder / "sd"),
        "autoencoder_steps": 2,
        "backbone": "random:32x1x8",
        "image_size": 32,
        "steps": 2,
    }


@pytest.mark.slow
def test_tables_share_autoencoder_and_runs(parts, options, capsys):
    data, out = parts.name, options["out"]
    texts = table12.main(RowOptions(**options))
    (folder,) = [child for child in out.iterdir() if child.name != "reports"]
    assert len(list(out.glob("reports/*/seed-1/images.csv"))) == 2
    assert {child.name for child in folder.iterdir()} == {"autoencoder", "vlmdiff-internvl-2-steps"}
    workdir = folder / "vlmdiff-internvl-2-steps" / "seed-1"
    config = json.loads((workdir / "config.json").read_text())
    assert config["config"]["autoencoder"] == str(folder / "autoencoder" / "autoencoder")
    assert (config["train"]["steps"], config["train"]["seed"], config["protocol"]) == (2, 1, "diad")
    assert "reconstruction error" in capsys.readouterr().err

    # Text at test time, with guidance, changes the answer.
    for metric, value in texts[f"{data}, difference"].items():
        assert value == pytest.approx(texts[f"{data}, captions"][metric] - texts[f"{data}, no text"][metric])
    reports = [json.loads(file.read_text()) for file in sorted((out / "reports").glob("*/seed-1/report.json"))]
    classes = {report["config"]["model"]["captions"]: report["classes"] for report in reports}
    assert classes["always"] != classes["train"]

    # Nothing is trained again; a network whose patch does not divide the image compares too.
    networks = ("random:32x1",)
    compared = table13.main(table13.Table13(**options, networks=networks))
    assert capsys.readouterr().err.count("nothing to train") == 2
    assert compared[f"{data}, random:32x1"] != texts[f"{data}, no text"]

    swept = sampling.Sampling(workdir, data, timesteps=(100,), steps=(2,), batch_size=4, out=out / "sweep")
    (row,) = sampling.main(swept)
    assert (row.start_timestep, row.sampling_steps) == (100, 2)
    assert (row.images_per_second or 0) > 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["t", "steps"], ["100", "2"]]

    with pytest.raises(CheckpointError, match=r"sha256\.images"):
        table12.main(RowOptions(**{**options, "captions": None}))


def test_seeds_are_averaged_and_rows_are(capsys):
    table = Table(RowOptions(), {"all": (50.0, 60.0, 70.0)})
    seeds = [
        {"image_auroc": 0.4, "pixel_auroc": 0.5, "aupro": None},
        {"image_auroc": 0.6, "pixel_auroc": 0.5, "aupro": 1},
    ]
    table.show("one", seeds)
    table.show("two", [{"image_auroc": 0.7, "pixel_auroc": 0.7, "aupro": 0.5}])
    assert table.average("all", ["one", "two"]) == pytest.approx(
        {"image_auroc": 0.6, "pixel_auroc": 0.6, "aupro": None}
    )
    printed = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert printed == [
        ["one", "ours", "50.0", "50.0", "-"],
        ["std", "14.1", "0.0", "-"],
        ["two", "ours", "70.0", "70.0", "50.0"],
        ["all", "ours", "60.0", "60.0", "-"],
        ["published", "50.0", "60.0", "70.0"],
    ]


def test_diad_is_its_preset_without_captions():
    options = RowOptions(autoencoder="pretrained", image_size=512)
    config = Table(options, {})._config("coco_ad", "diad")
    assert config == VLMDiffConfig.preset("diad", image_size=512)
    assert Table(options, {})._config("coco_ad", "vlmdiff").captions == "always"
    assert Table(options, {})._config("visa", "vlmdiff") == VLMDiffConfig.preset("paper", image_size=512)
