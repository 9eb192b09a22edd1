"""MPDD: MVTec's layout with its own categories and defects."""

from __future__ import annotations

from tests.tfds_builders.conftest import assert_copied
from tfds_builders.listing import benchmark


def test_prepared_and_read_back(tree, jaxad, stored):
    tree.image("MPDD/bracket_brown/train/good/000.png")
    tree.image("MPDD/bracket_brown/test/good/000.png")
    tree.image("MPDD/bracket_brown/test/parts_mismatch/004.png")
    tree.mask("MPDD/bracket_brown/ground_truth/parts_mismatch/004_mask.png")
    jaxad("mpdd", "--source", tree.root, "--partial")
    examples = stored("mpdd", "bracket_brown")
    masks = {"bracket_brown/test/parts_mismatch/004.png": "bracket_brown/ground_truth/parts_mismatch/004_mask.png"}
    assert_copied(examples, tree.root / "MPDD", masks)
    assert [(e["split"], e["label"], e["defect"], e["category"]) for e in examples.values()] == [
        ("train", 0, "good", "bracket_brown"),
        ("test", 0, "good", "bracket_brown"),
        ("test", 1, "parts_mismatch", "bracket_brown"),
    ]


def test_counts_add_up_to_the_official_totals():
    data = benchmark("mpdd")
    counts = [data.counts(category) for category in data.categories]
    assert [sum(c[key] for c in counts) for key in (("train", 0), ("test", 0), ("test", 1))] == [888, 176, 282]
