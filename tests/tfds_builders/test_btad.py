"""BTAD: folders ok and ko, bitmaps and PNG mixed."""

from __future__ import annotations

from tests.tfds_builders.conftest import assert_copied


def test_prepared_and_read_back(tree, jaxad, stored):
    top = "BTech_Dataset_transformed"
    for product, image, mask in (("01", "bmp", "png"), ("03", "bmp", "bmp")):
        tree.image(f"{top}/{product}/train/ok/0000.{image}")
        tree.image(f"{top}/{product}/test/ok/0001.{image}")
        tree.image(f"{top}/{product}/test/ko/0002.{image}")
        tree.mask(f"{top}/{product}/ground_truth/ko/0002.{mask}")
    jaxad("btad", "--source", tree.root, "--partial")
    for product, suffix in (("01", "png"), ("03", "bmp")):
        examples = stored("btad", product)
        masks = {f"{product}/test/ko/0002.bmp": f"{product}/ground_truth/ko/0002.{suffix}"}
        assert_copied(examples, tree.root / top, masks)
        found = [(e["split"], e["label"], e["defect"], e["category"]) for e in examples.values()]
        assert found == [("train", 0, "good", product), ("test", 1, "ko", product), ("test", 0, "good", product)]
