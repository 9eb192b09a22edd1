import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad import parallel
from jaxad.data import ImageList
from jaxad.errors import ConfigError, DataError
from jaxad.inference.predictor import Predictor


@pytest.fixture(scope="module")
def images(parts, tmp_path_factory):
    """Five test images, one of another size, and their copies under other names in another folder."""
    files = [record.file for record in parts.test.records[:4]]
    folder = tmp_path_factory.mktemp("images")
    odd = folder / "odd.png"
    Image.open(files[0]).resize((90, 70)).save(odd)
    originals = [*files, odd]
    copies = [folder / "copies" / f"{name}.png" for name in ("z", "a", "m", "b", "y")]
    copies[0].parent.mkdir()
    for original, copy in zip(originals, copies, strict=True):
        shutil.copy(original, copy)
    return originals, copies


@pytest.fixture(scope="module")
def alone(trained, images):
    """Every image judged on its own."""
    predictor = Predictor(trained.model, batch_size=1)
    outputs = [next(predictor.stream(ImageList([file]))) for file in images[0]]
    return np.concatenate([o.scores for o in outputs]), np.concatenate([o.maps for o in outputs])


def assert_same(scores, maps, alone, order=slice(None)):
    np.testing.assert_allclose(scores, alone[0][order], rtol=1e-5)
    np.testing.assert_allclose(maps, alone[1][order], rtol=1e-5, atol=1e-5 * np.abs(alone[1]).max())


@pytest.mark.parametrize(("batch_size", "devices"), [(3, 2), (8, 2), (8, 1)])
def test_prediction_depends_on_the_pixels_alone(trained, images, alone, batch_size, devices):
    """On a single CPU a batch of 8 is two parts, the second of them one image and padding."""
    originals, copies = images
    mesh = parallel.make_mesh(devices=jax.devices()[:devices])
    predictor = Predictor(trained.model, batch_size=batch_size, mesh=mesh)
    for files in (originals, copies):
        for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [3, 3, 3]):
            outputs = list(predictor.stream(ImageList([files[i] for i in order])))
            scores, maps = (np.concatenate([getattr(o, name) for o in outputs]) for name in ("scores", "maps"))
            assert_same(scores, maps, alone, order)


def test_prediction_does_not_depend_on_how_the_image_is_handed_over(trained, images, alone):
    loaded = [Image.open(file) for file in images[0]]
    arrays = [np.asarray(image) for image in loaded]
    predictor = Predictor(trained.model, batch_size=8)
    for given in (loaded, arrays):
        output = next(predictor.stream(ImageList(given, category="disc")))
        assert_same(output.scores, output.maps, alone)


def test_images_differ_in_noise_and_maps(alone):
    scores, maps = alone
    assert len(np.unique(scores)) == len(scores)
    assert np.abs(maps[0] - maps[4]).max() > 1e-3


def test_one_changed_pixel_changes_the_noise(trained, images):
    image = np.asarray(Image.open(images[0][0])).copy()
    changed = image.copy()
    changed[0, 0] ^= 1
    first, second = jaxad.predict(trained.model, [image, changed])
    assert np.abs(first.map - second.map).max() > 0.05 * first.map.max()


def test_answers_are_at_the_size_of_the_image_with_the_threshold_applied(trained, images):
    limits = trained.threshold.of("disc")
    predictions = jaxad.predict(trained.model, images[0], threshold=trained.threshold, category="disc")
    assert [Path(p.file) for p in predictions] == images[0]
    assert predictions[4].map.shape == (70, 90)
    for p in predictions:
        assert p.anomalous == (p.score > limits.image)
        assert p.threshold == limits.image
        assert (p.box is not None) == p.anomalous
        np.testing.assert_array_equal(p.mask, p.map > limits.pixel)
        if p.box is not None:
            x0, y0, x1, y1 = p.box
            assert 0 <= x0 < x1 <= p.map.shape[1]
            assert 0 <= y0 < y1 <= p.map.shape[0]
        assert p.to_json().keys() == {"file", "category", "score", "threshold", "anomalous", "box", "scaled", "model"}


def test_an_anomalous_image_always_has_a_box(trained, images):
    from dataclasses import replace

    low = {"": replace(trained.threshold.limits[""], image=0.0, pixel=1e9)}
    prediction = jaxad.predict(trained.model, images[0][:1], threshold=replace(trained.threshold, limits=low))[0]
    assert prediction.anomalous
    assert prediction.box is not None
    assert not prediction.mask.any()


def test_without_threshold_there_is_no_verdict(trained, images):
    prediction = jaxad.predict(trained.model, images[0][0])[0]
    assert prediction.threshold is prediction.anomalous is prediction.box is prediction.mask is None
    assert prediction.map.shape == (56, 56)


def test_every_unreadable_image_is_named_before_work_starts(trained, images, tmp_path):
    for name in ("one.png", "two.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        jaxad.predict(trained.model, [images[0][0], tmp_path / "one.png", tmp_path / "two.jpg"])
    assert "one.png" in str(error.value)
    assert "two.jpg" in str(error.value)
    assert str(images[0][0]) not in str(error.value)


def test_a_threshold_is_valid_in_its_own_protocol_alone(trained, images):
    with pytest.raises(ConfigError, match="exact-448"):
        jaxad.predict(trained.model, images[0][:1], threshold=trained.threshold, protocol="exact-448")
