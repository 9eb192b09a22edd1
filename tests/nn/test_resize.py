import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn import resize


@pytest.mark.parametrize(("size", "target"), [(16, 256), (32, 448), (64, 33)])
def test_half_pixel_bilinear_is_jax_image_resize(size, target):
    map = np.random.default_rng(0).standard_normal((size, 5)).astype(np.float32)
    expected = jax.image.resize(jnp.asarray(map), (target, 5), "linear", antialias=False)
    np.testing.assert_allclose(resize.bilinear(size, target) @ map, expected, atol=3e-5)


@pytest.mark.parametrize(("size", "target"), [(16, 256), (256, 16), (7, 7), (5, 1), (1, 5)])
def test_aligned_bilinear_interpolates_between_the_corners(size, target):
    values = np.random.default_rng(0).standard_normal(size)
    expected = np.interp(np.linspace(0, size - 1, target) if target > 1 else [0], np.arange(size), values)
    np.testing.assert_allclose(resize.bilinear(size, target, align_corners=True) @ values, expected, atol=1e-12)


@pytest.mark.parametrize("matrix", [resize.bilinear, resize.bicubic, resize.antialiased_bicubic])
@pytest.mark.parametrize(("size", "target"), [(37, 16), (5, 9), (4, 1), (1, 3), (6, 6)])
def test_constants_stay(matrix, size, target):
    np.testing.assert_allclose(matrix(size, target).sum(1), np.ones(target), atol=1e-12)


@pytest.mark.parametrize("matrix", [resize.bilinear, resize.bicubic, resize.antialiased_bicubic])
def test_own_size_is_left_alone(matrix):
    np.testing.assert_allclose(matrix(6, 6), np.eye(6), atol=1e-12)


class Images(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_rows_and_columns_are_resized_apart(self):
        images = np.random.default_rng(0).standard_normal((2, 5, 7, 3)).astype(np.float32)
        actual = self.variant(lambda images: resize.resize_bilinear(images, (9, 4)))(images)
        expected = jax.image.resize(images, (2, 9, 4, 3), "bilinear", antialias=False)
        chex.assert_trees_all_close(actual, expected, atol=1e-5)

    def test_wrong_rank_is_named(self):
        with pytest.raises(AssertionError, match="images"):
            resize.resize_bilinear(np.zeros((5, 7, 3)), (9, 4))
