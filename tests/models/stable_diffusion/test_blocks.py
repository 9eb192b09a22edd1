import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf, expit, softmax

from jaxad.models.stable_diffusion.blocks import (
    ResnetBlock,
    SpatialAttention,
    SpatialTransformer,
    attention_and_probabilities,
)
from jaxad.nn import module_state
from jaxad.nn.attention import attention
from tests.models.stable_diffusion.made_checkpoints import randomized


class Rngs:
    def params(self):
        return jax.random.key(0)


def made(make):
    module = randomized(nnx.eval_shape(make))
    return module, {path: np.asarray(a, np.float64) for path, a in module_state.split(module)[1].items()}


def error(actual, expected):
    return np.abs(np.asarray(actual) - expected).max() / np.sqrt(np.mean(expected**2))


def linear(p, name, x):
    return x @ p[f"{name}/kernel"] + p.get(f"{name}/bias", 0)


def group_norm(p, name, x, groups, eps):
    grouped = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    grouped = grouped - grouped.mean((1, 3), keepdims=True)
    grouped = grouped / np.sqrt(grouped.var((1, 3), keepdims=True) + eps)
    return grouped.reshape(x.shape) * p[f"{name}/scale"] + p[f"{name}/bias"]


def layer_norm(p, name, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p[f"{name}/scale"] + p[f"{name}/bias"]


def convolution(p, name, x):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("bhwcij,ijco->bhwo", windows, p[f"{name}/kernel"]) + p[f"{name}/bias"]


def attend(p, name, x, context, heads):
    q, k, v = (
        np.stack(np.split(linear(p, f"{name}/{part}", source), heads, -1), 1)
        for part, source in (("to_q", x), ("to_k", context), ("to_v", context))
    )
    probabilities = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), axis=-1)
    return linear(p, f"{name}/to_out", np.concatenate(list((probabilities @ v).swapaxes(0, 1)), -1)), probabilities


def silu(x):
    return x * expit(x)


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(2, 3, 5, 8))


@pytest.mark.parametrize("n_out", [8, 12])
def test_resnet_block_equals_numpy_reference(x, n_out):
    block, p = made(lambda: ResnetBlock(8, n_out, groups=4, eps=1e-2, time_width=6, dtype=jnp.float32, rngs=Rngs()))
    temb = np.random.default_rng(2).normal(size=(2, 6))
    h = convolution(p, "conv1", silu(group_norm(p, "norm1", x, 4, 1e-2)))
    h = h + linear(p, "time_emb_proj", silu(temb))[:, None, None]
    h = convolution(p, "conv2", silu(group_norm(p, "norm2", h, 4, 1e-2)))
    expected = h + (linear(p, "conv_shortcut", x) if n_out != 8 else x)
    with jax.default_matmul_precision("highest"):
        actual = jax.jit(block)(jnp.asarray(x, jnp.float32), jnp.asarray(temb, jnp.float32))
    assert error(actual, expected) < 1e-5


def test_spatial_attention_equals_numpy_reference(x):
    block, p = made(lambda: SpatialAttention(8, groups=2, eps=1e-6, dtype=jnp.float32, rngs=Rngs()))
    tokens = group_norm(p, "group_norm", x, 2, 1e-6).reshape(2, 15, 8)
    expected = x + attend(p, "attention", tokens, tokens, 1)[0].reshape(x.shape)
    with jax.default_matmul_precision("highest"):
        assert error(jax.jit(block)(jnp.asarray(x, jnp.float32)), expected) < 1e-5


def test_spatial_transformer_equals_numpy_reference(x):
    block, p = made(lambda: SpatialTransformer(8, 6, 2, groups=4, dtype=jnp.float32, rngs=Rngs()))
    context = np.random.default_rng(2).normal(size=(2, 7, 6))
    tokens = linear(p, "proj_in", group_norm(p, "norm", x, 4, 1e-6)).reshape(2, 15, 8)
    normed = layer_norm(p, "block/norm1", tokens)
    tokens = tokens + attend(p, "block/attn1", normed, normed, 2)[0]
    y, probabilities = attend(p, "block/attn2", layer_norm(p, "block/norm2", tokens), context, 2)
    tokens = tokens + y
    value, gate = np.split(linear(p, "block/ff/proj", layer_norm(p, "block/norm3", tokens)), 2, -1)
    tokens = tokens + linear(p, "block/ff/out", value * gate * 0.5 * (1 + erf(gate / np.sqrt(2))))
    expected = x + linear(p, "proj_out", tokens).reshape(x.shape)

    with jax.default_matmul_precision("highest"):
        run = jax.jit(lambda x, context: block(x, context, "each"))
        actual, found = run(jnp.asarray(x, jnp.float32), jnp.asarray(context, jnp.float32))
    assert error(actual, expected) < 1e-5
    assert error(found, probabilities.reshape(2, 2, 3, 5, 7)) < 1e-5


def test_attention_with_its_probabilities_equals_attention():
    rng = np.random.default_rng(5)
    query, key, value = (jnp.asarray(rng.normal(size=(2, n, 8)), jnp.float32) for n in (5, 3, 3))
    y, each = attention_and_probabilities(query, key, value, 4, "each")
    chex.assert_trees_all_close(y, attention(query, key, value, 4), atol=1e-6)
    chex.assert_shape(each, (2, 4, 5, 3))
    np.testing.assert_allclose(each.sum(-1), 1, rtol=1e-6)
    again, mean = attention_and_probabilities(query, key, value, 4, "mean")
    chex.assert_trees_all_close((again, mean), (y, each.mean(1)), rtol=1e-5)


def test_captured_attention_in_16_bits_is_near_that_in_32():
    rng = np.random.default_rng(0)
    exact = [jnp.asarray(rng.normal(size=(2, n, 128)), jnp.float32) for n in (64, 77, 77)]
    run = jax.jit(lambda q, k, v: attention_and_probabilities(q, k, v, 2, "mean")[1])
    found, expected = run(*[x.astype(jnp.bfloat16) for x in exact]), run(*exact)
    assert found.dtype == jnp.float32
    # Rounded logits are 0.15 % of it, a softmax in 16 bits would add more.
    assert jnp.sqrt(jnp.square(found / expected - 1).mean()) < 0.003
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_logits_of_captured_attention_are_computed_once():
    x = jnp.zeros((1, 5, 8))
    program = jax.make_jaxpr(lambda x: attention_and_probabilities(x, x, x, 2, "mean"))(x)
    assert str(program).count("dot_general") == 2 * 2
