"""MVTec-AD, and with it the layout that several data sets share."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest

from jaxad.errors import DataError
from tests.tfds_builders.conftest import assert_copied
from tfds_builders.listing import benchmark

DATA = benchmark("mvtec_ad")


@pytest.fixture
def bottle(tree):
    """A bottle category with two kinds of defects, and a gray-scale screw category."""
    tree.category("bottle", train=3, good=1, bad=1)
    tree.image("bottle/test/contamination/000.png")
    tree.mask("bottle/ground_truth/contamination/000_mask.png")
    tree.text("bottle/license.txt", "CC BY-NC-SA 4.0")
    tree.text("bottle/readme.txt")
    gray = np.arange(120, dtype=np.uint8).reshape(12, 10)
    tree.save("screw/train/good/000.png", gray)
    tree.save("screw/test/good/000.png", gray + 1)
    return tree


def test_prepared_and_read_back(bottle, jaxad, stored, capsys):
    jaxad("mvtec_ad", "--source", bottle.root, "--partial")
    printed = capsys.readouterr().out
    assert "mvtec_ad/bottle/1.0.0: 6 images\n" in printed
    assert "next: jaxad check --data mvtec_ad --data-dir" in printed
    examples = stored("mvtec_ad", "bottle")
    masks = {
        "bottle/test/contamination/000.png": "bottle/ground_truth/contamination/000_mask.png",
        "bottle/test/scratch/000.png": "bottle/ground_truth/scratch/000_mask.png",
    }
    assert_copied(examples, bottle.root, masks)
    assert [(e["split"], e["label"], e["defect"], key) for key, e in examples.items()] == [
        ("train", 0, "good", "bottle/train/good/000.png"),
        ("train", 0, "good", "bottle/train/good/001.png"),
        ("train", 0, "good", "bottle/train/good/002.png"),
        ("test", 1, "contamination", "bottle/test/contamination/000.png"),
        ("test", 0, "good", "bottle/test/good/000.png"),
        ("test", 1, "scratch", "bottle/test/scratch/000.png"),
    ]
    assert {(e["category"], e["object_id"], e["view"], e["caption"]) for e in examples.values()} == {
        ("bottle", "", 0, "")
    }
    assert_copied(stored("mvtec_ad", "screw"), bottle.root, {})


def test_prepared_from_the_official_archive(bottle, tmp_path, jaxad, stored):
    archive = tmp_path / "mvtec_anomaly_detection.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(bottle.root, arcname=".")
    before = archive.read_bytes()
    jaxad("mvtec_ad", "--source", archive, "--partial", "--categories", "bottle")
    assert stored("mvtec_ad", "bottle").keys() == {
        path.relative_to(bottle.root).as_posix() for path in bottle.root.glob("bottle/t*/*/*.png")
    }
    assert archive.read_bytes() == before
    assert not (tmp_path / "data" / "unpacked" / "mvtec_ad").exists()


def test_images_that_are_not_normal_are_no_training_images(bottle):
    bottle.image("bottle/train/broken/000.png")
    with pytest.raises(DataError, match=r"train/broken: unexpected folder"):
        list(DATA.list_samples(bottle.root, "bottle"))


def test_counts_add_up_to_the_official_totals():
    counts = [DATA.counts(category) for category in DATA.categories]
    assert [sum(c[key] for c in counts) for key in (("train", 0), ("test", 0), ("test", 1))] == [3629, 467, 1258]


@pytest.mark.real
def test_published_lists_name_by_name(real_data, tmp_path):
    reference = real_data.parent / "reference"
    lists = {
        part: [json.loads(line) for line in (reference / f"mvtec_{part}.jsonl").read_text().splitlines()]
        for part in ("train", "test")
    }
    # The lists lack this image of the official data set.
    missing = "screw/train/good/232.png"
    files = [entry["filename"] for part in lists.values() for entry in part]
    assert missing not in files
    for file in [*files, missing]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    ours = [sample for category in DATA.categories for sample in DATA.list_samples(tmp_path, category)]
    for part, entries in lists.items():
        found = {
            s.image_id: (s.category, s.label, "" if s.mask is None else s.mask.relative_to(tmp_path).as_posix())
            for s in ours
            if s.split == part and s.image_id != missing
        }
        assert found == {e["filename"]: (e["clsname"], e["label"], e.get("maskname", "")) for e in entries}
    assert len(ours) == len(files) + 1 == 5354
    for category in DATA.categories:
        labels = [(sample.split, sample.label) for sample in ours if sample.category == category]
        assert {key: labels.count(key) for key in set(labels)} == DATA.counts(category)
