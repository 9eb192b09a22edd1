"""`jaxad prepare`: everything checked first, whole categories or none, and on again after an interruption."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from tensorflow_datasets.core import file_adapters

from jaxad import cli
from jaxad.cli.prepare import Prepare
from jaxad.data.decode import decode_image
from jaxad.errors import ConfigError, DataError, Problem
from tfds_builders import builder, listing
from tfds_builders.encode import encode
from tfds_builders.examine import examine
from tfds_builders.listing import Sample
from tfds_builders.prepare import prepare

WRITE = file_adapters.ArrayRecordFileAdapter.write_examples


@pytest.fixture
def two(tree):
    """Bottle and cable in MVTec-AD's layout."""
    for category in ("bottle", "cable"):
        tree.category(category, train=3, good=1, bad=1)
    return tree.root


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != ".lock")


def prepared(data: Path) -> list[str]:
    """Configs of MVTec-AD that are whole."""
    return sorted(file.parents[1].name for file in data.glob("mvtec_ad/*/1.0.0/dataset_info.json"))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*array_record*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", listing.names())
def test_without_source_it_says_how_to_obtain_the_data(name, jaxad, capsys, tmp_path):
    jaxad(name)
    printed = capsys.readouterr().out
    data = listing.benchmark(name)
    assert printed.startswith(f"{data.title} ({name})\nlicense: {data.license}\n")
    assert data.how_to_obtain in printed
    assert all(option.name in printed for option in data.options)
    assert not (tmp_path / "data").exists()


def test_flags():
    words = "prepare visa --source a.tar b.zip --data-dir d --categories candle pcb1 --size 512 --workers 3 --partial"
    command = cli.parse([*words.split(), "--no-verify", "--options", "x=1", "--beam", "runner=DirectRunner"])
    assert command == Prepare(
        "visa",
        source=(Path("a.tar"), Path("b.zip")),
        data_dir=Path("d"),
        categories=("candle", "pcb1"),
        size=512,
        options=("x=1",),
        workers=3,
        partial=True,
        verify=False,
        beam=("runner=DirectRunner",),
    )


def test_everything_wrong_is_listed_at_once_and_nothing_stored(two, tree, tmp_path, jaxad):
    cut = two / "bottle/train/good/000.png"
    cut.write_bytes(cut.read_bytes()[:200])
    tree.text("bottle/test/good/000.png", "no image")
    tree.mask("bottle/ground_truth/scratch/000_mask.png", (5, 5))
    (two / "cable/ground_truth/scratch/000_mask.png").unlink()
    with pytest.raises(DataError) as caught:
        jaxad("mvtec_ad", "--source", two)
    found = {(problem.kind, Path(problem.file).relative_to(two).as_posix()) for problem in caught.value.problems}
    missing = {("missing category", name) for name in listing.benchmark("mvtec_ad").categories}
    assert found == (missing - {("missing category", "bottle"), ("missing category", "cable")}) | {
        ("wrong count", "bottle"),
        ("wrong count", "cable"),
        ("truncated image", "bottle/train/good/000.png"),
        ("unreadable image", "bottle/test/good/000.png"),
        ("mask size", "bottle/ground_truth/scratch/000_mask.png"),
        ("missing mask", "cable/ground_truth/scratch/000_mask.png"),
    }
    assert "train normal: 3 images, official 209; test normal: 1 images, official 20" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_official_counts_are_asked_for_unless_partial(two, jaxad, tmp_path):
    (two / "bottle/train/good/002.png").unlink()
    with pytest.raises(DataError, match=r"bottle: wrong count: train normal: 2 images, official 209"):
        jaxad("mvtec_ad", "--source", two, "--categories", "bottle")
    jaxad("mvtec_ad", "--source", two, "--categories", "bottle", "--partial")
    assert prepared(tmp_path / "data") == ["bottle"]


def test_masks_that_mark_nothing_are_a_warning(two, tree, jaxad, capsys):
    tree.mask("bottle/ground_truth/scratch/000_mask.png", empty=True)
    jaxad("mvtec_ad", "--source", two, "--partial")
    assert "000_mask.png: empty mask: marks nothing" in " ".join(capsys.readouterr().err.split())


def test_masks_made_on_the_way_are_examined_too(tree):
    image = tree.image("x.png")
    drawn = tree.mask("m.png").read_bytes()

    def torn():
        raise DataError("polygons are damaged", [Problem("wrong entry", "list.json", "x")])

    samples = [Sample("test", image, "c", label, "", f"{label}", mask) for label, mask in ((0, drawn), (1, torn))]
    assert [(problem.kind, problem.file, problem.fatal) for problem in examine(samples)] == [
        ("mask on normal image", f"mask of {image}", True),
        ("unreadable mask", "list.json", True),
    ]


def test_finished_categories_are_kept(two, tree, tmp_path, jaxad, capsys):
    jaxad("mvtec_ad", "--source", two, "--partial", "--categories", "bottle")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*array_record*")}
    jaxad("mvtec_ad", "--source", two, "--partial")
    printed = capsys.readouterr().out
    assert "bottle/1.0.0: 5 images, kept from before" in printed
    assert "cable/1.0.0: 5 images\n" in printed
    assert {path: path.stat().st_mtime_ns for path in before} == before
    tree.image("bottle/train/good/003.png")
    with pytest.raises(DataError, match=r"bottle/1.0.0: prepared earlier, from other files .* remove that folder"):
        jaxad("mvtec_ad", "--source", two, "--partial")


def test_interrupted_and_run_again(two, tmp_path, jaxad, monkeypatch, stored):
    def stop(sample, *how):
        if sample.image_id.startswith("cable/test"):
            raise KeyboardInterrupt
        return encode(sample, *how)

    monkeypatch.setattr(builder, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        jaxad("mvtec_ad", "--source", two, "--partial")
    data = tmp_path / "data"
    assert prepared(data) == ["bottle"]
    assert names(data / "mvtec_ad/cable") == []
    with pytest.raises(
        DataError, match=r"not prepared; run: jaxad prepare mvtec_ad --source PATH .* --categories cable"
    ):
        builder.builder_for("mvtec_ad", "cable", data_dir=data)
    monkeypatch.undo()
    jaxad("mvtec_ad", "--source", two, "--partial")
    assert prepared(data) == ["bottle", "cable"]
    assert len(stored("mvtec_ad", "cable")) == 5


KILLED = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from tfds_builders import builder, prepare

def slow(sample, *how, encode=builder.encode):
    if sample.image_id == "cable/test/scratch/000.png":
        Path(sys.argv[3]).touch()
        time.sleep(600)
    return encode(sample, *how)

builder.encode = slow
prepare.prepare("mvtec_ad", sys.argv[1], data_dir=sys.argv[2], partial=True, verify=False)
"""


def test_killed_and_run_again(two, tmp_path, jaxad, stored):
    data, reached = tmp_path / "data", tmp_path / "reached"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, str(two), str(data), str(reached)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not reached.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert prepared(data) == ["bottle"]
    assert any(name.startswith("incomplete.") for name in names(data / "mvtec_ad/cable"))
    jaxad("mvtec_ad", "--source", two, "--partial")
    assert not any(name.startswith("incomplete.") for name in names(data / "mvtec_ad/cable"))
    assert len(stored("mvtec_ad", "cable")) == 5


def test_folder_that_is_not_whole(two, tmp_path, jaxad):
    (tmp_path / "data/mvtec_ad/bottle/1.0.0").mkdir(parents=True)
    with pytest.raises(DataError, match=r"bottle/1.0.0: holds no dataset_info.json, .* remove that folder"):
        jaxad("mvtec_ad", "--source", two, "--partial")


def test_disk_without_room(two, tmp_path, jaxad, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(DataError, match=r"0.0 GB free, 0.3 GB needed; make room"):
        jaxad("mvtec_ad", "--source", two, "--partial")
    assert not (tmp_path / "data").exists()


def test_disk_that_fills_up(two, tmp_path, jaxad, monkeypatch):
    def full(path, examples):
        if "cable" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return WRITE(path, examples)

    monkeypatch.setattr(file_adapters.ArrayRecordFileAdapter, "write_examples", full)
    with pytest.raises(DataError, match=r"cable: the disk is full; make room and run the same command again"):
        jaxad("mvtec_ad", "--source", two, "--partial")
    assert prepared(tmp_path / "data") == ["bottle"]
    assert names(tmp_path / "data/mvtec_ad/cable") == []


def test_shards_that_lack_images_are_not_kept(two, tmp_path, jaxad, monkeypatch):
    monkeypatch.setattr(
        file_adapters.ArrayRecordFileAdapter,
        "write_examples",
        lambda path, examples: WRITE(path, list(examples)[:-1]),
    )
    with pytest.raises(OSError, match=r"holds 2 images of 3; the disk may be full or failing"):
        jaxad("mvtec_ad", "--source", two, "--partial")
    assert prepared(tmp_path / "data") == []


@pytest.mark.parametrize("early", [True, False], ids=["before the work", "begun in the meantime"])
def test_two_processes_do_not_write_the_same_category(two, tmp_path, jaxad, monkeypatch, early):
    place = tmp_path / "data/mvtec_ad/bottle"
    place.mkdir(parents=True)
    skipped = ("_examine", lambda *_: pytest.fail("worked")) if early else ("require_free", lambda *_: None)
    monkeypatch.setattr(f"tfds_builders.prepare.{skipped[0]}", skipped[1])
    with FileLock(place / ".lock"), pytest.raises(ConfigError, match=r"bottle: another process"):
        jaxad("mvtec_ad", "--source", two, "--partial")


def test_same_bytes_whatever_the_workers(two, tmp_path):
    for workers in (1, 4):
        prepare("mvtec_ad", two, data_dir=tmp_path / str(workers), partial=True, workers=workers)
    assert digests(tmp_path / "1") == digests(tmp_path / "4")
    assert len(digests(tmp_path / "1")) == 4


def test_prepared_size(tree, jaxad, stored, capsys):
    tree.category("bottle", train=1, good=0, bad=0)
    tree.image("bottle/test/scratch/000.png", (90, 120))
    tree.mask("bottle/ground_truth/scratch/000_mask.png", (90, 120))
    jaxad("mvtec_ad", "--source", tree.root, "--partial", "--size", "45")
    assert "next: jaxad check --data mvtec_ad/all-45 " in capsys.readouterr().out
    shapes = [decode_image(example["image"]).shape for example in stored("mvtec_ad", "bottle", 45).values()]
    assert shapes == [(12, 10, 3), (45, 60, 3)]
    metadata = builder.read_metadata(builder.builder_for("mvtec_ad", "bottle", 45, tree.root.parent / "data"))
    assert (metadata["size"], metadata["category"], metadata["partial"]) == (45, "bottle", True)
    assert prepared(tree.root.parent / "data") == ["bottle-45"]


def test_sixteen_bits_at_a_prepared_size_are_read_at_one_depth(tree, jaxad, stored):
    tree.category("bottle", train=0, good=0, bad=0)
    for part, white in (("train", 1000), ("test", 4000)):
        tree.save(f"bottle/{part}/good/000.png", np.full((90, 120), white, np.uint16))
    jaxad("mvtec_ad", "--source", tree.root, "--partial", "--size", "45")
    found = {example["split"]: decode_image(example["image"]) for example in stored("mvtec_ad", "bottle", 45).values()}
    assert {split: int(pixels[20, 20, 0]) for split, pixels in found.items()} == {"train": 62, "test": 249}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--categories", "cup", "mug"], r"mvtec_ad: no category cup, mug; there are bottle, cable"),
        (["--size", "8"], r"--size 8: must be at least 32 pixels"),
        (["--workers", "0"], r"--workers 0: must be at least 1"),
        (["--options", "view"], r"--options view: needs the form NAME=VALUE"),
        (["--options", "view=single"], r"mvtec_ad: no option 'view'; there are: none"),
    ],
)
def test_wrong_arguments(two, jaxad, arguments, message):
    with pytest.raises(ConfigError, match=message):
        jaxad("mvtec_ad", "--source", two, "--partial", *arguments)


def test_unknown_data_set(jaxad):
    with pytest.raises(
        DataError, match=r"data set 'mvtec' is unknown \(did you mean mvtec_ad\?\); there are anomaly_folder, btad"
    ):
        jaxad("mvtec", "--source", "x")


def test_names_that_differ_in_punctuation_only(tree, jaxad):
    tree.category("a b")
    tree.category("a-b")
    with pytest.raises(DataError, match="ambiguous name"):
        jaxad("anomaly_folder", "--source", tree.root)
