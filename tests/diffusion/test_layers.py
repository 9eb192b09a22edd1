"""What the denoisers share: positions, and inputs of the wrong shape that are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad.diffusion.dit import PrototypeDiT
from jaxad.diffusion.layers import PrototypeAttention, plain_norm, sincos_positions
from jaxad.diffusion.unet import PrototypeUNet
from jaxad.diffusion.uvit import PrototypeUViT
from jaxad.nn import precision

X, PROTOTYPES, T = (
    jax.ShapeDtypeStruct(shape, kind) for shape, kind in (((2, 6, 8), "f4"), ((2, 3, 8), "f4"), ((2,), "i4"))
)


def test_positions_are_those_of_mae():
    positions = sincos_positions((3, 5), 16)
    assert positions.shape == (15, 16)
    for row in range(3):
        for column in range(5):
            for i in range(4):
                angle = [place / 10000 ** (i / 4) for place in (column, row)]
                expected = [np.sin(angle[0]), np.cos(angle[0]), np.sin(angle[1]), np.cos(angle[1])]
                np.testing.assert_allclose(positions[row * 5 + column, i::4], expected, atol=1e-6)


def test_plain_norm_has_mean_zero_and_variance_one():
    x = 3 + 2 * np.random.default_rng(0).normal(size=(2, 5, 64)).astype(np.float32)
    normed = np.asarray(plain_norm(x))
    np.testing.assert_allclose(normed.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(normed.var(-1), 1, atol=1e-4)


@pytest.mark.parametrize("denoiser", [PrototypeDiT, PrototypeUNet, PrototypeUViT])
def test_wrong_inputs_are_named_while_tracing(denoiser):
    depth = {} if denoiser is PrototypeUNet else {"depth": 1}

    def apply(x, prototypes, t):
        return jax.eval_shape(denoiser(8, (2, 3), width=8, heads=2, rngs=nnx.Rngs(0), **depth), x, prototypes, t)

    def like(a, shape, kind=None):
        return jax.ShapeDtypeStruct(shape, kind or a.dtype)

    for wrong, message in (
        ((like(X, (2, 5, 8)), PROTOTYPES, T), r"x must be \[b 6 8\]"),
        ((like(X, (6, 8)), PROTOTYPES, T), r"x must be \[b 6 8\]"),
        ((X, like(PROTOTYPES, (1, 3, 8)), T), r"prototypes must be \[b k 8\]"),
        ((X, None, T), "prototypes must be given"),
        ((X, PROTOTYPES, like(T, ())), r"t must be \[b\]"),
        ((X, PROTOTYPES, like(T, (3,))), r"t must be \[b\]"),
        ((X, PROTOTYPES, like(T, (2,), "f4")), "t must hold integers"),
    ):
        with pytest.raises(AssertionError, match=message):
            apply(*wrong)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_to_few_prototypes_is_that_to_many_of_which_all_but_few_are_the_same(dtype):
    """Weights of equal keys share their softmax, so that repeating all prototypes changes nothing but the way."""
    layer = PrototypeAttention(32, 24, 4, dtype=dtype, rngs=nnx.Rngs(0))
    layer.query.bias[...], layer.out.bias[...] = (jnp.linspace(-1, 1, 32) * sign for sign in (1, -1))
    rng = np.random.default_rng(0)
    x, prototypes = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 9, 32), (2, 3, 24)))
    few, many = layer(x, prototypes), layer(x, np.tile(prototypes, (1, 4, 1)))
    np.testing.assert_allclose(few, many, atol=1e-5 if dtype == jnp.float32 else 3e-2)
    assert np.abs(np.asarray(few) - np.asarray(few).mean(1, keepdims=True)).max() > 0.1


def test_no_product_of_attention_to_few_prototypes_writes_logits_in_float32(monkeypatch):
    """Nor of its gradient, on accelerators; CPUs write all in float32."""
    monkeypatch.setattr(precision, "target_platform", lambda: "tpu")
    layer = PrototypeAttention(32, 24, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x, prototypes = jnp.ones((2, 9, 32)), jnp.ones((2, 3, 24))
    text = jax.jit(jax.grad(lambda x: layer(x, prototypes).sum())).lower(x).as_text()
    results = [line.rsplit("->", 1)[1] for line in text.splitlines() if "dot_general" in line]
    logits = [shape for shape in results if "2x9x12x" in shape]
    assert len(logits) == 2
    assert all("2x9x12xbf16" in shape for shape in logits)
