"""Padded batches, decoded ahead in threads."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from jaxad.data.batches import batches, training_batches
from jaxad.data.decode import decode_image
from jaxad.data.folder import FolderSource
from jaxad.data.layout import scan
from jaxad.data.pixels import pixel_hash, resize
from jaxad.data.sampling import TrainingOrder
from jaxad.errors import DataError, Problem
from jaxad.types import Record, Sample, View

VIEWS = {"small": View(8, 6), "sharp": View(16, 16, "bicubic")}


@pytest.fixture
def source(tree) -> FolderSource:
    for index in range(7):
        tree.image(f"c/train/good/{index}.png", (10 + index, 20))
    return FolderSource("parts/train", scan(tree.root).train)


class Counting:
    """A source that counts how often each image is decoded and how far reading is ahead."""

    name, categories = "counting", ("c",)

    def __init__(self, length: int):
        self.records = [Record(file=f"{i}.png", category="c") for i in range(length)]  # type: ignore[arg-type]
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        self.decoded.append(index)
        time.sleep(0.001 * (index % 3))
        return Sample(np.full((4, 4, 3), index % 256, np.uint8), self.records[index])

    def mask(self, index: int) -> None:
        return None

    def fingerprint(self, index: int) -> str:
        return str(index)

    def digest(self, index: int) -> bytes:
        return bytes([index] * 16)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_content(source, workers):
    loaded = list(batches(source, VIEWS, 3, workers=workers))
    assert [len(item.records) for item in loaded] == [3, 3, 1]
    assert [item.indices for item in loaded] == [(0, 1, 2), (3, 4, 5), (6,)]
    for item in loaded:
        assert item.batch.images["small"].shape == (3, 8, 6, 3)
        assert item.batch.images["sharp"].shape == (3, 16, 16, 3)
        assert item.batch.seed.dtype == np.uint32
        np.testing.assert_array_equal(item.batch.valid, np.arange(3) < len(item.records))
        for row, (index, record, size) in enumerate(zip(item.indices, item.records, item.sizes, strict=True)):
            original = decode_image(record.file)
            assert record == source.records[index]
            assert size == original.shape[:2]
            assert item.batch.seed[row] == pixel_hash(original)
            for name, view in VIEWS.items():
                np.testing.assert_array_equal(item.batch.images[name][row], resize(original, view))


def test_padding_is_zero(source):
    last = list(batches(source, VIEWS, 5))[-1]
    assert last.batch.valid.tolist() == [True, True, False, False, False]
    assert not last.batch.seed[2:].any()
    assert not any(images[2:].any() for images in last.batch.images.values())


def test_batch_larger_than_the_source(source):
    (only,) = batches(source, VIEWS, 64)
    assert only.batch.valid.sum() == 7


def test_chosen_indices_in_their_order(source):
    loaded = list(batches(source, VIEWS, 2, indices=np.array([5, 0, 5])))
    assert [item.indices for item in loaded] == [(5, 0), (5,)]
    np.testing.assert_array_equal(loaded[0].batch.images["small"][0], loaded[1].batch.images["small"][0])


def test_nothing_to_read(source):
    assert list(batches(source, VIEWS, 4, indices=[])) == []


def test_seed_depends_on_pixels_alone(tree, source):
    image = Image.open(source.records[2].file)
    other = Image.open(source.records[3].file)
    tree.write("elsewhere/good/renamed.bmp", image)
    tree.write("elsewhere/good/a.tif", other)
    moved = FolderSource("elsewhere", scan(tree.root / "elsewhere").train)
    (first,) = batches(source, VIEWS, 8)
    (second,) = batches(moved, VIEWS, 2)
    assert second.batch.seed.tolist() == [first.batch.seed[3], first.batch.seed[2]]


def test_order_is_kept_and_each_image_is_decoded_once():
    source = Counting(50)
    seen = [index for item in batches(source, VIEWS, 4, workers=4) for index in item.indices]
    assert seen == list(range(50))
    assert sorted(source.decoded) == seen


def test_reading_ahead_is_bounded():
    source = Counting(200)
    stream = batches(source, VIEWS, 4, workers=2)
    next(stream)
    time.sleep(0.2)
    # The batch itself, two batches ahead, and what the refill of the buffer admits.
    assert len(source.decoded) <= 4 + 2 * 4
    stream.close()


def test_stopping_early_ends_the_threads():
    before = set(threading.enumerate())
    stream = batches(Counting(200), VIEWS, 4, workers=2)
    next(stream)
    readers = set(threading.enumerate()) - before
    assert len(readers) == 2
    stream.close()
    for reader in readers:
        reader.join(timeout=5)
    assert not any(reader.is_alive() for reader in readers)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_midway_is_named(source, workers):
    source.records[4].file.write_bytes(b"overwritten")
    stream = batches(source, VIEWS, 2, workers=workers)
    assert next(stream).indices == (0, 1)
    assert next(stream).indices == (2, 3)
    with pytest.raises(DataError, match=r"4\.png: unreadable image"):
        next(stream)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_midway_is_marked_where_asked(source, workers):
    sound = list(batches(source, VIEWS, 4))
    source.records[4].file.write_bytes(b"overwritten")
    first, second = batches(source, VIEWS, 4, workers=workers, on_unreadable="mark")
    assert first.problems == ((), (), (), ())
    assert second.indices == (4, 5, 6)
    assert [[problem.kind for problem in found] for found in second.problems] == [["unreadable image"], [], []]
    assert second.problems[0][0].file == str(source.records[4].file)
    assert second.batch.valid.tolist() == [False, True, True, False]
    assert second.sizes == ((0, 0), *sound[1].sizes[1:])
    assert second.batch.seed.tolist() == [0, *sound[1].batch.seed[1:]]
    for name, images in second.batch.images.items():
        assert not images[0].any()
        np.testing.assert_array_equal(images[1:], sound[1].batch.images[name][1:])


def test_an_error_without_problems_becomes_one():
    class Broken(Counting):
        def __getitem__(self, index: int) -> Sample:
            raise DataError("no idea")

    (only,) = batches(Broken(1), VIEWS, 1, on_unreadable="mark")
    assert only.problems == ((Problem("unreadable image", "0.png", "no idea"),),)


@pytest.mark.parametrize("workers", [0, 2])
def test_originals(source, workers):
    source.records[4].file.write_bytes(b"overwritten")
    for item in batches(source, VIEWS, 3, workers=workers, originals=True, on_unreadable="mark"):
        for index, original in zip(item.indices, item.originals, strict=True):
            if index == 4:
                assert original is None
            else:
                np.testing.assert_array_equal(original, source[index].image)
    plain = next(batches(source, VIEWS, 3, workers=workers))
    assert plain.originals == (None, None, None)


def test_few_originals_are_held_ahead():
    source = Counting(200)
    stream = batches(source, VIEWS, 16, workers=2, originals=True)
    next(stream)
    time.sleep(0.2)
    assert len(source.decoded) <= 16 + 2
    stream.close()


def same(first, second):
    """Whether two streams of batches hold the same images, byte for byte."""
    for one, other in zip(first, second, strict=True):
        assert one.indices == other.indices
        np.testing.assert_array_equal(one.batch.seed, other.batch.seed)
        np.testing.assert_array_equal(one.batch.valid, other.batch.valid)
        for name, images in one.batch.images.items():
            np.testing.assert_array_equal(images, other.batch.images[name])


@pytest.mark.slow
def test_an_image_that_breaks_in_another_process_is_named(source):
    source.records[4].file.write_bytes(b"overwritten")
    stream = batches(source, VIEWS, 2, processes=1, workers=1)
    with pytest.raises(DataError, match=r"4\.png: unreadable image"):
        list(stream)


def test_hosts_decode_their_own_rows_and_together_all(source):
    whole = list(batches(source, VIEWS, 4))
    hosts = [list(batches(source, VIEWS, 4, rows=rows)) for rows in ((0, 1), (2, 3))]
    for item, *shares in zip(whole, *hosts, strict=True):
        for share, rows in zip(shares, ((0, 1), (2, 3)), strict=True):
            assert (share.indices, share.records) == (item.indices, item.records)
            np.testing.assert_array_equal(share.batch.valid, item.batch.valid)
            for row in range(4):
                mine = row in rows
                assert share.batch.seed[row] == (item.batch.seed[row] if mine else 0)
                for name, images in share.batch.images.items():
                    np.testing.assert_array_equal(images[row], item.batch.images[name][row] * mine)
                if row < len(item.indices):
                    assert share.sizes[row] == (item.sizes[row] if mine else None)
                    assert not share.problems[row]


def test_no_host_decodes_the_rows_of_another():
    source = Counting(21)
    list(batches(source, VIEWS, 8, rows=(1, 5)))
    assert sorted(source.decoded) == [1, 5, 9, 13, 17]


def test_training_resumes_in_the_middle_of_an_epoch(source):
    order = TrainingOrder([r.category for r in source.records], "size", seed=3)
    undisturbed = list(training_batches(source, VIEWS, 3, order, start=0, steps=6))
    # 18 images of 7: two epochs and a half.
    assert sorted(np.ravel([item.indices for item in undisturbed])[:14]) == sorted([*range(7)] * 2)
    for start in (1, 4):
        same(list(training_batches(source, VIEWS, 3, order, start=start, steps=6)), undisturbed[start:])
    assert list(training_batches(source, VIEWS, 3, order, start=6, steps=6)) == []
    other = TrainingOrder([r.category for r in source.records], "size", seed=4)
    assert [i.indices for i in training_batches(source, VIEWS, 3, other, start=0, steps=6)] != [
        i.indices for i in undisturbed
    ]


def test_training_batches_are_the_same_in_one_process_and_in_two(source):
    order = TrainingOrder([r.category for r in source.records], seed=1)
    one = list(training_batches(source, VIEWS, 4, order, start=1, steps=4))
    assert not any(item.batch.seed.any() for item in one)
    two = list(training_batches(source, VIEWS, 4, order, start=1, steps=4, processes=2, workers=1))
    same(one, two)
    assert [item.sizes for item in one] == [item.sizes for item in two]


@pytest.mark.parametrize("rows", [None, (1,)])
def test_masks_are_made_in_the_threads_that_decode(rows):
    class Masked(Counting):
        def mask(self, index: int) -> np.ndarray | None:
            assert threading.current_thread() is not threading.main_thread()
            return None if index == 1 else np.full((4, 4), index == 2)

    source = Masked(3)
    first, second = batches(source, VIEWS, 2, workers=2, rows=rows, masks=lambda mask: mask[:2, :2])
    assert first.masks[1] is None
    # Every host counts all rows, whoever decodes their images.
    np.testing.assert_array_equal(first.masks[0], np.zeros((2, 2), bool))
    np.testing.assert_array_equal(second.masks[0], np.ones((2, 2), bool))
    assert len(second.masks) == 1
    assert next(batches(source, VIEWS, 2)).masks == ()
