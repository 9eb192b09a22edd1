import numpy as np
import pytest

from jaxad.data import ImageList, JoinedSource


@pytest.fixture
def parts(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (5, 4, 3), np.uint8) for _ in range(5)]
    return images, ImageList(images[:2], "a", {"a": 12}), ImageList(images[2:], "b", {"a": 10, "b": 14})


def test_images_follow_in_their_order(parts):
    images, first, second = parts
    source = JoinedSource([first, second], "all")
    assert [record.category for record in source.records] == ["a", "a", "b", "b", "b"]
    assert (len(source), source.name, source.categories) == (5, "all", ("a", "b"))
    for index, image in enumerate(images):
        np.testing.assert_array_equal(source[index].image, image)
    assert [source.digest(index) for index in (1, 2)] == [first.digest(1), second.digest(0)]
    assert source.mask(4) is None
    with pytest.raises(IndexError):
        source[5]


def test_the_first_part_says_how_deep_images_are(parts):
    _, first, second = parts
    source = JoinedSource([first, second])
    assert source.depths == {"a": 12, "b": 14}
    assert source.at_depths({"b": 16}).depths == {"b": 16}
