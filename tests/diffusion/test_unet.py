"""The U-Net on grids of any size; what it shares with the other denoisers is in detectors/dpdiff/test_denoiser.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad.diffusion.unet import PrototypeUNet, ResidualBlock


@pytest.mark.parametrize("grid", [(2, 2), (3, 5), (1, 4), (16, 16)])
def test_the_output_has_the_shape_of_the_input_on_any_grid(grid):
    def apply(x, prototypes, t):
        return PrototypeUNet(8, grid, width=8, heads=2, rngs=nnx.Rngs(0))(x, prototypes, t)

    n = grid[0] * grid[1]
    inputs = (jax.ShapeDtypeStruct(shape, kind) for shape, kind in (((3, n, 8), "f4"), ((3, 2, 8), "f4"), ((3,), "i4")))
    output = jax.eval_shape(apply, *inputs)
    chex.assert_shape(output, (3, n, 8))
    chex.assert_type(output, jnp.float32)


def test_a_new_residual_block_passes_its_input_on():
    block = ResidualBlock(8, 8, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 8)).astype(np.float32)
    np.testing.assert_allclose(block(x, np.ones((2, 4), np.float32)), x, atol=1e-6)
