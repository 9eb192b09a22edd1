"""One's own folder, in the forms that jaxad reads."""

from __future__ import annotations

import pytest

from jaxad.data.layout import scan
from jaxad.data.layout import tree as tree_module
from jaxad.errors import DataError
from tests.tfds_builders.conftest import assert_copied


def test_prepared_and_read_back(tree, jaxad, stored):
    tree.category("my part", train=2, good=1, bad=2)
    (tree.root / "my part/ground_truth/scratch/001_mask.png").unlink()
    tree.image("my part/validation/OK/v.jpg")
    tree.image("my part/test/who-knows.png")
    tree.image("flat/good/a.png")
    tree.image("flat/dent/a.png")
    jaxad("anomaly_folder", "--source", tree.root)
    examples = stored("anomaly_folder", "my part")
    unknown = [examples.pop(f"my part/test/{name}.png") for name in ("scratch/001", "who-knows")]
    assert [(e["label"], e["defect"], e["mask"]) for e in unknown] == [(1, "scratch", b""), (-1, "", b"")]
    masks = {"my part/test/scratch/000.png": "my part/ground_truth/scratch/000_mask.png"}
    assert_copied(examples, tree.root, masks)
    assert {(e["split"], e["label"], e["category"]) for e in examples.values()} == {
        ("train", 0, "my part"),
        ("validation", 0, "my part"),
        ("test", 0, "my part"),
        ("test", 1, "my part"),
    }
    flat = stored("anomaly_folder", "flat")
    assert {key: (e["split"], e["label"]) for key, e in flat.items()} == {
        "flat/good/a.png": ("train", 0),
        "flat/dent/a.png": ("test", 1),
    }


def test_masks_without_image_are_named(tree, jaxad):
    tree.category("part")
    tree.category("other")
    (tree.root / "part-empty").mkdir()
    jaxad("anomaly_folder", "--source", tree.root)
    tree.mask("part/ground_truth/scratch/stray_mask.png")
    with pytest.raises(DataError, match=r"stray_mask.png: mask without image"):
        jaxad("anomaly_folder", "--source", tree.root)


def test_folders_are_listed_as_often_for_many_categories_as_for_one(tree, jaxad, monkeypatch):
    listed = []
    listing_of = tree_module._entries
    monkeypatch.setattr(tree_module, "_entries", lambda path: listed.append(path.name) or listing_of(path))
    times = []
    for name in "abc":
        tree.category(name)
        listed.clear()
        jaxad("anomaly_folder", "--source", tree.root)
        times.append(listed.count("a"))
    assert times[1:] == times[:1] * 2


@pytest.mark.real
def test_real_parts_as_from_the_folder(real_data, jaxad, stored):
    root = real_data / "parts"
    jaxad("anomaly_folder", "--source", root, "--categories", "metal_plate", "grid")
    listing = scan(root, ("metal_plate", "grid"))
    examples = stored("anomaly_folder", "metal_plate") | stored("anomaly_folder", "grid")
    records = {record.identity: record for record in (*listing.train, *listing.test)}
    assert examples.keys() == records.keys()
    for identity, record in records.items():
        example = examples[identity]
        assert example["image"] == record.file.read_bytes()
        assert (example["category"], example["label"]) == (record.category, record.label)
        assert (example["defect"], example["split"]) == (record.defect, identity.split("/")[1])
        if record.mask is not None:
            assert example["mask"] == record.mask.read_bytes()
