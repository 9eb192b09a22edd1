"""The protocol of DiAD and VLMDiff on masks that hold codes, as VisA's do, against a plain evaluation."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import jaxad
from jaxad.data import Region, Tiling
from jaxad.data.decode import decode_gray_mask, decode_mask
from jaxad.inference.predictor import Predictor
from jaxad.metrics import protocol
from tests.inference.test_tiled import Brightness
from tests.oracles import aupro_diad, image_metrics, pixel_metrics

SIDE = 320


def code_folder(root, code: int):
    """One category whose masks mark a defect of 4 px, a line and a blot by a code."""
    rng = np.random.default_rng(7)
    shapes = np.zeros((4, SIDE, SIDE), bool)
    shapes[0, 100:102, 50:52] = True
    shapes[1, 30:33, 20:300] = True
    shapes[2, 200:260, 100:190] = shapes[2, 20:22, 20:22] = True
    shapes[3, 5:8, 5:8] = shapes[3, 300:319, 300:319] = True
    for place in range(10):
        image = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3) * 200 + 120
        kind, number = ("spot", place) if place < 4 else ("good", place)
        if kind == "spot":
            image += 60 * shapes[place]
            mask = root / "pcb" / "ground_truth" / "spot" / f"{number:03d}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shapes[place].astype(np.uint8) * code).save(mask)
        file = root / "pcb" / "test" / kind / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(file)
    return jaxad.data.load(f"folder:{root}").test


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 255])
def test_codes_are_resized_as_they_are(trained, tmp_path, code):
    source = code_folder(tmp_path, code)
    report = jaxad.evaluate(trained.model, source, protocol="diad", batch_size=8)["classes"]["pcb"]
    # Batches of another size round otherwise, and may move a pixel past a threshold.
    outputs = list(Predictor(trained.model, "diad", batch_size=8).stream(source))
    scores, maps = (np.concatenate([getattr(o, name) for o in outputs]) for name in ("scores", "maps"))
    masks = np.zeros(maps.shape, bool)
    for place, record in enumerate(source.records):
        if record.mask is not None:
            gray = Image.open(record.mask).convert("L").resize((256, 256), Image.Resampling.BILINEAR)
            masks[place] = np.asarray(gray) > 0
    labels = masks.any(axis=(1, 2)).astype(int)
    expected = image_metrics(labels, scores) | pixel_metrics(maps, masks) | {"aupro": aupro_diad(maps, masks)}
    for name in ("image_auroc", "pixel_auroc"):
        expected[name] = max(expected[name], 1 - expected[name])
    assert report["n_anomalous"] == labels.sum()
    assert {name: report[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("region", [None, Region.from_json({"box": [0, 0, SIDE, SIDE]})])
@pytest.mark.parametrize("tiling", [None, Tiling(128)])
@pytest.mark.parametrize("resolution", ["image", "tile"])
def test_codes_are_resized_as_they_are_of_tiles_and_regions(tmp_path, region, tiling, resolution):
    source, made = code_folder(tmp_path, 1), Brightness(side=32, tiling=tiling)
    made.regions = () if region is None else (("", region),)
    for output in Predictor(made, "diad", batch_size=4).stream(source, masks=True, resolution=resolution):
        size = output.maps.shape[1:]
        assert size == ((640, 640) if tiling and resolution == "tile" else (256, 256))
        for record, mask in zip(output.loaded.records, output.loaded.masks, strict=True):
            assert (mask is None) == (record.mask is None)
            if mask is not None:
                gray = Image.open(record.mask).convert("L").resize(size[::-1], Image.Resampling.BILINEAR)
                np.testing.assert_array_equal(mask, np.asarray(gray) > 0)


def test_little_is_left_of_a_small_defect_with_a_low_code():
    mask = np.zeros((1024, 1024), np.uint8)
    mask[500:504, 500:504] = 1
    white = mask * 255
    diad, ours = protocol("diad"), protocol("exact-256")
    assert diad.resize_mask(mask).sum() < diad.resize_mask(white).sum()
    np.testing.assert_array_equal(diad.resize_mask(white), diad.resize_mask(white > 0))
    np.testing.assert_array_equal(ours.resize_mask(mask), ours.resize_mask(white))


def test_the_gray_values_of_a_mask_are_those_of_its_file(tmp_path):
    levels = np.array([[0, 1, 5], [255, 0, 3]], np.uint8)
    Image.fromarray(levels).save(tmp_path / "codes.png")
    np.testing.assert_array_equal(decode_gray_mask(tmp_path / "codes.png"), levels)
    Image.fromarray(levels.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    deep = decode_gray_mask(tmp_path / "deep.png")
    np.testing.assert_array_equal(deep, np.minimum(levels.astype(int) * 200, 255))
    for name in ("codes", "deep"):
        file = tmp_path / f"{name}.png"
        np.testing.assert_array_equal(decode_gray_mask(file) > 0, decode_mask(file))


def test_sources_that_know_no_gray_values_have_white_masks(trained, tmp_path):
    source = code_folder(tmp_path, 1)

    class Others:
        """A source of another package, as `jaxad.types.Source` has it."""

        records, categories = source.records, source.categories

        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            return source[index]

        def mask(self, index):
            return source.mask(index)

        def fingerprint(self, index):
            return source.fingerprint(index)

    predictor = Predictor(trained.model, "diad", batch_size=4)
    white, gray = (
        sum(
            int(mask.sum())
            for batch in predictor.stream(each, masks=True)
            for mask in batch.loaded.masks
            if mask is not None
        )
        for each in (Others(), source)
    )
    assert white > gray
