"""What is stored: the source's bytes, or, at a prepared size, new ones."""

from __future__ import annotations

import dataclasses
import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from jaxad.data.decode import decode_image, decode_mask
from jaxad.errors import DataError
from tfds_builders.encode import category_depth, encode, union, zeros
from tfds_builders.listing import Sample


def sample(image, mask=None, label=1) -> Sample:
    return Sample("test", image, "part", label, "scratch" if label else "good", image.name, mask)


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 2, columns * 2, rows + columns], -1).astype(np.uint8)


def test_bytes_are_copied(tree):
    image, mask = tree.image("a.png"), tree.mask("m.png")
    assert encode(sample(image, mask)) == (image.read_bytes(), mask.read_bytes())
    assert encode(sample(image, b"made")) == (image.read_bytes(), b"made")
    assert encode(sample(image, partial(bytes, 3))) == (image.read_bytes(), bytes(3))


def test_missing_masks(tree):
    image = tree.image("a.png", (12, 10))
    normal = decode_mask(encode(sample(image, label=0))[1])
    assert (normal.shape, normal.any()) == ((12, 10), False)
    assert [encode(sample(image, label=label))[1] for label in (1, -1)] == [b"", b""]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tree.write("turned.jpg", Image.new("RGB", (10, 12)), exif=exif)
    assert decode_image(turned).shape == (10, 12, 3)
    assert decode_mask(encode(sample(turned, label=0))[1]).shape == (10, 12)


@pytest.mark.parametrize(("suffix", "kind", "tolerance"), [("png", "PNG", 2), ("jpg", "JPEG", 4), ("bmp", "PNG", 2)])
def test_prepared_size(tree, suffix, kind, tolerance):
    image = tree.save(f"a.{suffix}", smooth(60, 100))
    codes = np.zeros((60, 100), np.uint8)
    codes[10:20, 30:50] = 5
    mask = tree.save("m.png", codes)
    stored, stored_mask = encode(sample(image, mask), 30)
    with Image.open(io.BytesIO(stored)) as opened:
        assert (opened.format, opened.size) == (kind, (50, 30))
    expected = np.asarray(Image.fromarray(smooth(60, 100)).resize((50, 30), Image.Resampling.BOX)).astype(int)
    assert np.abs(decode_image(stored) - expected)[2:-2, 2:-2].max() <= tolerance
    with Image.open(io.BytesIO(stored_mask)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), codes[1::2, 1::2])
    blank = encode(sample(image, label=0), 30)[1]
    assert decode_mask(blank).shape == (30, 50)


def test_images_that_are_small_enough_are_copied(tree):
    image, mask = tree.image("a.png", (30, 50)), tree.mask("m.png", (30, 50))
    assert encode(sample(image, mask), 30) == (image.read_bytes(), mask.read_bytes())


def test_sixteen_bits_are_scaled_by_the_depth_of_the_category(tree):
    bright = smooth(60, 100)[..., 0].astype(np.uint16) * 16
    bright[0, 0] = 4095
    files = [tree.save("bright.png", bright), tree.save("dark.tif", bright // 8), tree.save("small.png", bright[:20])]
    samples = [sample(file) for file in [*files, tree.image("eight.png"), tree.text("none.png", "no image")]]
    assert [category_depth(chosen) for chosen in (samples, samples[1:2], samples[3:])] == [12, 10, None]
    for one, pixels in zip(samples, (bright, bright // 8, bright[:20]), strict=False):
        stored = decode_image(encode(one, 30, 12)[0])[..., 0]
        assert stored.shape == ((30, 50) if len(pixels) > 30 else (20, 100))
        eight = Image.fromarray(np.rint(pixels / 4095 * 255).astype(np.uint8))
        expected = np.asarray(eight.resize(stored.shape[::-1], Image.Resampling.BOX)).astype(int)
        assert np.abs(stored - expected)[2:-2, 2:-2].max() <= 2
        with pytest.raises(DataError, match="unsupported mode"):
            encode(one, 30)
    assert encode(samples[0]) == (files[0].read_bytes(), b"")


def test_gray_images_stay_gray(tree):
    image = tree.save("a.png", smooth(60, 100)[..., 0])
    with Image.open(io.BytesIO(encode(sample(image), 30)[0])) as opened:
        assert opened.mode == "L"


def test_masks_of_several_numbers_a_pixel_become_black_and_white(tree):
    image = tree.save("a.png", smooth(60, 100))
    color = np.zeros((60, 100, 3), np.uint8)
    color[:20, :, 1] = 9
    stored = encode(sample(image, tree.save("m.png", color)), 30)[1]
    assert decode_mask(stored)[:, 0].tolist() == [row < 10 for row in range(30)]


def test_union_of_masks(tree):
    one, two = np.zeros((2, 4, 4), np.uint8)
    one[0], two[:, 1] = 1, 200
    made = union((tree.save("1.png", one), tree.save("2.png", two)))
    with Image.open(io.BytesIO(made)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), ((one | two) > 0) * 255)


def test_files_that_cannot_be_read_are_named(tree):
    image = tree.image("a.png")
    gone = dataclasses.replace(sample(image), image=image.with_name("gone.png"))
    with pytest.raises(DataError, match=r"gone.png: unreadable file: No such file"):
        encode(gone)
    text = tree.text("text.png", "no image")
    with pytest.raises(DataError, match=r"text.png: unreadable image"):
        encode(sample(text, label=0))


def test_blank_masks_are_small():
    assert len(zeros(5000, 4000)) < 4000
