"""PatchGAN's discriminator without torch; tests/parity/test_autoencoder_losses.py compares it with torch."""

import jax
import numpy as np

from jaxad.models.convnets.patch_discriminator import (
    BatchStatisticsNorm,
    abstract_discriminator,
    key_map,
    new_discriminator,
)
from jaxad.models.weights.key_map import to_torch
from jaxad.nn import module_state


def test_published_shape():
    """3 layers of 64 channels: 2.8 million parameters, a logit for each of 30 x 30 patches of 256 pixels."""
    arrays = module_state.split(abstract_discriminator())[1]
    assert sum(int(np.prod(array.shape)) for array in arrays.values()) == 2_765_633
    logits = jax.eval_shape(new_discriminator(0), np.zeros((2, 256, 256, 3), np.float32))
    assert logits.shape == (2, 30, 30, 1)


def test_new_one_depends_on_its_seed_alone():
    first, second, other = (module_state.split(new_discriminator(seed, width=4))[1] for seed in (0, 0, 1))
    assert all(np.array_equal(first[path], second[path]) for path in first)
    assert not np.array_equal(first["last/kernel"], other["last/kernel"])
    kernels = np.concatenate([np.ravel(array) for path, array in first.items() if path.endswith("kernel")])
    np.testing.assert_allclose(kernels.std(), 0.02, rtol=0.05)
    np.testing.assert_array_equal(first["convs/0/bias"], 0)


def test_norm_takes_the_statistics_of_the_batch():
    x = np.random.default_rng(0).normal(5, 3, (2, 4, 4, 3)).astype(np.float32)
    y = BatchStatisticsNorm(3)(x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-3)


def test_names_of_latent_diffusion():
    names = to_torch(new_discriminator(0, width=2), key_map(3))
    places = {0: ("weight", "bias"), 2: ("weight",), 3: ("weight", "bias"), 5: ("weight",), 6: ("weight", "bias")}
    places |= {8: ("weight",), 9: ("weight", "bias"), 11: ("weight", "bias")}
    assert names.keys() == {f"main.{place}.{leaf}" for place, leaves in places.items() for leaf in leaves}
