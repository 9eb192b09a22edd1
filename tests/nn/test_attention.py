from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn import attention as module
from jaxad.nn.attention import attention


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("keys", [1, 11, 16, 32])
def test_attention_on_cpus_equals_the_usual_one(dtype, keys):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, n, 24)).astype(dtype) for n in (11, keys, keys))
    heads = (x.reshape(*x.shape[:2], 3, 8) for x in (q, k, v))
    expected = jax.jit(jax.nn.dot_product_attention)(*heads).reshape(q.shape)
    actual = jax.jit(attention, static_argnums=3)(q, k, v, 3)
    assert actual.dtype == dtype
    tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(actual.astype(np.float32), expected.astype(np.float32), atol=tolerance)


@pytest.mark.parametrize(("keys", "all_heads", "products"), [(16, 3 * 176, 2), (16, 3 * 176 - 1, 6), (17, 10_000, 6)])
def test_few_tokens_on_cpus_are_attended_to_by_all_heads_at_once(monkeypatch, keys, all_heads, products):
    """Where their rows fill vectors; output and gradients are those of one head after the other."""
    q, k, v = (np.random.default_rng(4).normal(size=(1, n, 24)).astype(np.float32) for n in (11, keys, keys))

    def run():
        def squares(q, k, v):
            y = attention(q, k, v, 3)
            return jnp.square(y).sum(), y

        return jax.value_and_grad(squares, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    monkeypatch.setattr(module, "ALL_HEADS", 0)
    module._by_platform.clear_cache()
    expected = run()
    monkeypatch.setattr(module, "ALL_HEADS", all_heads)
    module._by_platform.clear_cache()
    lowered = jax.jit(lambda q, k, v: attention(q, k, v, 3)).lower(q, k, v)
    assert lowered.as_text().count("stablehlo.dot_general") == products
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5), run(), expected)
    module._by_platform.clear_cache()


@pytest.mark.parametrize("cached", [130, 60], ids=["whole heads", "blocks of queries"])
def test_many_tokens_on_cpus_are_attended_to_block_by_block(monkeypatch, cached):
    """Output and gradients equal those of a few tokens, also where the last block is not full."""
    q, k, v = np.random.default_rng(3).normal(size=(3, 2, 11, 24)).astype(np.float32)

    def run():
        def squares(q, k, v):
            y = attention(q, k, v, 3)
            return jnp.square(y).sum(), y

        return jax.value_and_grad(squares, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    expected = run()
    monkeypatch.setattr(module, "CACHED", cached)
    module._by_platform.clear_cache()
    assert "scan" in str(jax.make_jaxpr(lambda q, k, v: attention(q, k, v, 3))(q, k, v))
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5), run(), expected)
    module._by_platform.clear_cache()


def test_causal_attention_on_cpus_equals_the_usual_one():
    q, k, v = np.random.default_rng(2).normal(size=(3, 2, 5, 8)).astype(np.float32)
    heads = (x.reshape(2, 5, 2, 4) for x in (q, k, v))
    expected = jax.jit(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True))(*heads).reshape(q.shape)
    actual = jax.jit(lambda q, k, v: attention(q, k, v, 2, causal=True))(q, k, v)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_gradient_on_cpus_equals_the_usual_one():
    q, k, v = np.random.default_rng(1).normal(size=(3, 2, 9, 24)).astype(np.float32)

    def usual(q, k, v):
        return jax.nn.dot_product_attention(*(x.reshape(2, 9, 3, 8) for x in (q, k, v))).reshape(q.shape)

    def squares(layer):
        return jax.grad(lambda *x: jnp.square(layer(*x)).sum(), argnums=(0, 1, 2))(q, k, v)

    for actual, expected in zip(squares(lambda *x: attention(*x, 3)), squares(usual), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_wrong_shapes_are_named():
    x = np.zeros((2, 5, 8), np.float32)
    with pytest.raises(AssertionError, match="query"):
        attention(x[0], x, x, 2)
    with pytest.raises(AssertionError, match="key and value"):
        attention(x, x, x[:, 1:], 2)
    with pytest.raises(AssertionError, match="heads"):
        attention(x, x, x, 3)
