"""Damage to JPEG files that libjpeg only warns of."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from jaxad.data import jpeg as jpeg_module
from jaxad.data.decode import decode, decode_image, decode_levels, decode_mask, decode_mask_levels
from jaxad.errors import DataError

PICTURE = np.add.outer(np.arange(96), 2 * np.arange(128)) % 251
PICTURE = (np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]], -1)).astype(np.uint8)


def jpeg(mode="RGB", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def kind(content: bytes) -> str:
    with pytest.raises(DataError) as caught:
        decode_image(content, "x.jpg")
    return caught.value.problems[0].kind


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_scan_cut_short_with_an_end_put_on(mode, options):
    whole = jpeg(mode, **options)
    assert kind(whole[: len(whole) * 2 // 3] + b"\xff\xd9") == "truncated image"


def test_a_cut_file_that_is_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = jpeg(exif=exif)
    np.testing.assert_array_equal(decode_image(whole), np.rot90(decode_image(jpeg()), -1))
    assert kind(whole[:-400] + b"\xff\xd9") == "truncated image"


@pytest.mark.parametrize("marker", [b"\xff\xd5", b"\xff\xd9", b"\xff\xc4", b"\x00\x00"])
def test_broken_restart_markers(marker):
    whole = jpeg(restart_marker_rows=1)
    assert whole.count(b"\xff\xd1") == 1
    assert kind(whole.replace(b"\xff\xd1", marker)) in ("damaged image", "truncated image")


def test_codes_that_mean_nothing():
    whole = bytearray(jpeg())
    whole[1650:1750] = bytes(100)
    assert kind(bytes(whole)) in ("damaged image", "truncated image")


def test_peculiarities_of_cameras_are_no_damage():
    whole = jpeg()
    for content in (whole[:-2] + b"\x00\xff\xd9", whole + bytes(500), whole + jpeg()):
        np.testing.assert_array_equal(decode_image(content), decode_image(whole))


def test_a_harmless_peculiarity_does_not_hide_that_the_end_is_missing():
    whole = jpeg()
    # A version of JFIF that nobody knows, which libjpeg warns of first.
    odd = whole.replace(b"JFIF\x00\x01", b"JFIF\x00\x07")
    assert odd != whole
    np.testing.assert_array_equal(decode_image(odd), decode_image(whole))
    assert kind(odd[: len(odd) // 2]) == "truncated image"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("read", [decode_mask, decode_levels, decode_mask_levels])
def test_masks_are_looked_at_as_images_are(mode, read):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = jpeg(mode, exif=exif)
    np.testing.assert_array_equal(decode_levels(whole), decode_image(whole).max(axis=-1))
    with pytest.raises(DataError) as caught:
        read(whole[: len(whole) * 2 // 3] + b"\xff\xd9", "x.jpg")
    assert caught.value.problems[0].kind == "truncated image"


def test_whoever_asks_pillow_for_truncated_images_gets_them(monkeypatch):
    whole = jpeg()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert decode(whole[: len(whole) // 2]).pixels.shape == PICTURE.shape


def test_without_simplejpeg_pillow_gives_the_same_pixels(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 3
    contents = [jpeg(), jpeg("L"), jpeg("CMYK"), jpeg(exif=exif)]
    expected = [decode_image(content) for content in contents]
    monkeypatch.setattr(jpeg_module, "simplejpeg", None)
    for content, pixels in zip(contents, expected, strict=True):
        np.testing.assert_array_equal(decode_image(content), pixels)
