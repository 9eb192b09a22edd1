"""The diffusion transformer, its blocks, and what its output depends on."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad.diffusion.dit import PrototypeDiT
from jaxad.nn import module_state

GRID, CHANNELS, PROTOTYPES = (2, 3), 12, 4


def build(perturbed=True, **changes):
    settings = {"width": 16, "heads": 2, "depth": 1, "rngs": nnx.Rngs(0)} | changes
    model = PrototypeDiT(CHANNELS, GRID, **settings)
    if not perturbed:
        return model
    graphdef, arrays = module_state.split(model)
    rng = np.random.default_rng(0)
    moved = {
        path: array + jnp.asarray(0.1 * rng.normal(size=array.shape), array.dtype) for path, array in arrays.items()
    }
    return module_state.merge(graphdef, moved)


def apply(model, x, prototypes, t):
    graphdef, arrays = module_state.split(model)
    return jax.jit(lambda arrays, *inputs: module_state.merge(graphdef, arrays)(*inputs))(arrays, x, prototypes, t)


def inputs(batch=2):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(batch, 6, CHANNELS)).astype(np.float32)
    prototypes = rng.normal(size=(batch, PROTOTYPES, CHANNELS)).astype(np.float32)
    return x, prototypes, np.arange(10, 10 + batch) * 20


@pytest.mark.parametrize("depth", [1, 4, 12])
def test_output_is_exactly_zero_at_initialization_whatever_the_depth(depth):
    model = build(perturbed=False, depth=depth)
    assert len(model.blocks) == depth
    np.testing.assert_array_equal(apply(model, *inputs()), 0.0)


def test_prototypes_time_and_neighbors_matter_once_the_gates_are_open():
    model, (x, prototypes, t) = build(), inputs()
    output = np.asarray(apply(model, x, prototypes, t))
    chex.assert_shape(output, x.shape)
    assert np.abs(np.asarray(apply(model, x, prototypes + 0.5 * x[:, :4], t)) - output).max() > 1e-3
    assert np.abs(np.asarray(apply(model, x, prototypes, t + 300)) - output).max() > 1e-3
    changed = x.copy()
    changed[:, 5] += 1
    assert np.abs(np.asarray(apply(model, changed, prototypes, t)) - output)[:, :5].max() > 1e-5


def test_without_self_attention_tokens_do_not_see_each_other():
    model, (x, prototypes, t) = build(self_attention=False), inputs()
    changed = x.copy()
    changed[:, 5] += 1
    before, after = np.asarray(apply(model, x, prototypes, t)), np.asarray(apply(model, changed, prototypes, t))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before[:, 5] - after[:, 5]).max() > 1e-3


def test_images_of_a_batch_do_not_see_each_other():
    model, (x, prototypes, t) = build(), inputs(3)
    alone = apply(model, x[1:2], prototypes[1:2], t[1:2])
    np.testing.assert_allclose(apply(model, x, prototypes, t)[1:2], alone, rtol=1e-5, atol=1e-6)


def test_works_without_prototypes_and_has_no_parameters_for_them():
    model, (x, _, t) = build(prototypes=False), inputs()
    chex.assert_shape(apply(model, x, None, t), x.shape)
    assert not [path for path in module_state.split(model)[1] if "prototype" in path]


def test_order_of_prototypes_does_not_matter():
    model, (x, prototypes, t) = build(), inputs()
    np.testing.assert_allclose(
        apply(model, x, prototypes[:, ::-1], t), apply(model, x, prototypes, t), rtol=1e-5, atol=1e-6
    )


def test_block_is_adaln_as_written():
    model, (_, prototypes, _) = build(self_attention=False), inputs()
    block = model.blocks[0]
    h = np.random.default_rng(2).normal(size=(2, 6, 16)).astype(np.float32)
    condition = np.random.default_rng(3).normal(size=(2, 16)).astype(np.float32)

    def dense(layer, value):
        return value @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

    def norm(value):
        return (value - value.mean(-1, keepdims=True)) / np.sqrt(value.var(-1, keepdims=True) + 1e-6)

    shift, scale, gate, shift2, scale2, gate2 = np.split(dense(block.modulation, condition)[:, None], 6, -1)
    attend = block.prototype_attention
    p = norm(prototypes) * np.asarray(attend.norm.scale[...]) + np.asarray(attend.norm.bias[...])
    key, value = np.split(dense(attend.key_value, p), 2, -1)
    query = dense(attend.query, norm(h) * (1 + scale) + shift)
    expected = h + gate * dense(attend.out, plain_attention(query, key, value, 2))
    y = dense(block.mlp_in, norm(expected) * (1 + scale2) + shift2)
    y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    expected = expected + gate2 * dense(block.mlp_out, y)
    np.testing.assert_allclose(jax.jit(lambda: block(h, prototypes, condition))(), expected, rtol=1e-4, atol=1e-5)


def plain_attention(query, key, value, heads):
    parts = []
    for q, k, v in zip(*(np.split(a.astype(np.float64), heads, -1) for a in (query, key, value)), strict=True):
        logits = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        parts.append(weights / weights.sum(-1, keepdims=True) @ v)
    return np.concatenate(parts, -1)


def test_bfloat16_computes_close_to_float32_and_returns_float32():
    x, prototypes, t = inputs()
    exact, rough = apply(build(), x, prototypes, t), apply(build(dtype=jnp.bfloat16), x, prototypes, t)
    chex.assert_type(rough, jnp.float32)
    assert 0 < float(jnp.abs(rough - exact).max()) < 0.05 * float(jnp.abs(exact).max())


def test_gradient_reaches_every_parameter_once_the_gates_are_open():
    graphdef, arrays = module_state.split(build())
    x, prototypes, t = inputs()
    loss = lambda a: jnp.square(module_state.merge(graphdef, a)(x, prototypes, t) - x).mean()  # noqa: E731
    gradients = jax.jit(jax.grad(loss))(arrays)
    # A bias added to every key alike leaves the softmax as it is, so half of this one is free.
    assert [path for path, g in gradients.items() if not np.abs(g).max() > 0] == []
