"""Programs of inference live with their detector, and follow its parameters and settings."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad.data.batches import padded_size
from jaxad.inference.predictor import Predictor
from jaxad.testing import toy_model
from tests.compilations import counted

IMAGES = [np.random.default_rng(seed).integers(0, 255, (60, 56, 3), np.uint8) for seed in range(5)]


@pytest.fixture(scope="module")
def model():
    detector = toy_model()
    jaxad.predict(detector, IMAGES[:4])
    return detector


def test_another_folder_and_a_last_batch_compile_nothing(model, parts):
    with counted() as counts:
        jaxad.predict(model, IMAGES[1:4])
        jaxad.predict(model, IMAGES, batch_size=4)
        jaxad.evaluate(model, parts.test, batch_size=4)
        jaxad.choose_threshold(model, parts.holdout, batch_size=4)
    assert counts["programs"] == 0
    with counted() as counts:
        jaxad.predict(model, IMAGES[:4], protocol="exact-448")
    assert counts["programs"] > 0


def test_changed_parameters_change_the_answer_without_compiling(model):
    detector = nnx.clone(model)
    (first,) = jaxad.predict(detector, IMAGES[0])
    kernel = detector.denoiser.project_out.kernel
    kernel[...] = jax.random.normal(jax.random.key(1), kernel.shape)
    with counted() as counts:
        (changed,) = jaxad.predict(detector, IMAGES[0])
    assert counts["programs"] == 0
    (fresh,) = jaxad.predict(nnx.clone(detector), IMAGES[0])
    assert abs(changed.score - first.score) > 1e-3 * abs(first.score)
    np.testing.assert_array_equal(changed.map, fresh.map)


def test_changed_settings_change_the_program(model):
    detector = nnx.clone(model)
    (first,) = jaxad.predict(detector, IMAGES[0])
    detector.config = dataclasses.replace(detector.config, residual="cosine")
    (changed,) = jaxad.predict(detector, IMAGES[0])
    (fresh,) = jaxad.predict(nnx.clone(detector), IMAGES[0])
    assert changed.score == fresh.score != first.score


@pytest.mark.usefixtures("few_collected")
def test_programs_go_with_their_detector():
    detector = toy_model()
    programs = weakref.ref(Predictor(detector, batch_size=2)._programs)
    assert Predictor(detector, batch_size=4)._programs is programs()
    gone = weakref.ref(detector)
    del detector
    gc.collect()
    assert gone() is None
    assert programs() is None


def test_few_sizes_are_compiled():
    assert [padded_size(images, 16) for images in (1, 2, 3, 5, 15, 16, 100)] == [1, 2, 4, 8, 16, 16, 16]
    assert [padded_size(images, 12) for images in (3, 9, 13)] == [4, 12, 12]
    assert padded_size(3, 1) == 1
