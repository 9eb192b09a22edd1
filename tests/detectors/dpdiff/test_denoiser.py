"""U-Net and U-ViT as denoisers, and what all three have in common."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad import DPDiffConfig
from jaxad.detectors.dpdiff.denoiser import make_denoiser
from jaxad.nn import module_state

GRID, CHANNELS, PROTOTYPES = (3, 5), 16, 4


def build(name, **changes):
    """Abstract structure and parameters drawn so that no gate is closed."""
    settings = {"denoiser": name, "heads": 2, "depth": 3, "width": 8} | changes
    rngs = SimpleNamespace(params=lambda: jax.random.key(0))
    config = DPDiffConfig(**settings)
    module = nnx.eval_shape(lambda: make_denoiser(config, CHANNELS, GRID, dtype=jnp.float32, rngs=rngs))
    graphdef, shapes = module_state.split(module)
    rng = np.random.default_rng(0)
    arrays = {
        path: jnp.asarray(path.endswith("scale") + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)
        for path, leaf in shapes.items()
    }
    return graphdef, arrays


def inputs():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 15, CHANNELS)).astype(np.float32)
    return x, rng.normal(size=(2, PROTOTYPES, CHANNELS)).astype(np.float32), np.array([30, 200])


@pytest.fixture(scope="module", params=["unet", "uvit"])
def denoiser(request):
    graphdef, arrays = build(request.param)

    @jax.jit
    def apply(arrays, x, prototypes, t):
        return module_state.merge(graphdef, arrays)(x, prototypes, t)

    return apply, arrays


def test_prototypes_time_and_distant_tokens_matter(denoiser):
    apply, arrays = denoiser
    x, prototypes, t = inputs()
    output = np.asarray(apply(arrays, x, prototypes, t))
    assert output.shape == x.shape
    assert output.dtype == np.float32
    farther = x.copy()
    farther[:, -1] += 1
    for changed in (
        apply(arrays, x, prototypes + 0.5 * x[:, :4], t),
        apply(arrays, x, prototypes, t + 300),
        np.asarray(apply(arrays, farther, prototypes, t))[:, :1] - output[:, :1] + output,
    ):
        assert np.abs(np.asarray(changed) - output).max() > 1e-4


@pytest.mark.parametrize("name", ["dit", "unet", "uvit"])
def test_one_timestep_counts_for_all_images(name):
    graphdef, arrays = build(name)
    x, prototypes, _ = inputs()
    model = module_state.merge(graphdef, arrays)
    expected = np.asarray(model(x, prototypes, np.array([200, 200])))
    np.testing.assert_allclose(model(x, prototypes, np.array([200])), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(model(x, prototypes, np.array([30]))) - expected).max() > 1e-3


def test_order_of_prototypes_and_other_images_do_not_matter(denoiser):
    apply, arrays = denoiser
    x, prototypes, t = inputs()
    output = np.asarray(apply(arrays, x, prototypes, t))
    np.testing.assert_allclose(apply(arrays, x, prototypes[:, ::-1], t), output, rtol=1e-4, atol=1e-4)
    swapped = apply(arrays, x[::-1], prototypes[::-1], t[::-1])
    np.testing.assert_allclose(swapped[::-1], output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["unet", "uvit"])
def test_gradient_reaches_every_parameter_and_output_starts_at_zero(name):
    graphdef, arrays = build(name)
    x, prototypes, t = inputs()
    loss = lambda a: jnp.square(module_state.merge(graphdef, a)(x, prototypes, t) - x).mean()  # noqa: E731
    compiled = jax.jit(jax.value_and_grad(loss))
    value, gradients = compiled(arrays)
    assert [path for path, g in gradients.items() if not np.abs(g).max() > 0] == []
    closed = {
        path: jnp.zeros_like(array) if path.startswith("project_out") else array for path, array in arrays.items()
    }
    assert float(value) != pytest.approx(float(np.square(x).mean()))
    assert float(compiled(closed)[0]) == pytest.approx(float(np.square(x).mean()), rel=1e-5)


@pytest.mark.parametrize("name", ["dit", "uvit"])
def test_tokens_keep_their_positions_wherever_they_stand(name):
    graphdef, arrays = build(name)
    apply = jax.jit(lambda arrays, *inputs: module_state.merge(graphdef, arrays)(*inputs))
    x, prototypes, t = inputs()
    places = np.stack([np.random.default_rng(image).permutation(15) for image in range(2)])
    moved = np.take_along_axis(x, places[..., None], axis=1)
    expected = np.take_along_axis(np.asarray(apply(arrays, x, prototypes, t)), places[..., None], axis=1)
    np.testing.assert_allclose(apply(arrays, moved, prototypes, t, places), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(apply(arrays, moved, prototypes, t) - expected).max() > 1e-2
    assert apply(arrays, moved[:, :6], prototypes, t, places[:, :6]).shape == (2, 6, CHANNELS)


@pytest.mark.parametrize("name", ["unet", "uvit"])
def test_without_prototypes_nothing_attends_to_them(name):
    graphdef, arrays = build(name, local_prototypes=0, global_prototypes=0, depth=2)
    assert not [path for path in arrays if "prototype" in path]
    x, _, t = inputs()
    shape = jax.eval_shape(lambda a: module_state.merge(graphdef, a)(x, None, t), arrays)
    assert shape.shape == x.shape


def test_parameter_counts_at_published_width_lie_within_a_quarter_of_the_dit():
    rngs = SimpleNamespace(params=lambda: jax.random.key(0))

    def parameters(name):
        config = DPDiffConfig(denoiser=name)
        module = nnx.eval_shape(lambda: make_denoiser(config, 768, (32, 32), dtype=jnp.float32, rngs=rngs))
        return sum(int(np.prod(leaf.shape)) for leaf in module_state.split(module)[1].values())

    dit = parameters("dit")
    assert parameters("unet") == pytest.approx(dit, rel=0.25)
    assert parameters("uvit") == pytest.approx(dit, rel=0.25)
