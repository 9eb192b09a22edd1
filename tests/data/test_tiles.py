"""Tiles of a source's images as a source."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from jaxad.data import FolderSource, ImageList, TiledSource, Tiling
from jaxad.data.batches import batches
from jaxad.types import Record, View

TILING = Tiling(32, 0.25)
SHAPES = [(70, 50), (32, 32), (20, 90)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    records = []
    for number, shape in enumerate(SHAPES):
        pixels = np.random.default_rng(number).integers(0, 255, (*shape, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        mask = root / f"{number}_mask.png"
        Image.fromarray((pixels[..., 0] > 128).astype(np.uint8) * 255).save(mask)
        records.append(Record(root / f"{number}.png", "c", 1, "cut", mask, f"{number}.png"))
    return FolderSource("parts", tuple(records))


def test_tiles_are_cut_of_image_and_mask_alike_and_smaller_images_are_mirrored(source):
    tiled = TiledSource(source, TILING)
    for index, (number, top, left) in enumerate(tiled.places):
        image, mask = source[number].image, source.mask(number)
        tile, cut = tiled[index].image, tiled.mask(index)
        assert tile.shape == (32, 32, 3)
        inside = image[top : top + 32, left : left + 32]
        height, width = inside.shape[:2]
        np.testing.assert_array_equal(tile[:height, :width], inside)
        np.testing.assert_array_equal(cut[:height, :width], mask[top : top + 32, left : left + 32])
        if height < 32:
            np.testing.assert_array_equal(tile[height : 2 * height], inside[::-1][: 32 - height])
    assert len({record.identity for record in tiled.records}) == len(tiled)
    assert [number for number, _, _ in tiled.places] == sorted(number for number, _, _ in tiled.places)


def test_an_image_read_in_order_is_decoded_once_and_its_size_not_at_all(source, monkeypatch):
    for index in range(len(source)):
        source.examined(index)
    decoded = []
    plain = FolderSource.decoded
    monkeypatch.setattr(FolderSource, "decoded", lambda self, index, **how: decoded.append(index) or plain(self, index))
    tiled = TiledSource(source, TILING)
    assert decoded == []
    read = [len(loaded.records) for loaded in batches(tiled, {"image": View(16, 16)}, 4, workers=2)]
    assert sum(read) == len(tiled)
    assert sorted(decoded) == [0, 1, 2]


def test_few_decoded_images_are_held(source, monkeypatch):
    monkeypatch.setattr("jaxad.data.tiles.HELD", 0)
    tiled = TiledSource(source, TILING)
    for index in range(len(tiled)):
        tiled[index]
    assert len(tiled._held) == 2


def test_a_sample_of_the_tiles_is_drawn_by_seed_and_pixels(source, tmp_path):
    def drawn(seed, of=source):
        return TiledSource(of, TILING, per_image=2, seed=seed).places

    assert [number for number, _, _ in drawn(0)] == [0, 0, 1, 2, 2]
    assert set(drawn(0)) <= set(TiledSource(source, TILING).places)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 1
    copies = [tmp_path / f"copy{number}.png" for number in range(3)]
    for record, copy in zip(source.records, copies, strict=True):
        copy.write_bytes(record.file.read_bytes())
    assert drawn(3, ImageList(copies)) == drawn(3)


def test_what_identifies_a_tile_differs_with_image_place_and_side(source):
    every = [TiledSource(source, tiling) for tiling in (TILING, Tiling(32, 0.5), Tiling(20))]
    for name in ("digest", "fingerprint"):
        found = [[getattr(tiled, name)(index) for index in range(len(tiled))] for tiled in every]
        assert all(len(set(group)) == len(group) for group in found)
        assert not set(found[0]) & set(found[2])
        same = dict(zip(every[0].places, found[0], strict=True))
        for place, text in zip(every[1].places, found[1], strict=True):
            assert same.get(place, text) == text


def test_a_copy_for_another_process_reads_the_same(source):
    tiled = TiledSource(source, TILING)
    tiled[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tiled))[3].image, tiled[3].image)
