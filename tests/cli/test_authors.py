"""The files of VLMDiff's users, unmodified, through the command line: from their folders to predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxad import data, restore
from jaxad.data.captions.attach import Captions
from jaxad.errors import DataError
from jaxad.models.stable_diffusion.autoencoder_kl import load_autoencoder
from jaxad.models.stable_diffusion.checkpoints import find_part
from tests.cli import authors
from tests.cli.shell import jaxad
from tests.models.clip.vocabulary import write_tokenizer

PARTS = ((0, 7), (7, 14), (14, 21))
"""--start_ind and --end_ind of the authors' captioner, over 20 training images."""


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory):
    """MVTec-AD with its captions, prepared."""
    folder = tmp_path_factory.mktemp("mvtec")
    images = {split: authors.mvtec_list(split) for split in ("train", "test")}
    source = authors.write_mvtec(folder)
    captions = authors.write_captions(folder, "mvtec", images)
    jaxad("prepare", "mvtec_ad", "--source", source, "--captions", captions, "--data-dir", folder / "data", "--partial")
    return folder


@pytest.fixture(scope="module")
def real_iad(tmp_path_factory):
    """Real-IAD in the authors' tree, captioned in parts under the paths of another machine, prepared without them."""
    folder, images = authors.write_real_iad(tmp_path_factory.mktemp("real_iad"))
    authors.write_captions(folder, "realiad", images, root=f"{authors.ELSEWHERE}/real_iad/", cuts=PARTS)
    jaxad("prepare", "real_iad", "--source", folder, "--data-dir", folder / "data", "--partial")
    return folder


def test_mvtec_ad_has_its_captions_whatever_their_order(mvtec, capsys):
    jaxad("check", "--data", "mvtec_ad", "--data-dir", mvtec / "data")
    assert "nothing that would stop a run" in capsys.readouterr().out
    found = data.load("mvtec_ad", mvtec / "data")
    normal = [*found.train.records, *found.holdout.records]
    assert sorted(record.identity for record in normal) == sorted([*authors.mvtec_list("train"), authors.UNLISTED])
    assert sorted(record.identity for record in found.test.records) == sorted(authors.mvtec_list("test"))
    for record in (*normal, *found.test.records):
        # The authors' list lacks one image, which therefore has no caption.
        expected = "" if record.identity == authors.UNLISTED else authors.caption_of(record.identity)
        assert record.caption == expected
    assert all((record.mask is None) == (record.defect == "good") for record in found.test.records)


def test_captions_in_parts_with_paths_of_another_machine(real_iad, capsys):
    """Given to `fit` where the data were prepared without."""
    jaxad("check", "--data", "real_iad", "--data-dir", real_iad / "data")
    assert "nothing that would stop a run" in capsys.readouterr().out
    found = data.load("real_iad", real_iad / "data")
    records = {"train": (*found.train.records, *found.holdout.records), "test": found.test.records}
    assert [len(part) for part in records.values()] == [20, 20]
    for split, part in records.items():
        captions = Captions.load(real_iad / "realiad_captions_internvl_pd", split)
        ids = [record.identity for record in part]
        assert captions.check(ids) == []
        assert captions.attach(ids).texts == tuple(map(authors.caption_of, ids))
        assert captions.kind == "internvl2-8b, pd"


def test_a_part_that_is_missing_is_named(real_iad, tmp_path):
    images = [f"audiojack/OK/S0001/{number}.jpg" for number in range(20)]
    folder = authors.write_captions(tmp_path, "realiad", {"train": images}, cuts=[PARTS[0], PARTS[2]])
    with pytest.raises(DataError, match="7 to 14 is missing"):
        Captions.load(folder)


def test_images_of_one_size_alone_name_the_option(tmp_path, capsys):
    folder, _ = authors.write_real_iad(tmp_path)
    (folder / "real_iad").rename(folder / "realiad_256")
    words = ("prepare", "real_iad", "--source", folder, "--data-dir", tmp_path / "data", "--partial")
    with pytest.raises(DataError, match=r"--options resolution=px256"):
        jaxad(*words)
    jaxad(*words, "--options", "resolution=px256")
    assert "next: jaxad check --data real_iad/all-px256" in capsys.readouterr().out


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The authors' weights, and a tokenizer, which in the field is CLIP's from the hub."""
    folder = tmp_path_factory.mktemp("weights")
    authors.write_kl_f8(folder)
    authors.write_stable_diffusion(folder / "v1-5-pruned.ckpt")
    authors.write_first_stage(folder / "auto_encoders" / "fs_realiad.ckpt")
    authors.write_built(folder / "vlmdiff_sd15_model.ckpt")
    write_tokenizer(folder / "tokenizer")
    return folder


SMALL = ("--image-size", 32, "--train.steps", 2, "--train.batch-size", 2)
"""Flags that make a run short; networks are small in their files."""


def small_vlmdiff(weights: Path) -> tuple[object, ...]:
    fast = ("--model.backbone", "random:32x2x8", "--model.sampling-steps", 2, "--train.accumulate", 1)
    return (*SMALL, *fast, "--model.tokenizer", weights / "tokenizer", "--false-alarm", 0.3)


def judged(folder: Path, name: str, photo: str, weights: Path) -> tuple[dict, dict]:
    """The report of a run, and its answer to one image."""
    where = ("--checkpoint", folder / "run", "--batch-size", 4)
    jaxad(
        "evaluate", *where, "--data", name, "--data-dir", folder / "data", "--protocol", "diad", "--out", folder / "rep"
    )
    jaxad("predict", folder / photo, *where, "--out", folder / "pred")
    (line,) = authors.rows(folder / "pred/predictions.jsonl")
    return json.loads((folder / "rep/report.json").read_text()), line


@pytest.mark.slow
def test_mvtec_ad_from_kl_f8_to_predictions(mvtec, weights, capsys):
    """The README's five commands and one more, on the files that VLMDiff's README asks for."""
    images = ("--data", "mvtec_ad", "--data-dir", mvtec / "data")
    first = (*images, "--workdir", mvtec / "first", "--model.source", weights / "kl-f8.zip")
    jaxad("fit", "autoencoder", *first, *SMALL)
    start = load_autoencoder(find_part(weights / "kl-f8.zip", "vae"))
    finetuned = load_autoencoder(mvtec / "first/autoencoder")
    assert finetuned.config.block_out_channels == start.config.block_out_channels == (32, 32, 32, 32)
    assert finetuned.config.scaling_factor == 0.18215, "that of the weights is kept"
    assert finetuned.config.pixels == "imagenet"

    jaxad("convert", weights / "v1-5-pruned.ckpt", mvtec / "sd-v1-5")
    networks = ("--model.stable-diffusion", mvtec / "sd-v1-5", "--model.autoencoder", mvtec / "first/autoencoder")
    capsys.readouterr()
    jaxad("fit", "vlmdiff", *images, "--workdir", mvtec / "run", *networks, *small_vlmdiff(weights))
    captions = json.loads((mvtec / "run/config.json").read_text())["data"]["captions"]
    kept = {record.identity for record in data.load("mvtec_ad", mvtec / "data").train.records}
    assert captions == {"source": None, "kind": "", "images": len(kept), "missing": int(authors.UNLISTED in kept)}

    report, line = judged(mvtec, "mvtec_ad", "mvtec_anomaly_detection/bottle/test/broken_large/009.png", weights)
    assert report["protocol"] == "diad"
    assert report["classes"].keys() == {"bottle", "screw", "zipper"}
    assert report["config"]["threshold"] is not None
    assert all(0 <= report["mean"][name] <= 1 for name in ("image_auroc", "pixel_auroc", "aupro"))
    assert line["threshold"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("way", ["first stage", "built"])
def test_real_iad_from_published_first_stage_to_predictions(real_iad, weights, way, tmp_path):
    """From a first stage that the authors publish, or from what their build_model.py made of one."""
    captions = ("--captions", real_iad / "realiad_captions_internvl_pd")
    if way == "built":
        networks = ("--model.checkpoint", weights / "vlmdiff_sd15_model.ckpt")
    else:
        stage = weights / "auto_encoders" / "fs_realiad.ckpt"
        networks = ("--model.stable-diffusion", weights / "v1-5-pruned.ckpt", "--model.autoencoder", stage)
    for name in ("data", "real_iad"):
        (tmp_path / name).symlink_to(real_iad / name)
    where = ("--data", "real_iad", "--data-dir", tmp_path / "data", "--workdir", tmp_path / "run")
    jaxad("fit", "vlmdiff", *where, *networks, *captions, *small_vlmdiff(weights))
    recorded = json.loads((tmp_path / "run/config.json").read_text())["data"]["captions"]
    assert (recorded["kind"], recorded["missing"]) == ("internvl2-8b, pd", 0)
    assert restore(tmp_path / "run").detector.autoencoder.config.scaling_factor == 0.18215
    photo = next((real_iad / "real_iad/audiojack/NG").rglob("*_C1_*[0-9].jpg"))
    report, line = judged(tmp_path, "real_iad", str(photo.relative_to(real_iad)), weights)
    assert report["classes"]["audiojack"]["n_anomalous"] == 2
    assert line["category"] in ("audiojack", "")


@pytest.mark.real
def test_the_miniature_is_an_excerpt_of_the_authors_lists(real_data):
    for split in ("train", "test"):
        every = [row["filename"] for row in authors.rows(real_data.parent / "reference" / f"mvtec_{split}.jsonl")]
        mine = authors.mvtec_list(split)
        assert [image for image in every if image in mine] == mine
        assert authors.UNLISTED not in every
