import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad.detectors._transformer import Attention
from jaxad.detectors.hvq_trans import Codebook
from jaxad.nn import module_state
from jaxad.nn.dropout import Dropout
from tests.detectors import peers

detector = peers.PEERS["hvq-trans"].make


@pytest.fixture(scope="module")
def encoded(parts):
    return peers.encoded(detector(), parts.train)


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


def test_inference_attends_as_training_without_dropout():
    attend = Attention(16, 2, dtype="float32", rngs=nnx.Rngs(0))
    x = [jax.random.normal(jax.random.key(n), (2, 9, 16)) for n in range(3)]
    idle, every = Dropout(0.0, None), np.ones((9, 9), bool)
    np.testing.assert_allclose(attend(*x, idle), attend(*x, idle, every), rtol=1e-5, atol=1e-6)
    assert not np.allclose(attend(*x, Dropout(0.5, jax.random.key(0))), attend(*x, idle), atol=1e-3)


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
    model = detector(commitment=0.0, dropout=0.0)
    found = peers.silent(model, lambda model: model.loss(encoded, jax.random.key(0))[1]["error"])
    assert found == {f"{name}/vectors" for name in ("top", "codebooks/0", "codebooks/1")}


def test_entries_and_features_move_toward_each_other(encoded):
    model = detector(dropout=0.0)
    total, terms = model.loss(encoded, jax.random.key(0))
    _, inputs, entries = model.quantize(model._standardize(encoded.tokens))
    apart = sum(float(np.square(np.asarray(z) - np.asarray(e)).mean()) for z, e in zip(inputs, entries, strict=True))
    assert float(terms["commitment"]) == pytest.approx(apart, rel=1e-5)
    assert float(terms["codebook"]) == pytest.approx(apart, rel=1e-5)
    assert float(total) == pytest.approx(float(terms["error"]) + 1.25 * apart, rel=1e-5)
    silent = {
        name: peers.silent(model, lambda model, name=name: model.loss(encoded, jax.random.key(0))[1][name])
        for name in ("commitment", "codebook")
    }
    trained = {path for path in module_state.split(model, nnx.Param, ...)[1] if not path.endswith("key/bias")}
    books = {path for path in trained if "vectors" in path}
    assert len(books) == 3
    assert trained - silent["codebook"] == books
    assert silent["commitment"] >= books
    assert "project_in/kernel" not in silent["commitment"]


def test_dropout_is_of_training_alone(encoded):
    model = detector(dropout=0.5)
    one, same, other = (float(model.loss(encoded, jax.random.key(seed))[0]) for seed in (0, 0, 1))
    assert one == same != other


def test_the_map_is_the_difference_and_transport(encoded):
    with_it, without = (
        np.asarray(peers.judged(detector(transport=weight), encoded).maps).reshape(4, 16) for weight in (2.0, 0.0)
    )
    model = detector()
    x = model._standardize(encoded.tokens)
    quantized, inputs, _ = model.quantize(x)
    difference = np.asarray(model.restore(quantized)) - np.asarray(x)
    np.testing.assert_allclose(without, np.linalg.norm(difference, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(with_it - without, 2 * model.codebooks[1].transport(inputs[2]), atol=1e-4)
