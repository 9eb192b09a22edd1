"""Judging a region: nothing outside moves a score, a map, a metric or a decision."""

from __future__ import annotations

import numpy as np
import pytest

import jaxad
from jaxad.data import ImageList, Region, Tiling
from jaxad.errors import DataError
from jaxad.inference.calibrate import choose_threshold
from jaxad.inference.predictor import Predictor
from jaxad.metrics.classes import ClassMetrics
from tests.inference.test_tiled import SIDE, TILING, Brightness, smooth

REGION = Region.from_json({"box": [16, 8, 56, 48]})


def detector(region=REGION, tiling=None, scores=False):
    made = Brightness(tiling=tiling, scores=scores)
    made.regions = () if region is None else (("", region),)
    return made


def judged(made, image, **how):
    (output,) = Predictor(made, batch_size=2).stream(ImageList([image]), **how)
    return output


@pytest.mark.parametrize("tiling", [None, TILING])
@pytest.mark.parametrize("scores", [False, True])
def test_what_lies_outside_moves_nothing(tiling, scores):
    image = np.random.default_rng(0).integers(60, 120, (SIDE, SIDE, 3), np.uint8)
    # Maps are interpolated between pixels, so that the next pixel is seen from inside.
    near = Region.from_json({"box": [15, 7, 57, 49]}).inside(SIDE, SIDE)
    bright = np.where(near[..., None], image, 255).astype(np.uint8)
    plain, lit = (judged(detector(tiling=tiling, scores=scores), i) for i in (image, bright))
    whole = judged(detector(None, tiling, scores), bright)
    assert whole.scores > 1.5 * lit.scores
    np.testing.assert_array_equal(plain.inside, lit.inside)
    np.testing.assert_allclose(lit.scores, plain.scores, rtol=1e-5)
    np.testing.assert_allclose(lit.maps, plain.maps, rtol=1e-4)
    assert lit.maps[~lit.inside].max() <= lit.maps[lit.inside].min()


def test_a_region_of_the_whole_image_changes_nothing():
    image = smooth(SIDE, SIDE)
    every = Region.from_json({"box": [0, 0, SIDE, SIDE]})
    whole, same = judged(detector(None), image), judged(detector(every), image)
    np.testing.assert_allclose(same.maps, whole.maps, rtol=1e-5)
    np.testing.assert_allclose(same.scores, whole.scores, rtol=1e-5)
    assert same.inside.all()


@pytest.mark.parametrize("tiling", [None, Tiling(SIDE, 0.5)])
def test_predictions_mark_and_box_nothing_outside(tiling):
    made = detector(tiling=tiling)
    normal = [np.full((100, 90, 3), 80 + i, np.uint8) for i in range(4)]
    threshold = choose_threshold(made, ImageList(normal), false_alarm=0.3)
    image = normal[0].copy()
    image[60:, :] = 255
    (clean,) = jaxad.predict(made, [image], threshold=threshold)
    assert not clean.anomalous
    assert not clean.mask.any()
    image[20:30, 20:30] = 255
    (found,) = jaxad.predict(made, [image], threshold=threshold)
    assert found.anomalous
    x0, y0, x1, y1 = found.box
    assert found.mask.any()
    assert not found.mask[~REGION.inside(100, 90)].any()
    assert (x0, y0) >= (15, 7)
    assert x1 <= 57
    assert y1 <= 49


def test_pixels_outside_enter_no_metric_and_defects_end_there():
    rng = np.random.default_rng(1)
    maps, masks = rng.random((3, 20, 20)).astype(np.float32), rng.random((3, 20, 20)) > 0.8
    masks[2] = False
    inside = [np.zeros((20, 20), bool) for _ in range(3)]
    for part in inside:
        part[:, :12] = True
    labels, scores = [1, 1, 0], [0.5, 0.6, 0.1]
    with_region, cropped = ClassMetrics(), ClassMetrics()
    with_region.update(scores, labels, maps, masks, inside=inside)
    cropped.update(scores, labels, maps[:, :, :12], masks[:, :, :12])
    for name, value in cropped.result().items():
        assert with_region.result()[name] == pytest.approx(value), name


def test_evaluation_leaves_out_what_lies_outside(parts):
    """A defect outside of the region makes no image anomalous."""
    test, made = parts.test, Brightness(side=56, step=8, tiling=None)
    everything = jaxad.evaluate(made, test, batch_size=4)["classes"]["disc"]
    made.regions = (("disc", Region.from_json({"box": [0, 0, 3, 3]})),)
    corner = jaxad.evaluate(made, test, batch_size=4)
    assert corner["config"]["regions"] == ["disc"]
    assert everything["n_anomalous"] > corner["classes"]["disc"]["n_anomalous"]
    assert corner["classes"]["tile"]["n_anomalous"] == everything["n_anomalous"]


def test_a_region_that_misses_an_image_names_it():
    far = detector(Region.from_json({"box": [500, 500, 600, 600]}))
    with pytest.raises(DataError, match=r"image-0.*region"):
        judged(far, smooth(SIDE, SIDE))


def test_a_run_records_its_region_and_flags_replace_it(tmp_path):
    from jaxad.testing import make_parts
    from tests.cli.shell import BANK
    from tests.cli.shell import jaxad as command

    data = f"folder:{make_parts(tmp_path / 'parts', ('disc',), train=10, test=2)}"
    (tmp_path / "parts/disc/roi.json").write_text('{"box": [0, 0, 40, 40]}')
    command("fit", "patch-bank", "--data", data, "--workdir", tmp_path / "run", *BANK)
    restored = jaxad.restore(tmp_path / "run")
    assert dict(restored.detector.regions) == {"disc": Region.from_json({"box": [0, 0, 40, 40]})}
    scores = {}
    for name, flags in {"run": (), "whole": ("--roi", '{"box": [0, 0, 56, 56]}')}.items():
        out = tmp_path / name
        command("predict", tmp_path / "parts/disc/test/blot", "--checkpoint", tmp_path / "run", "--out", out, *flags)
        scores[name] = (out / "predictions.jsonl").read_text()
    assert scores["run"] != scores["whole"]
    with pytest.raises(jaxad.errors.CheckpointError, match="another run"):
        command(
            "fit", "patch-bank", "--data", data, "--workdir", tmp_path / "run", *BANK, "--roi", '{"box": [0,0,9,9]}'
        )
