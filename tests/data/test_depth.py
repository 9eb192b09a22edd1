"""How many of 16 bits are used, and that training, test and prediction read them alike."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.config import DataConfig
from jaxad.data.dataset import load
from jaxad.data.decode import decode, to_rgb
from jaxad.data.depth import chosen_depth, common_depths, depth_of, read_at, to_eight_bits, used_bits
from jaxad.data.images import ImageList
from jaxad.errors import DataError
from jaxad.inference.checkpoint import restore
from jaxad.inference.predictor import Predictor
from jaxad.testing import toy_model, toy_training
from jaxad.training.run_folder import content_hash
from tests.data.prepared import prepare

RNG = np.random.default_rng(0)


def values(bits, *shape):
    """uint16 that use all of so many bits."""
    found = RNG.integers(0, 2**bits, shape or (70, 70), dtype=np.uint16)
    found.flat[0] = 2**bits - 1
    return found


def png(pixels, declared=0) -> bytes:
    """A PNG file; with a chunk sBIT if it declares bits."""
    whole = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()
    if not declared:
        return whole
    chunk = b"sBIT" + bytes([declared] * (3 if pixels.ndim == 3 else 1))
    return whole[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_black_stays_black_and_the_highest_value_becomes_white(depth):
    white = 2**depth - 1
    found = to_eight_bits(np.array([0, white // 2, white, 65535], np.uint16), depth)
    np.testing.assert_array_equal(found, [0, 127, 255, 255])
    ramp = np.arange(0, white + 1, max(white // 999, 1), dtype=np.uint16)
    np.testing.assert_array_equal(to_eight_bits(ramp, depth), np.floor(ramp * 255.0 / white + 0.5).astype(np.uint8))


def test_used_bits():
    highest = [0, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535]
    assert [used_bits(np.array([n], np.uint16)) for n in highest] == [8, 8, 10, 10, 12, 12, 14, 14, 16, 16]
    assert used_bits(np.array([3], np.uint16), declared=11) == 12
    assert [used_bits(np.array([n], np.uint16), declared=10) for n in (1023, 1024, 5000)] == [10, 16, 16]


def test_alpha_is_no_color():
    color, alpha = values(12, 7, 9, 3), np.full((7, 9, 1), 65535, np.uint16)
    alpha[0] = 32768
    rgba = np.concatenate([color, alpha], -1)
    assert used_bits(rgba) == 12
    encoded = cv2.imencode(".png", rgba[..., [2, 1, 0, 3]])[1].tobytes()
    expected = to_eight_bits(color, 12)
    for found in (decode(encoded, depth=12), decode(encoded, depth=(10, 12, 16)), decode(with_sbit(encoded, 12, 16))):
        assert found.bits == 12
        np.testing.assert_array_equal(found.pixels[1:], expected[1:])
        np.testing.assert_allclose(found.pixels[0], expected[0] / 2, atol=1)
    # Alpha may use as many bits as the colors.
    low = np.concatenate([color, np.full((7, 9, 1), 4095, np.uint16)], -1)
    np.testing.assert_array_equal(to_rgb(low, depth=12), expected)


def with_sbit(encoded, bits, alpha):
    chunk = b"sBIT" + bytes([bits, bits, bits, alpha])
    return encoded[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + encoded[33:]


@pytest.mark.parametrize(("extra", "transparent"), [(0, False), (1, False), (2, True)])
def test_tiff_of_four_channels(extra, transparent):
    """The fourth is nothing that is known (0), alpha that the colors are multiplied by (1), or alpha (2)."""
    rgba = values(12, 7, 9, 4)
    rgba[..., 3] = 65535
    rgba[0, :, 3] = 0
    encoded = rgba_tiff(rgba, extra)
    found = decode(encoded, depth=12)
    expected = to_eight_bits(rgba[..., :3], 12)
    expected[0] *= not transparent
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.bits == 12


def rgba_tiff(rgba, extra):
    height, width = rgba.shape[:2]
    tags = {256: width, 257: height, 259: 1, 262: 2, 273: 8, 277: 4, 278: height, 279: rgba.nbytes, 338: extra}
    entries = [(tag, 3, 1, value) for tag, value in tags.items()]
    bits = 8 + rgba.nbytes
    entries = sorted([*entries, (258, 3, 4, bits)])
    folder = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = struct.pack("<2sHI", b"II", 42, bits + 8)
    return head + rgba.astype("<u2").tobytes() + struct.pack("<4H", 16, 16, 16, 16) + folder


def test_sixteen_bits_that_opencv_cannot_read_are_refused(monkeypatch):
    encoded = png(values(16, 7, 9, 3))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(DataError, match="unsupported mode"):
        decode(encoded)


def test_of_several_depths_the_smallest_that_holds_the_image_is_taken():
    pixels = values(11)
    assert [chosen_depth(pixels, depth) for depth in (10, (10, 12, 16), (8, 10), None)] == [10, 12, 10, 16]
    np.testing.assert_array_equal(to_rgb(pixels, depth=(10, 12))[..., 0], to_eight_bits(pixels, 12))
    np.testing.assert_array_equal(decode(png(pixels), depth=(10, 12)).pixels[..., 0], to_eight_bits(pixels, 12))


def test_depths_of_categories():
    depths = common_depths([("a", 10), ("a", 12), ("b", 0), ("c", 10)])
    assert depths == {"a": 12, "c": 10}
    assert [depth_of(name, depths) for name in ("a", "c", "b", "")] == [12, 10, (10, 12), (10, 12)]
    assert depth_of("a", {}) is None
    assert depth_of("", {"a": 12, "c": 12}) == 12


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_a_depth_scales_gray_and_color(shape):
    pixels = values(12, *shape)
    expected = to_eight_bits(pixels, 12).reshape(7, 9, -1)
    for encoded in (png(pixels), tiff(pixels)):
        found = decode(encoded, depth=12)
        np.testing.assert_array_equal(found.pixels, np.broadcast_to(expected, (7, 9, 3)))
        np.testing.assert_array_equal(found.values, pixels)
        assert found.bits == 12
        np.testing.assert_array_equal(decode(encoded).pixels, decode(encoded, depth=16).pixels)
    np.testing.assert_array_equal(to_rgb(pixels, depth=12), decode(png(pixels), depth=12).pixels)


def tiff(pixels, highest=None) -> bytes:
    if highest is None:
        return cv2.imencode(".tiff", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", tiffinfo={281: highest})
    return stream.getvalue()


def test_sixteen_bit_color_with_alpha_and_turned():
    pixels = values(16, 7, 9, 4)
    encoded = cv2.imencode(".png", pixels[..., [2, 1, 0, 3]])[1].tobytes()
    alpha = pixels[..., 3:] / 65535
    np.testing.assert_allclose(decode(encoded).pixels, pixels[..., :3] / 257 * alpha, atol=1.5)
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes()[6:]
    color = png(pixels[..., :3])
    turned = color[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + color[33:]
    np.testing.assert_array_equal(decode(turned).pixels, np.rot90(decode(color).pixels, -1))


@pytest.mark.parametrize("make", [lambda p: png(p, 12), lambda p: tiff(p, 4095)])
def test_what_a_file_declares_counts_where_nothing_else_is_known(make):
    dark = values(9)
    np.testing.assert_array_equal(decode(make(dark)).pixels[..., 0], to_eight_bits(dark, 12))
    assert decode(make(dark)).bits == 12
    # Scaled to 16 bits already, as PNG's standard asks.
    for whole in (values(16), values(14)):
        np.testing.assert_array_equal(decode(make(whole)).pixels[..., 0], to_eight_bits(whole, 16))


@pytest.fixture
def parts(tree):
    """12-bit images, one of them so dark that it would fit into 10 bits, and a category of full range."""
    for part, bits in (("train/good", [12] * 11 + [9]), ("test/good", [12, 9])):
        for index, used in enumerate(bits):
            tree.save(f"c/{part}/{index:03d}.png", values(used))
            tree.save(f"full/{part}/{index:03d}.png", values(16))
    return tree.root


def test_a_category_is_read_at_one_depth(parts):
    data = load(f"folder:{parts}")
    assert data.train.depths == data.holdout.depths == data.test.depths == {"c": 12, "full": 16}
    dark = next(i for i, record in enumerate(data.test.records) if record.identity == "c/test/good/001.png")
    raw = cv2.imread(str(data.test.records[dark].file), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(data.test[dark].image[..., 0], to_eight_bits(raw, 12))
    assert [(problem.kind, problem.file) for problem in data.problems if "range" in problem.kind] == [
        ("narrow range", "c")
    ]
    assert "4095" in next(problem for problem in data.problems if problem.kind == "narrow range").detail


def test_fingerprints_and_digests_know_of_depths(parts):
    plain = load(f"folder:{parts}", config=DataConfig(holdout=0), verify=False).train
    deep = plain.at_depths({"c": 12, "full": 16})
    assert len({source.fingerprint(0) for source in (plain, deep, plain.at_depths({"c": 10, "full": 16}))}) == 3
    assert plain.digest(0) == deep.digest(0)
    assert content_hash(plain) != content_hash(deep)


def test_fingerprints_of_loose_images_know_of_depths(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), values(9))
    images = ImageList([tmp_path / "a.png"])
    assert (
        len({source.fingerprint(0) for source in (images, images.at_depths({"": 12}), images.at_depths({"": 10}))}) == 3
    )


def test_a_source_is_read_at_depths_where_it_has_any(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(png(values(12)))
    source = ImageList([file], "part")
    assert read_at(source, {}) is source
    assert not np.array_equal(read_at(source, {"part": 12})[0].image, source[0].image)
    plain = object()
    assert read_at(plain, {"part": 12}) is plain


def test_a_detector_reads_what_it_judges_as_it_was_fitted(parts, tmp_path):
    data = load(f"folder:{parts}", config=DataConfig(("c",)))
    jaxad.fit(toy_model(), data.train, toy_training(), workdir=tmp_path / "run", holdout=data.holdout)
    detector = restore(tmp_path / "run").detector
    assert detector.depths == (("c", 12),)
    files = [record.file for record in data.test.records]
    arrays = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
    sources = (data.test, data.test.at_depths({"c": 16}), ImageList(files), ImageList(arrays, "c"))
    first, *others = (next(Predictor(detector, batch_size=2).stream(source)).scores for source in sources)
    for scores in others:
        np.testing.assert_array_equal(scores, first)


def test_prepared_data_are_read_at_the_same_depth(parts, tmp_path):
    prepare(parts, tmp_path / "prepared")
    folder, prepared = load(f"folder:{parts}"), load("own_parts", tmp_path / "prepared")
    assert prepared.train.depths == {"c": 12, "full": 16}
    assert [r.identity for r in prepared.holdout.records] == [r.identity for r in folder.holdout.records]
    np.testing.assert_array_equal(prepared.train[0].image, folder.train[0].image)
