"""MVTec LOCO-AD: a validation split, and several masks of one image."""

from __future__ import annotations

import numpy as np
import pytest

from jaxad.data.decode import decode_mask
from jaxad.errors import DataError
from tests.tfds_builders.conftest import assert_copied
from tfds_builders.listing import benchmark

DATA = benchmark("mvtec_loco")


@pytest.fixture
def pushpins(tree):
    for place in ("train/good", "validation/good", "test/good", "test/logical_anomalies", "test/structural_anomalies"):
        tree.image(f"pushpins/{place}/000.png")
    tree.text("pushpins/defects_config.json", "[]")
    for number, (rows, code) in enumerate(((slice(0, 2), 241), (slice(5, 6), 7))):
        mask = np.zeros((12, 10), np.uint8)
        mask[rows] = code
        tree.save(f"pushpins/ground_truth/logical_anomalies/000/{number:03d}.png", mask)
    tree.mask("pushpins/ground_truth/structural_anomalies/000/000.png")
    return tree


def test_prepared_and_read_back(pushpins, jaxad, stored):
    jaxad("mvtec_loco", "--source", pushpins.root, "--partial")
    examples = stored("mvtec_loco", "pushpins")
    assert [(e["split"], e["label"], e["defect"]) for e in examples.values()] == [
        ("train", 0, "good"),
        ("validation", 0, "good"),
        ("test", 0, "good"),
        ("test", 1, "logical_anomalies"),
        ("test", 1, "structural_anomalies"),
    ]
    union = decode_mask(examples.pop("pushpins/test/logical_anomalies/000.png")["mask"])
    assert union.any(axis=1).tolist() == [row in (0, 1, 5) for row in range(12)]
    one = "pushpins/ground_truth/structural_anomalies/000/000.png"
    assert_copied(examples, pushpins.root, {"pushpins/test/structural_anomalies/000.png": one})


def test_masks_of_one_image_that_differ_in_size(pushpins, jaxad):
    pushpins.mask("pushpins/ground_truth/logical_anomalies/000/001.png", (6, 5))
    with pytest.raises(DataError, match=r"001.png: unreadable mask: mask size: 5 x 6, unlike 000.png beside it"):
        jaxad("mvtec_loco", "--source", pushpins.root, "--partial")


def test_missing_masks(pushpins, jaxad):
    (pushpins.root / "pushpins/ground_truth/structural_anomalies/000/000.png").unlink()
    with pytest.raises(DataError, match=r"structural_anomalies/000/000.png: missing mask"):
        jaxad("mvtec_loco", "--source", pushpins.root, "--partial")


def test_counts_add_up_to_the_official_totals():
    counts = [DATA.counts(category) for category in DATA.categories]
    assert sum(c["train", 0] for c in counts) == 1772
    assert sum(c["validation", 0] for c in counts) == 304
    assert sum(c["test", 0] + c["test", 1] for c in counts) == 1568
