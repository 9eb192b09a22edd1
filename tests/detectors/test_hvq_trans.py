from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad.config import HVQTransConfig, TrainConfig
from jaxad.detectors.hvq_trans import Codebook, HVQTrans
from jaxad.errors import ConfigError
from jaxad.features import Encoder
from jaxad.nn import module_state
from jaxad.testing import BACKBONE, check_detector
from jaxad.types import Batch

CONFIG: dict[str, Any] = {"backbone": BACKBONE, "image_size": 56, "width": 16, "heads": 2, "hidden": 32, "depth": 2}
CONFIG |= {"entries": 12, "transport": 2.0}
TRAINING: dict[str, Any] = {"learning_rate": 2e-2, "clip_norm": 0.1, "steps": 40, "batch_size": 4}
TRAINING |= {"checkpoint_every": 40}


def detector(**changes):
    return HVQTrans.create(HVQTransConfig(**CONFIG | changes), key=jax.random.key(0))


@pytest.fixture(scope="module")
def encoded(parts):
    return next(Encoder(detector(), batch_size=4).stream(parts.train))[0]


def parameters(model):
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)
    return trained, lambda params: module_state.merge(graphdef, rest | params)


def test_the_nearest_entry_is_taken():
    codebook = Codebook(7, 5, rngs=nnx.Rngs(0))
    z = jax.random.normal(jax.random.key(1), (2, 9, 5))
    vectors = np.asarray(codebook.vectors[...])
    distance = np.linalg.norm(np.asarray(z)[:, :, None] - vectors, axis=-1)
    np.testing.assert_array_equal(codebook.nearest(z), vectors[distance.argmin(-1)])
    assert len(np.unique(distance.argmin(-1))) > 2


def test_transport_is_the_likely_distance_to_all_entries():
    codebook = Codebook(7, 5, rngs=nnx.Rngs(0))
    z = 3 * np.random.default_rng(0).normal(size=(2, 9, 5)).astype(np.float32)
    vectors = np.asarray(codebook.vectors[...])
    cosines = z @ vectors.T / np.linalg.norm(z, axis=-1, keepdims=True) / np.linalg.norm(vectors, axis=-1)
    likely = np.exp(z @ vectors.T / 7)
    expected = ((1 - cosines) * likely).sum(-1) / likely.sum(-1)
    np.testing.assert_allclose(codebook.transport(jnp.asarray(z)), expected, rtol=1e-4)


def test_the_hierarchy_goes_from_the_last_layer_to_the_first(encoded):
    model = detector()
    x = model._standardize(encoded.tokens)
    quantized, inputs, entries = model.quantize(x)
    assert [array.shape for array in quantized] == [(4, 16, 32)] * 2
    assert [array.shape for array in inputs] == [(4, 16, 16), (4, 16, 32), (4, 16, 32)]
    for array, entry in zip(quantized, entries[1:], strict=True):
        np.testing.assert_allclose(array, entry, atol=1e-6)
    for array in inputs[1:]:
        np.testing.assert_allclose(array[..., 16:], entries[0], atol=1e-6)
    np.testing.assert_array_equal(inputs[2][..., :16], model.project_in(x))


@pytest.mark.parametrize("standardize", ["channel", "none"])
def test_codebooks_begin_as_features_of_training_images(encoded, standardize):
    model = detector(standardize=standardize)
    model.prepare(iter([encoded, encoded]))
    x = model._standardize(encoded.tokens)
    assert (float(np.abs(np.asarray(x).mean((0, 1))).max()) < 1e-3) == (standardize == "channel")
    _, inputs, entries = model.quantize(x)
    for z, entry, codebook in zip(inputs, entries, (model.top, *model.codebooks), strict=True):
        features, vectors = np.asarray(z).reshape(-1, z.shape[-1]), np.asarray(codebook.vectors[...])
        distance = np.linalg.norm(features[:, None] - vectors, axis=-1)
        assert distance.min(0).max() < 1e-4
        taken = np.unique(np.asarray(entry).reshape(-1, z.shape[-1])[:, 0])
        assert len(taken) > 6


def test_gradients_of_the_error_reach_the_encoder_and_no_codebook(encoded):
    trained, merged = parameters(detector(commitment=0.0, dropout=0.0))

    def error(params):
        return merged(params).loss(encoded, jax.random.key(0))[1]["error"]

    gradients = jax.jit(jax.grad(error))(trained)
    books = {path for path in gradients if "vectors" in path}
    assert len(books) == 3
    silent = {path for path, g in gradients.items() if not np.abs(g).max() > 0 and "key/bias" not in path}
    assert silent == books


def test_entries_and_features_move_toward_each_other(encoded):
    model = detector(dropout=0.0)
    total, terms = model.loss(encoded, jax.random.key(0))
    _, inputs, entries = model.quantize(model._standardize(encoded.tokens))
    apart = sum(float(np.square(np.asarray(z) - np.asarray(e)).mean()) for z, e in zip(inputs, entries, strict=True))
    assert float(terms["commitment"]) == pytest.approx(apart, rel=1e-5)
    assert float(terms["codebook"]) == pytest.approx(apart, rel=1e-5)
    assert float(total) == pytest.approx(float(terms["error"]) + 1.25 * apart, rel=1e-5)
    trained, merged = parameters(model)
    grad = jax.jit(
        jax.grad(lambda params, name: merged(params).loss(encoded, jax.random.key(0))[1][name]), static_argnums=1
    )
    reached = {
        name: {p for p, g in grad(trained, name).items() if np.abs(g).max() > 0} for name in ("commitment", "codebook")
    }
    assert all("vectors" in path for path in reached["codebook"])
    assert len(reached["codebook"]) == 3
    assert not any("vectors" in path for path in reached["commitment"])
    assert any("project_in" in path for path in reached["commitment"])


def test_dropout_is_of_training_alone(encoded):
    model = detector(dropout=0.5)
    one, same, other = (float(model.loss(encoded, jax.random.key(seed))[0]) for seed in (0, 0, 1))
    assert one == same != other


def test_the_map_is_the_difference_and_transport(encoded):
    batch = Batch({}, np.zeros(4, np.uint32), np.ones(4, bool))
    with_it, without = (
        np.asarray(detector(transport=weight).judge(encoded, batch, np.zeros(4)).maps).reshape(4, 16)
        for weight in (2.0, 0.0)
    )
    model = detector()
    x = model._standardize(encoded.tokens)
    quantized, inputs, _ = model.quantize(x)
    difference = np.asarray(model.restore(quantized)) - np.asarray(x)
    np.testing.assert_allclose(without, np.linalg.norm(difference, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(with_it - without, 2 * model.codebooks[1].transport(inputs[2]), atol=1e-4)


def test_it_is_fitted_and_restored_and_finds_defects(parts, tmp_path):
    run = jaxad.fit(detector(), parts.train, TrainConfig(**TRAINING), workdir=tmp_path / "run")
    check_detector(run.model, parts.test)
    again = jaxad.restore(tmp_path / "run").detector
    mean = jaxad.evaluate(again, parts.test)["mean"]
    assert mean["image_auroc"] > 0.8


def test_what_cannot_work_is_listed():
    with pytest.raises(ConfigError, match="width = 18") as error:
        detector(width=18, entries=0, dropout=1.0, commitment=-1.0, transport=-1.0)
    assert all(name in str(error.value) for name in ("entries", "dropout", "commitment", "transport"))


def test_trainings_of_the_presets():
    paper, small = HVQTransConfig.training("paper"), HVQTransConfig.training("small", steps=5)
    assert (paper.batch_size, paper.learning_rate, paper.weight_decay, paper.clip_norm) == (16, 1e-4, 1e-4, 0.1)
    assert (small.steps, small.schedule) == (5, "cosine")
