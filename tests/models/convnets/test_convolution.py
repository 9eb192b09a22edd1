import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.errors import ConfigError
from jaxad.models.convnets import convolution
from jaxad.models.convnets.convolution import ConvNorm, max_pool, to_grid
from jaxad.models.convnets.resnet import abstract_resnet
from jaxad.nn import module_state
from tests.models.convnets.made_checkpoints import BASIC

RNG = np.random.default_rng(0)
# Zeros above and below 9 rows, left and right of 8 columns, for a kernel of 3 and stride 2.
ZEROS = {"symmetric": ((1, 1), (1, 1)), "same": ((1, 1), (0, 1)), "trailing": ((0, 1), (0, 1))}


def windows(x, size, stride):
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    starts = [(row * stride, column * stride) for row in range(rows) for column in range(columns)]
    cut = np.stack([x[:, r : r + size, c : c + size] for r, c in starts], axis=1)
    return cut.reshape(len(x), rows, columns, size, size, -1)


@pytest.mark.parametrize("padding", ZEROS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution_then_batch_norm_then_activation(padding, depthwise):
    outputs = 4 if depthwise else 6
    layer = ConvNorm(
        4, outputs, 3, 2, depthwise=depthwise, padding=padding, activation=jax.nn.relu, eps=0.1, dtype=jnp.float32
    )
    graphdef, arrays = module_state.split(layer)
    arrays = {path: RNG.normal(size=array.shape).astype(np.float32) for path, array in arrays.items()}
    arrays["norm/var"] = np.square(arrays["norm/var"])
    x = RNG.normal(size=(2, 9, 8, 4)).astype(np.float32)
    cut = windows(np.pad(x, ((0, 0), *ZEROS[padding], (0, 0))), 3, 2)
    if depthwise:
        y = np.einsum("bhwijc,ijc->bhwc", cut, arrays["kernel"][:, :, 0])
    else:
        y = np.einsum("bhwijc,ijco->bhwo", cut, arrays["kernel"])
    y = (y - arrays["norm/mean"]) / np.sqrt(arrays["norm/var"] + 0.1) * arrays["norm/scale"] + arrays["norm/bias"]
    actual = jax.jit(lambda arrays, x: module_state.merge(graphdef, arrays)(x))(arrays, x)
    np.testing.assert_allclose(actual, np.maximum(y, 0), atol=1e-4)


def test_cpus_convolve_depthwise_as_other_devices_do():
    x, kernel = RNG.normal(size=(2, 9, 7, 6)).astype(np.float32), RNG.normal(size=(3, 3, 1, 6)).astype(np.float32)
    settings = {"stride": 2, "zeros": [(0, 1), (1, 1)]}
    on_cpu = jax.jit(functools.partial(convolution._convolve_depthwise, **settings))(x, kernel)
    elsewhere = jax.jit(functools.partial(convolution._convolve, **settings, groups=6))(x, kernel)
    np.testing.assert_allclose(on_cpu, elsewhere, atol=1e-4)


def test_maximum_of_windows_ignores_what_lies_outside():
    x = -1 - RNG.uniform(size=(1, 8, 6, 2)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    np.testing.assert_array_equal(max_pool(x, 3, 2), windows(padded, 3, 2).max((3, 4)))


def test_finer_features_are_averaged_over_cells_and_coarser_ones_interpolated():
    x = RNG.normal(size=(1, 4, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(to_grid(x, (2, 3))[0, 1, 2], x[0, 2:, 4:].mean((0, 1)), atol=1e-6)
    np.testing.assert_array_equal(to_grid(x, (4, 6)), x)
    grown = to_grid(x, (8, 12))
    np.testing.assert_allclose(grown[0, 0, 0], x[0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(
        grown[0, 1, 1], (9 * x[0, 0, 0] + 3 * (x[0, 0, 1] + x[0, 1, 0]) + x[0, 1, 1]) / 16, atol=1e-5
    )


def test_stages_and_sizes_that_do_not_exist_are_named():
    network = abstract_resnet(BASIC)
    assert network.grid((64, 32)) == (4, 2)
    with pytest.raises(ConfigError, match="56 x 64 pixels: both sides must be multiples of 16"):
        network.grid((56, 64))
    with pytest.raises(ConfigError, match=r"stages = \[2, 4\]: needs one or more of 0 to 3"):
        network.taps(np.zeros((1, 32, 32, 3)), (4, 2))


@pytest.mark.parametrize(("platform", "grouped"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_a_depthwise_convolution_lowers_for_every_platform(platform, grouped):
    """CPUs alone get shifted images in place of a grouped convolution, on which they are slow."""
    layer = ConvNorm(4, 4, 3, depthwise=True, eps=1e-5, dtype=jnp.bfloat16)
    traced = jax.jit(lambda x: layer(x)).trace(jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.bfloat16))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("feature_group_count = 4" in text) == grouped
