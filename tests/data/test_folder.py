"""The source made of files."""

import numpy as np
import pytest
from PIL import Image

from jaxad.data.folder import FolderSource
from jaxad.data.layout import scan
from jaxad.errors import DataError
from jaxad.types import Source


@pytest.fixture
def source(tree) -> FolderSource:
    tree.category("a", train=6)
    tree.category("b", train=4)
    return FolderSource("parts/train", scan(tree.root).train)


def test_it_is_a_source(source, tree):
    assert isinstance(source, Source)
    assert len(source) == 10
    assert source.categories == ("a", "b")
    image, record = source[7]
    np.testing.assert_array_equal(image, np.asarray(Image.open(record.file)))
    assert record.identity == "b/train/good/001.png"
    assert source.mask(7) is None


def test_masks(tree):
    tree.category("a")
    source = FolderSource("parts/test", scan(tree.root).test)
    mask = source.mask(2)
    assert mask is not None
    assert mask.dtype == bool
    assert mask.sum() == 9
    assert source.mask(0) is None


def test_select_and_filter(source):
    assert [r.identity[-7:] for r in source.select([3, 0]).records] == ["003.png", "000.png"]
    only = source.filter(categories=["b"])
    assert only.categories == ("b",)
    assert len(only) == 4
    assert source.select(range(2)).categories == ("a",)
    with pytest.raises(DataError, match="no category x"):
        source.filter(["b", "x"])


def test_per_class_draws_k_of_each(source):
    few = source.per_class(3, seed=1)
    assert [r.category for r in few.records] == ["a"] * 3 + ["b"] * 3
    assert len({r.identity for r in few.records}) == 6
    assert few.records == source.per_class(3, seed=1).records
    assert any(few.records != source.per_class(3, seed=seed).records for seed in range(2, 6))


def test_per_class_depends_on_its_own_category_only(source):
    shuffled = source.select(reversed(range(len(source))))
    alone = source.filter(["b"]).per_class(2, seed=5).records
    assert tuple(r for r in source.per_class(2, seed=5).records if r.category == "b") == alone
    assert tuple(r for r in shuffled.per_class(2, seed=5).records if r.category == "b") == alone
    assert source.filter(["b"]).per_class(4, seed=5).records[:2] == alone


def test_per_class_takes_normal_images_only(tree):
    tree.category("a", good=2, bad=5)
    assert {r.label for r in FolderSource("t", scan(tree.root).test).per_class(2).records} == {0}


def test_per_class_says_which_categories_are_short(source):
    with pytest.raises(DataError, match=r"7 normal images per category .* a has 6, b has 4"):
        source.per_class(7)
