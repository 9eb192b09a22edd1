"""Prototypes and their losses against Eq. 10 to 13 of DPDiff-AD in float64."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf, logsumexp

from jaxad.memory.prototypes import PrototypeExtractor, cosine_similarity, global_loss, local_loss
from jaxad.nn import module_state

EPSILON = 0.05


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("pre_norm", "heads"), [(True, 2), (True, 4), (False, 2)])
def test_extractor_is_equation_10(pre_norm, heads):
    # With three prototypes, two heads have fewer queries than there are channels, four have more.
    channels = 8
    module = PrototypeExtractor(3, channels, heads=heads, mlp_ratio=2, pre_norm=pre_norm, rngs=nnx.Rngs(0))
    graphdef, arrays = module_state.split(module)
    rng = np.random.default_rng(0)
    arrays = {path: np.asarray(a) + 0.3 * rng.normal(size=a.shape).astype(np.float32) for path, a in arrays.items()}
    tokens = numbers(2, 5, channels, seed=1)
    result = jax.jit(lambda x: module_state.merge(graphdef, arrays)(x))(tokens)

    def dense(name, x):
        return x @ arrays[f"{name}/kernel"] + arrays[f"{name}/bias"]

    def norm(name, x):
        if not pre_norm:
            return x
        normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return normed * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]

    for image, prototypes in zip(tokens.astype(np.float64), np.asarray(result), strict=True):
        queries = arrays["queries"].astype(np.float64)
        q = dense("query", norm("norm", queries))
        k, v = np.split(dense("key_value", norm("norm", image)), 2, -1)
        attended = []
        for one in np.split(np.arange(channels), heads):
            logits = q[:, one] @ k[:, one].T / np.sqrt(channels / heads)
            attended.append(np.exp(logits - logsumexp(logits, -1, keepdims=True)) @ v[:, one])
        x = queries + dense("attention_out", np.concatenate(attended, -1))
        y = dense("mlp_in", norm("mlp_norm", x))
        expected = x + dense("mlp_out", y * 0.5 * (1 + erf(y / np.sqrt(2))))
        np.testing.assert_allclose(prototypes, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_few_queries_attend_as_they_would_to_all_keys_and_values(dtype, tolerance):
    module = PrototypeExtractor(3, 32, heads=4, dtype=dtype, rngs=nnx.Rngs(0))
    graphdef, arrays = module_state.split(module)
    rng = np.random.default_rng(0)
    arrays = {path: a + 0.3 * rng.normal(size=a.shape).astype(np.float32) for path, a in arrays.items()}
    query, tokens, wanted = (numbers(2, n, 32, seed=n).astype(dtype) for n in (3, 10, 3))

    @partial(jax.jit, static_argnums=0)
    def results(name, arrays, query, tokens):
        def total(arrays, query, tokens):
            mixed = getattr(module_state.merge(graphdef, arrays), name)(query, tokens)
            return (mixed.astype(jnp.float32) * wanted.astype(jnp.float32)).sum(), mixed

        gradients, mixed = jax.grad(total, (0, 1, 2), has_aux=True)(arrays, query, tokens)
        return mixed, gradients

    few, all_ = (results(name, arrays, query, tokens) for name in ("_few_attend", "_attend"))
    # The bias of the keys has no gradient but for rounding.
    for found, expected in zip(jax.tree.leaves(few), jax.tree.leaves(all_), strict=True):
        assert found.dtype == expected.dtype
        scale = max(float(jnp.abs(expected).max()), 1.0)
        found, expected = (np.asarray(x, np.float64) / scale for x in (found, expected))
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_prototypes_are_those_of_the_image_alone():
    graphdef, arrays = module_state.split(PrototypeExtractor(3, 8, heads=2, rngs=nnx.Rngs(0)))
    module = jax.jit(lambda x: module_state.merge(graphdef, arrays)(x))
    tokens = numbers(4, 5, 8)
    prototypes = module(tokens)
    chex.assert_shape(prototypes, (4, 3, 8))
    np.testing.assert_allclose(module(tokens[2:3]), prototypes[2:3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(module(tokens[:, ::-1]), prototypes, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(prototypes[0] - prototypes[1]).max()) > 1e-4


def test_local_loss_by_hand():
    tokens = np.array([[[1, 0], [0, 2], [-3, 0], [1, 1]]], np.float32)
    prototypes = np.array([[[5, 0], [0, 0.1]]], np.float32)
    # Cosines to the nearer prototype: 1, 1, 0 and 1 / sqrt(2).
    assert float(local_loss(tokens, prototypes)) == pytest.approx((0 + 0 + 1 + 1 - 2**-0.5) / 4, abs=1e-6)
    assert float(local_loss(tokens, np.array([[[-1, -1]]], np.float32))) == pytest.approx(
        1 + (2**-0.5 + 2**-0.5 - 2**-0.5 + 1) / 4, abs=1e-6
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_local_loss_lies_between_0_and_2_and_ignores_lengths(scale):
    tokens = numbers(2, 6, 4)
    assert float(local_loss(tokens, scale * tokens[:, :1])) <= 2
    assert float(local_loss(tokens, scale * tokens)) == pytest.approx(0, abs=1e-5)
    assert float(local_loss(tokens[:, :1], -scale * tokens[:, :1])) == pytest.approx(2, abs=1e-5)


def test_cosine_of_a_zero_vector_is_finite():
    assert np.isfinite(cosine_similarity(np.zeros((1, 2, 3), np.float32), numbers(1, 2, 3))).all()
    gradient = jax.grad(lambda x: cosine_similarity(x, numbers(1, 2, 3)).sum())(jnp.zeros((1, 2, 3)))
    assert np.isfinite(gradient).all()


def transport(tokens, prototypes, epsilon=EPSILON):
    """Equation 13 for one image in float64: the plan of Sinkhorn run to convergence, and the loss."""
    channels = tokens.shape[-1]
    squared = ((tokens[:, None].astype(np.float64) - prototypes[None]) ** 2).sum(-1)
    cost = squared / channels
    n, k = cost.shape
    f, g = np.zeros(n), np.zeros(k)
    for _ in range(20_000):
        g = epsilon * (-np.log(k) - logsumexp((f[:, None] - cost) / epsilon, axis=0))
        old, f = f, epsilon * (-np.log(n) - logsumexp((g[None] - cost) / epsilon, axis=1))
        if np.abs(f - old).max() < 1e-14:
            break
    plan = np.exp((f[:, None] + g[None] - cost) / epsilon)
    entropy = np.where(plan > 0, plan * np.log(np.where(plan > 0, plan, 1)), 0).sum()
    return plan, (plan * squared).sum() + channels * epsilon * entropy


@pytest.mark.parametrize("prototypes", [1, 2, 5])
def test_global_loss_is_equation_13(prototypes):
    x, p = numbers(3, 20, 6), numbers(3, prototypes, 6, seed=1)
    value, error = jax.jit(global_loss)(x, p)
    expected = np.mean([transport(*pair)[1] for pair in zip(x, p, strict=True)])
    assert float(value) == pytest.approx(expected, rel=1e-3)
    assert float(error) < 1e-4


@pytest.mark.parametrize("prototypes", [2, 4])
def test_sinkhorn_marginals_hold_at_the_size_of_dinov2(prototypes):
    # Tokens in clusters of unequal size around the prototypes, as in training: the slowest case for Sinkhorn.
    p = numbers(2, prototypes, 384, seed=1)
    members = np.random.default_rng(2).integers(0, prototypes + 1, 256) % prototypes
    _, error = jax.jit(global_loss)(0.7 * numbers(2, 256, 384) + p[:, members], p)
    assert float(error) < 1e-4


def test_one_global_prototype_gives_the_mean_squared_distance():
    x, p = numbers(2, 10, 6), numbers(2, 1, 6, seed=1)
    value, _ = jax.jit(global_loss)(x, p)
    # The only plan is uniform, 1/n everywhere, and sum T log T = -log n.
    expected = ((x - p) ** 2).sum(-1).mean() - 6 * EPSILON * np.log(10)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_global_loss_of_a_batch_is_the_mean_over_its_images():
    x, p = numbers(3, 12, 6), numbers(3, 2, 6, seed=1)
    solve = jax.jit(global_loss)
    single = [float(solve(x[i : i + 1], p[i : i + 1])[0]) for i in range(3)]
    assert float(solve(x, p)[0]) == pytest.approx(np.mean(single), rel=1e-4)


def test_gradient_of_the_global_loss_is_that_of_the_converged_value():
    x, p = numbers(1, 12, 4), numbers(1, 3, 4, seed=1)
    gradient = jax.jit(jax.grad(lambda p: global_loss(x, p, iterations=500)[0]))(p)
    for place in [(0, 0), (1, 2), (2, 3)]:
        step = np.zeros((3, 4))
        step[place] = 1e-4
        slope = (transport(x[0], p[0] + step)[1] - transport(x[0], p[0] - step)[1]) / 2e-4
        assert float(gradient[0][place]) == pytest.approx(slope, rel=5e-3, abs=5e-3)


def test_the_error_reported_is_that_of_the_worse_marginal():
    x, p = 2 * numbers(2, 30, 4), 2 * numbers(2, 4, 4, seed=1)
    solve = jax.jit(global_loss, static_argnames="iterations")
    errors = [float(solve(x, p, iterations=n)[1]) for n in (10, 5000)]
    assert errors[0] > 1e-2
    assert errors[1] < 1e-4


def test_global_loss_survives_the_strictest_rank_promotion_under_jit_and_gradient():
    with jax.numpy_rank_promotion("raise"):
        gradient = jax.jit(jax.grad(lambda p: global_loss(numbers(2, 8, 4), p)[0]))(numbers(2, 2, 4, seed=1))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("measure", [cosine_similarity, local_loss, global_loss])
def test_wrong_shapes_are_named(measure):
    with pytest.raises(AssertionError, match=r"tokens must be \[b n c\]"):
        measure(numbers(8, 4), numbers(1, 2, 4))
    with pytest.raises(AssertionError, match=r"prototypes must be \[b k c\]"):
        measure(numbers(1, 8, 4), numbers(1, 2, 5))
