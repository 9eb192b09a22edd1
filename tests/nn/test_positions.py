import jax
import numpy as np
import pytest

from jaxad.errors import ConfigError
from jaxad.nn.positions import resize_matrix, resize_positions


def slow_bicubic(values: np.ndarray, new: int, scale: float) -> np.ndarray:
    """Four taps of Keys' kernel with a = -0.75 about every output position, borders clamped."""
    a, outputs = -0.75, []
    for i in range(new):
        center = (i + 0.5) / scale - 0.5
        base, total = int(np.floor(center)), 0.0
        for tap in range(base - 1, base + 3):
            x = abs(center - tap)
            if x <= 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                weight = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            total += weight * values[min(max(tap, 0), len(values) - 1)]
        outputs.append(total)
    return np.array(outputs)


@pytest.mark.parametrize(("old", "new"), [(37, 32), (37, 16), (5, 5), (5, 9), (16, 37), (4, 1)])
@pytest.mark.parametrize(("interpolation", "offset"), [("bicubic", 0.0), ("dinomaly", 0.1)])
def test_bicubic_equals_slow_reference(old, new, interpolation, offset):
    values = np.random.default_rng(0).normal(size=old)
    expected = slow_bicubic(values, new, (new + offset) / old)
    np.testing.assert_allclose(resize_matrix(old, new, interpolation) @ values, expected, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(37, 32), (37, 16), (5, 9), (16, 64)])
def test_antialias_equals_jax_image_resize(old, new):
    values = np.random.default_rng(0).normal(size=(old, 3)).astype(np.float32)
    expected = jax.image.resize(values, (new, 3), "cubic", antialias=True)
    np.testing.assert_allclose(resize_matrix(old, new, "antialias") @ values, expected, atol=1e-5)


def test_variants_differ_where_papers_differ():
    """Otherwise the option would be without effect."""
    matrices = [resize_matrix(37, 32, interpolation) for interpolation in ("bicubic", "antialias", "dinomaly")]
    assert abs(matrices[0] - matrices[1]).max() > 0.1
    assert abs(matrices[0] - matrices[2]).max() > 0.01


def test_unknown_interpolation_is_named():
    with pytest.raises(ConfigError, match="'nearest'"):
        resize_matrix(4, 5, "nearest")  # type: ignore[arg-type]


def test_rows_and_columns_are_not_mixed_up():
    """A field that varies along rows only still does after its grid became oblong."""
    field = np.broadcast_to(np.arange(5.0).reshape(5, 1, 1), (5, 5, 2)).reshape(1, 25, 2)
    resized = np.asarray(resize_positions(field, (3, 8), "bicubic")).reshape(3, 8, 2)
    np.testing.assert_allclose(resized, np.broadcast_to(resized[:, :1, :1], resized.shape), atol=1e-6)
    assert (np.diff(resized[:, 0, 0]) > 1).all()


def test_own_grid_is_left_alone_even_with_offset():
    positions = np.random.default_rng(0).normal(size=(1, 25, 2)).astype(np.float32)
    np.testing.assert_array_equal(resize_positions(positions, (5, 5), "dinomaly"), positions)
