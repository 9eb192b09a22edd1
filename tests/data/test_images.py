"""Loose images for `predict`."""

import numpy as np
import pytest
from PIL import Image

from jaxad.data.images import ImageList
from jaxad.data.pixels import pixel_digest
from jaxad.errors import DataError
from jaxad.types import Source


def test_everything_predict_takes(tree):
    file = tree.image("one.png", seed=1)
    tree.image("folder/b.png", seed=2)
    tree.image("folder/deep/a.png", seed=3)
    array = np.full((4, 5), 7, np.uint8)
    with Image.open(file) as opened:
        images = ImageList([file, tree.root / "folder", opened, Image.fromarray(array), array], category="screw")
        assert isinstance(images, Source)
        names = [r.identity for r in images.records]
        assert names == [file.as_posix(), "b.png", "deep/a.png", file.as_posix(), "image-3", "image-4"]
        np.testing.assert_array_equal(images[0].image, images[3].image)
        np.testing.assert_array_equal(images[4].image, np.full((4, 5, 3), 7))
        np.testing.assert_array_equal(images[5].image, images[4].image)
    assert len(images) == 6
    assert {r.category for r in images.records} == {"screw"}
    assert images.mask(0) is None
    assert images[1].record.file == tree.root / "folder/b.png"
    assert images.digest(0) == pixel_digest(np.asarray(Image.open(file)))
    assert len({images.digest(index) for index in range(6)}) == 4


@pytest.mark.parametrize("single", ["path", "text", "array", "pil"])
def test_one_image_needs_no_list(tree, single):
    file = tree.image("one.png")
    array = np.asarray(Image.open(file))
    images = ImageList({"path": file, "text": str(file), "array": array, "pil": Image.fromarray(array)}[single])
    assert len(images) == 1
    np.testing.assert_array_equal(images[0].image, array)


def test_batch_of_frames_as_one_array_is_refused():
    images = ImageList(np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="image-0: unsupported array"):
        images[0]


def test_bad_input_is_named(tree):
    (tree.root / "hollow").mkdir(parents=True)
    with pytest.raises(DataError, match="hollow: no image"):
        ImageList(tree.root / "hollow")
    with pytest.raises(DataError, match="no image given"):
        ImageList([])
    with pytest.raises(DataError, match=r"gone\.png"):
        ImageList("gone.png")[0]
    with pytest.raises(DataError, match="image-0: unsupported array: float64"):
        ImageList([np.zeros((4, 4))])[0]
