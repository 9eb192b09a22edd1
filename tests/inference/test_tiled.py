"""Images as tiles: maps without seams, the same numbers as whole images where both are defined, pixels alone."""

from __future__ import annotations

import itertools
from functools import partial
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

import jaxad
from jaxad.data import ImageList, Tiling
from jaxad.detector import Detector, InputSpec
from jaxad.errors import ConfigError, DataError
from jaxad.inference.predictor import Predictor
from jaxad.inference.stitching import Stitched, map_length
from jaxad.inference.tiled import TiledStream
from jaxad.metrics import large, protocol, protocol_names
from jaxad.types import Features, Judgement, View
from tests.compilations import counted

SIDE = 64
TILING = Tiling(SIDE, 0.25)


class Brightness(Detector):
    """The map is a smooth function of each pixel alone, at a `step` of pixels; the score may be its own."""

    name: ClassVar[str] = "brightness"
    title = "Brightness"

    def __init__(self, side=SIDE, step=1, scores=False, tiling=TILING):
        self.side, self.step, self.scores, self.tiling = side, step, scores, tiling
        self.config = jaxad.PatchBankConfig()

    @property
    def inputs(self):
        return InputSpec({"image": View(self.side, self.side)})

    def encode(self, batch):
        pixels = jnp.asarray(batch.images["image"], jnp.float32).mean(-1) / 255
        cells = pixels.reshape(len(pixels), self.side // self.step, self.step, -1, self.step).mean((2, 4))
        return Features(cells.reshape(len(pixels), -1, 1), (self.side // self.step,) * 2)

    def judge(self, features, batch, keys):
        maps = features.tokens.reshape(-1, *features.grid)
        maps = maps + 0.5 * maps**2
        return Judgement(maps, maps.max((1, 2)) if self.scores else None)


def smooth(height, width):
    """A picture that varies slowly, so that it can be compared between its samples."""
    y, x = np.mgrid[:height, :width]
    gray = 128 + 60 * np.sin(y / 40) + 50 * np.cos(x / 55)
    return np.repeat(np.round(gray).astype(np.uint8)[..., None], 3, axis=2)


def expected(image):
    gray = image.astype(np.float32).mean(-1) / 255
    return gray + 0.5 * gray**2


def map_of(detector, image, name="exact-256", batch_size=4):
    (output,) = Predictor(detector, name, batch_size=batch_size).stream(ImageList([image]))
    return output


@pytest.mark.parametrize("shape", [(64, 64), (200, 150), (64, 333), (65, 64)])
def test_tiles_of_a_function_of_pixels_give_the_map_of_the_whole(shape):
    """At one sample for each pixel: nothing is interpolated, so that every difference is one of the stitching."""
    image = smooth(*shape)
    stitched = Stitched(TILING, shape, SIDE)
    for corner in TILING.corners(*shape):
        stitched.add(corner, expected(TILING.cut(image, corner)))
    np.testing.assert_allclose(stitched.map, expected(image), rtol=1e-5)


def test_coarse_maps_have_no_edge_where_tiles_end():
    """Maps of 8 px cells: what is put together equals the map of the whole image, where cells coincide, to 1e-5."""
    tiling, shape = Tiling(64, 0.25), (64 + 48 * 3, 64 + 48 * 2)
    field = np.random.default_rng(0).random((shape[0] // 8, shape[1] // 8)).astype(np.float32)
    stitched = Stitched(tiling, shape, SIDE)
    for top, left in tiling.corners(*shape):
        stitched.add((top, left), field[top // 8 : top // 8 + 8, left // 8 : left // 8 + 8])
    whole = Stitched(Tiling(shape[0]), (shape[0], shape[0]), shape[0])
    square = np.pad(field, ((0, 0), (0, field.shape[0] - field.shape[1])), mode="edge")
    whole.add((0, 0), square)
    np.testing.assert_allclose(stitched.map[:, : shape[1] - 4], whole.map[:, : shape[1] - 4], atol=1e-5)


@pytest.mark.parametrize("overlap", [0, 0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(30, 40), (64, 65), (211, 137)])
def test_a_constant_stays_a_constant(shape, overlap):
    tiling = Tiling(SIDE, overlap)
    stitched = Stitched(tiling, shape, 256)
    for corner in tiling.corners(*shape):
        stitched.add(corner, np.full((7, 9), 3.25, np.float32))
    np.testing.assert_allclose(stitched.map, 3.25, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(protocol_names()) - {"dinomaly", "diad", "ader"}))
def test_an_image_of_one_tile_is_judged_as_a_whole_image_is(name):
    image = np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    whole, tiled = (map_of(Brightness(step=8, tiling=t), image, name) for t in (None, TILING))
    np.testing.assert_allclose(tiled.maps, whole.maps, atol=1e-5)
    np.testing.assert_allclose(tiled.scores, whole.scores, rtol=1e-5)


def test_the_score_is_that_of_the_whole_map_or_the_highest_of_the_tiles():
    image = smooth(200, 150)
    from_map, own = (map_of(Brightness(step=4, scores=scores), image) for scores in (False, True))
    np.testing.assert_allclose(from_map.scores, large.image_score(protocol("exact-256"), from_map.maps[0]), rtol=1e-6)
    cells = [expected(TILING.cut(image, c)).reshape(16, 4, 16, 4).mean((1, 3)).max() for c in TILING.corners(200, 150)]
    np.testing.assert_allclose(own.scores, max(cells), rtol=1e-3)


def test_predictions_depend_on_pixels_alone_in_any_batch_and_beside_any_image():
    images = [smooth(200, 150), smooth(40, 30), smooth(64, 300)]
    detector = Brightness(step=8)
    alone = [map_of(detector, image, batch_size=1) for image in images]
    for size, order in ((3, (0, 1, 2)), (8, (2, 1, 0)), (16, (1, 0, 2))):
        outputs = Predictor(detector, batch_size=size).stream(ImageList([images[i] for i in order]))
        for number, output in zip(order, outputs, strict=True):
            np.testing.assert_allclose(output.maps, alone[number].maps, rtol=1e-5)
            np.testing.assert_allclose(output.scores, alone[number].scores, rtol=1e-5)


def test_one_program_for_images_of_all_sizes():
    detector = Brightness(step=8)
    jaxad.predict(detector, [smooth(64, 64)], batch_size=4)
    with counted() as counts:
        jaxad.predict(detector, [smooth(200, 150), smooth(10, 300), smooth(70, 70)], batch_size=4)
    assert counts["programs"] == 0


def test_answers_have_the_size_of_the_image_and_damaged_ones_are_named(tmp_path):
    detector = Brightness(step=8)
    sizes = [(200, 150), (30, 20)]
    assert [p.map.shape for p in jaxad.predict(detector, [smooth(*s) for s in sizes])] == sizes
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png"):
        jaxad.predict(detector, [smooth(64, 64), tmp_path / "bad.png"])


def test_the_map_has_the_size_of_the_protocol_for_each_side_of_a_tile():
    assert map_of(Brightness(), smooth(192, 64)).maps.shape == (1, 768, 256)
    assert map_length(Tiling(448), 4000, 256) == 2286


def test_tiles_cover_the_image_evenly_and_overlap_enough():
    for length in (10, 64, 65, 100, 333, 4000):
        starts = TILING.starts(length)
        assert starts[0] == 0
        assert starts[-1] == max(length - SIDE, 0)
        assert all(0 < b - a <= 48 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize(("side", "overlap"), [(8, 0.25), (448, 0.9), (448, -0.1)])
def test_tilings_that_cannot_be_are_refused(side, overlap):
    with pytest.raises(ConfigError, match=r"tile = 8|overlap"):
        Tiling(side, overlap)


def test_few_images_are_under_way_at_once():
    """What has been read and not yet answered does not grow with the number of images."""
    detector, pulled = Brightness(step=8), 0
    predictor = Predictor(detector, batch_size=4)
    source = ImageList([smooth(120, 130 + number) for number in range(8)])

    def counted_images():
        nonlocal pulled
        for loaded in predictor.batches(source, None, 1, tiled=True, originals=True):
            pulled += 1
            yield loaded

    views = detector.inputs.views
    judge = partial(predictor._raw_explained, ())
    stream = TiledStream(TILING, views, predictor.batch_size, predictor.protocol, judge)
    answered = 0
    for output in stream(counted_images()):
        answered += 1
        assert pulled - answered <= 1
        assert output.loaded.originals == (None,)
    assert answered == pulled == 8
