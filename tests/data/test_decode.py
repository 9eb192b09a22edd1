"""Every mode and every damage an image file can come with."""

import errno
import io
import os
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from jaxad.data.decode import FORMATS, decode, decode_image, decode_mask, to_rgb
from jaxad.data.pixels import pixel_digest, pixel_hash, resize
from jaxad.errors import DataError, MachineError
from jaxad.types import View

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (7, 9), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (7, 9, 1), dtype=np.uint8)
RGBA = np.concatenate([COLOR, ALPHA], -1)
WIDE = RNG.integers(0, 65536, (7, 9), dtype=np.uint16)
LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")


def encoded(image, format="PNG", **options) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, format, **options)
    return stream.getvalue()


def repeated(gray):
    return np.repeat(gray[..., None], 3, axis=-1)


def composited(color, alpha):
    return np.rint(color.astype(np.float64) * alpha / 255).astype(np.uint8)


def kind_of(call) -> str:
    with pytest.raises(DataError) as caught:
        call()
    (problem,) = caught.value.problems
    assert problem.detail
    return problem.kind


def attempt(data: bytes):
    """The image and no problem, or None and the problems."""
    try:
        return decode_image(data, "cut.img"), ()
    except DataError as error:
        return None, error.problems


@pytest.mark.parametrize("format", LOSSLESS)
def test_color_and_gray_are_kept(format):
    np.testing.assert_array_equal(decode_image(encoded(COLOR, format)), COLOR)
    np.testing.assert_array_equal(decode_image(encoded(GRAY, format)), repeated(GRAY))


def test_lossy_formats_are_close():
    smooth = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 3, np.arange(64)[None] * 2, 90), -1).astype(np.uint8)
    for format in ("JPEG", "WEBP"):
        decoded = decode_image(encoded(smooth, format, quality=95))
        assert np.abs(decoded.astype(int) - smooth).mean() < 4
    np.testing.assert_array_equal(decode_image(encoded(smooth, "WEBP", lossless=True)), smooth)


def test_result_is_contiguous_and_writable():
    for data in (encoded(COLOR), encoded(GRAY), encoded(RGBA), encoded(WIDE)):
        image = decode_image(data)
        assert image.dtype == np.uint8
        assert image.shape == (7, 9, 3)
        assert image.flags.c_contiguous
        assert image.flags.writeable


def test_one_bit():
    bits = GRAY > 127
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(bits))), repeated(bits.astype(np.uint8) * 255))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_over_black(format):
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(decode_image(encoded(RGBA, format, **options)), composited(COLOR, ALPHA))


def test_gray_with_alpha():
    image = Image.fromarray(np.concatenate([GRAY[..., None], ALPHA], -1), "LA")
    np.testing.assert_array_equal(decode_image(encoded(image)), composited(repeated(GRAY), ALPHA))


def test_opaque_alpha_changes_nothing():
    opaque = np.concatenate([COLOR, np.full_like(ALPHA, 255)], -1)
    np.testing.assert_array_equal(decode_image(encoded(opaque)), COLOR)


def test_palette():
    image = Image.fromarray(COLOR).quantize(16)
    np.testing.assert_array_equal(decode_image(encoded(image)), np.asarray(image.convert("RGB")))


def test_palette_with_a_transparent_color():
    image = Image.fromarray(COLOR).quantize(4)
    decoded = decode_image(encoded(image, transparency=2))
    hidden = np.asarray(image) == 2
    assert hidden.any()
    assert not decoded[hidden].any()
    np.testing.assert_array_equal(decoded[~hidden], np.asarray(image.convert("RGB"))[~hidden])


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_scale_by_their_full_range(format):
    decoded = decode_image(encoded(WIDE, format))
    np.testing.assert_array_equal(decoded, repeated(np.rint(WIDE / 257).astype(np.uint8)))


def test_sixteen_bits_keep_their_extremes_and_are_not_stretched():
    np.testing.assert_array_equal(decode_image(encoded(np.array([[0, 65535, 4096]], np.uint16)))[0, :, 0], [0, 255, 16])


def test_big_endian_sixteen_bits():
    image = Image.frombytes("I;16B", (9, 7), WIDE.astype(">u2").tobytes())
    np.testing.assert_array_equal(to_rgb(image), repeated(np.rint(WIDE / 257).astype(np.uint8)))


def test_cmyk():
    image = Image.fromarray(COLOR).convert("CMYK")
    np.testing.assert_array_equal(decode_image(encoded(image, "TIFF")), np.asarray(image.convert("RGB")))
    assert decode_image(encoded(image, "JPEG")).shape == (7, 9, 3)


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_color_spaces(mode):
    image = (
        Image.fromarray(COLOR).convert("YCbCr") if mode == "YCbCr" else Image.frombytes("LAB", (9, 7), COLOR.tobytes())
    )
    np.testing.assert_array_equal(decode_image(encoded(image, "TIFF")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_of_unknown_range_are_refused(dtype):
    assert kind_of(lambda: decode_image(encoded(WIDE.astype(dtype), "TIFF"))) == "unsupported mode"


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_signed_integers_are_refused_as_images_but_not_as_masks(bits):
    pixels = (GRAY > 127).astype(f"<i{bits // 8}")
    tags = {256: 9, 257: 7, 258: bits, 259: 1, 262: 1, 273: 134, 277: 1, 278: 7, 279: pixels.nbytes, 339: 2}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(134 - 10 - len(entries)) + pixels.tobytes()
    assert kind_of(lambda: decode_image(data)) == "unsupported mode"
    np.testing.assert_array_equal(decode_mask(data), GRAY > 127)


TURNED = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2)}
TURNED |= {6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: np.rot90}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_image(encoded(COLOR, format, exif=exif)), TURNED[orientation](COLOR))


def test_exif_orientation_of_sixteen_bits_and_masks():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = repeated(np.rint(np.rot90(WIDE, -1) / 257).astype(np.uint8))
    np.testing.assert_array_equal(decode_image(encoded(WIDE, exif=exif)), turned)
    np.testing.assert_array_equal(decode_mask(encoded(WIDE * (WIDE > 9000), exif=exif)), np.rot90(WIDE > 9000, -1))


def test_first_of_several_frames():
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(data), repeated(GRAY))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*FORMATS, "MPO", "progressive JPEG"]), st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_an_error_or_whole(format, share):
    name, options = ("JPEG", {"progressive": True}) if format == "progressive JPEG" else (format, {})
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    whole = encoded(image, name, **options)
    cut = whole[: int(share * len(whole))]
    decoded, problems = attempt(cut)
    if problems:
        assert problems[0].file == "cut.img"
        assert problems[0].kind in ("truncated image", "unreadable image")
    else:
        # Only trailing bytes that hold no pixels may be missing.
        np.testing.assert_array_equal(decoded, decode_image(whole))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_a_half_written_file_is_called_truncated(format):
    whole = encoded(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8), format)
    assert kind_of(lambda: decode_image(whole[: len(whole) // 2])) == "truncated image"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(0, 2**32 - 1))
def test_damaged_bytes_never_raise_anything_else(format, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(COLOR, format))
    for place in rng.integers(0, len(data), 4):
        data[place] = rng.integers(256)
    decoded, problems = attempt(bytes(data))
    assert problems or decoded.dtype == np.uint8


@pytest.mark.parametrize("content", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image(content):
    assert kind_of(lambda: decode_image(content)) == "unreadable image"


def test_a_gray_mask_with_a_transparent_level_has_none_of_it():
    marks = np.array([[0, 1, 7], [255, 7, 0]], np.uint8)
    data = encoded(Image.fromarray(marks), transparency=7)
    np.testing.assert_array_equal(decode_mask(data), (marks > 0) & (marks != 7))


def test_tall_transparent_images_are_composited_row_by_row():
    rgba = np.random.default_rng(0).integers(0, 256, (700, 3, 4), dtype=np.uint8)
    color, alpha = rgba[..., :3].astype(int), rgba[..., 3:].astype(int)
    np.testing.assert_array_equal(to_rgb(rgba), (color * alpha + 127) // 255)


def test_files_that_cannot_be_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "broken.png", "folder.png", "missing.png"):
        with pytest.raises(DataError, match=name) as caught:
            decode_image(tmp_path / name)
        assert caught.value.problems[0].kind == "unreadable image"


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "x")])
def test_short_memory_is_no_fault_of_the_image(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("jaxad.data.decode.upright", fail)
    for read in (decode_image, decode_mask):
        with pytest.raises(MachineError, match="out of memory"):
            read(encoded(COLOR))


def test_short_memory_of_opencv_is_no_fault_of_the_image(monkeypatch):
    def fail(*_):
        error = cv2.error("Failed to allocate 12 bytes")
        error.code = cv2.Error.StsNoMem
        raise error

    wide = cv2.imencode(".png", np.zeros((7, 9, 3), np.uint16))[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MachineError, match="out of memory"):
        decode_image(wide)


def test_frames_are_counted_where_they_are_asked_for():
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    found, counted = decode(data), decode(data, count_frames=True)
    assert (found.kind, found.frames) == ("TIFF L", 1)
    assert (counted.kind, counted.frames) == ("TIFF L, the first of 2 frames", 2)


def test_a_digest_is_computed_once(monkeypatch):
    found, digests = decode(encoded(COLOR)), []
    monkeypatch.setattr("jaxad.data.decode.pixel_digest", lambda pixels: digests.append(pixels) or b"digest")
    assert (found.digest, found.digest, len(digests)) == (b"digest", b"digest", 1)


def test_decompression_bomb(monkeypatch):
    data = encoded(COLOR)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63)
    assert decode_image(data).shape == (7, 9, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 62)
    with pytest.warns(Image.DecompressionBombWarning):
        assert kind_of(lambda: decode_image(data)) == "decompression bomb"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert kind_of(lambda: decode_image(data)) == "decompression bomb"


@settings(deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3, 4]))))
def test_arrays_agree_with_files(pixels):
    file = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    np.testing.assert_array_equal(to_rgb(pixels), decode_image(encoded(file)))
    np.testing.assert_array_equal(to_rgb(file), decode_image(encoded(file)))


def test_to_rgb_takes_paths_and_wide_arrays(tmp_path):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    np.testing.assert_array_equal(to_rgb(tmp_path / "a.png"), COLOR)
    np.testing.assert_array_equal(to_rgb(str(tmp_path / "a.png")), COLOR)
    np.testing.assert_array_equal(to_rgb(WIDE), decode_image(encoded(WIDE)))


@pytest.mark.parametrize(
    "array",
    [
        COLOR / 255,
        COLOR.astype(int),
        GRAY[0],
        np.zeros((2, 4, 4, 3), np.uint8),
        COLOR[..., :2],
        COLOR[:0],
        ["ab"],
    ],
)
def test_to_rgb_refuses_other_arrays(array):
    assert kind_of(lambda: to_rgb(array, "frame 7")) == "unsupported array"


def test_to_rgb_names_a_truncated_pil_image(tmp_path):
    (tmp_path / "cut.png").write_bytes(encoded(np.tile(COLOR, (9, 9, 1)))[:200])
    with Image.open(tmp_path / "cut.png") as lazy:
        assert kind_of(lambda: to_rgb(lazy, "cut.png")) == "truncated image"


MARKS = np.zeros((7, 9), np.uint8)
MARKS[2:4, 3:8] = 1


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(MARKS),
        Image.fromarray(MARKS * 255),
        Image.fromarray(MARKS > 0),
        Image.fromarray(MARKS.astype(np.uint16) * 3),
        Image.fromarray(repeated(MARKS) * np.array([0, 0, 200], np.uint8)),
        Image.fromarray(np.concatenate([np.full((7, 9, 3), 255, np.uint8), MARKS[..., None] * 255], -1)),
        Image.fromarray(MARKS * 255).convert("P"),
    ],
    ids=["codes", "gray", "1 bit", "16 bit", "color", "painted on transparent", "palette"],
)
def test_masks_of_every_mode(image):
    mask = decode_mask(encoded(image))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, MARKS > 0)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_masks_of_32_bits(dtype):
    np.testing.assert_array_equal(decode_mask(encoded(MARKS.astype(dtype), "TIFF")), MARKS > 0)


def test_the_haze_of_a_jpeg_mask_is_no_defect():
    marks = np.zeros((64, 64), np.uint8)
    marks[20:40, 24:48] = 255
    data = encoded(marks, "JPEG", quality=40)
    assert (decode_image(data)[..., 0] > 0).sum() > 1.2 * (marks > 0).sum()
    np.testing.assert_array_equal(decode_mask(data), marks > 0)


def test_hash_is_of_the_pixels_not_of_the_file():
    values = {pixel_hash(decode_image(encoded(COLOR, format))) for format in LOSSLESS}
    assert len(values) == 1
    (value,) = values
    assert 0 <= value < 2**32
    assert pixel_hash(np.asfortranarray(COLOR)) == value


def test_hash_is_the_same_in_every_version():
    # Noise is drawn from it, so another hash would change published predictions.
    assert pixel_hash(np.arange(24, dtype=np.uint8).reshape(2, 4, 3)) == 3347865242


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 8), st.integers(0, 2), st.integers(1, 255))
def test_hash_sees_every_pixel_and_the_shape(y, x, channel, change):
    other = COLOR.copy()
    other[y, x, channel] = (int(other[y, x, channel]) + change) % 256
    assert pixel_digest(other) != pixel_digest(COLOR)
    assert pixel_digest(COLOR.reshape(9, 7, 3)) != pixel_digest(COLOR)


@pytest.mark.parametrize(
    ("name", "method"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_resize_is_that_of_pil(name, method):
    image = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    resized = resize(image, View(14, 21, name))
    np.testing.assert_array_equal(resized, np.asarray(Image.fromarray(image).resize((21, 14), method)))
    assert resize(image, View(30, 40, name)) is image


def test_resize_averages_when_it_shrinks():
    board = repeated((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    assert np.abs(resize(board, View(8, 8)).astype(int) - 127).max() <= 2


def test_resize_refuses_other_interpolations():
    with pytest.raises(DataError, match="nearest"):
        resize(COLOR, View(4, 4, "nearest"))


JPEGS = [
    {"quality": 92},
    {"quality": 40, "subsampling": 0},
    {"quality": 75, "subsampling": 1, "progressive": True},
    {"quality": 85, "optimize": True, "comment": b"\xff\xd9 is no end here"},
    {"quality": 90, "restart_marker_blocks": 4},
]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_have_the_pixels_that_pil_gives_them(mode, options):
    gray = np.add.outer(np.arange(67), 2 * np.arange(101)) % 251
    noise = np.random.default_rng(0).integers(0, 5, (67, 101, 3))
    image = Image.fromarray((np.stack([gray, gray[::-1], gray[:, ::-1]], -1) + noise).astype(np.uint8)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    pixels = decode_image(stream.getvalue())
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(stream).convert("RGB")))
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


def test_jpegs_that_opencv_cannot_decode_are_named_by_pil():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(stream, "JPEG")
    whole = stream.getvalue()
    # Cut within the tables, with an end put on: a file that looks complete.
    with pytest.raises(DataError, match=r"x\.jpg: (truncated|unreadable) image"):
        decode_image(whole[:200] + b"\xff\xd9", "x.jpg")
    with pytest.raises(DataError, match=r"x\.jpg: truncated image"):
        decode_image(whole[:-20], "x.jpg")
