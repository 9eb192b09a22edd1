import jax
import numpy as np
import pytest

from jaxad.diffusion.window import random_windows, window_shape


@pytest.mark.parametrize(
    ("tokens", "grid", "shape"),
    [(256, (32, 32), (16, 16)), (8, (9, 9), (2, 4)), (1, (4, 4), (1, 1)), (90, (3, 5), (3, 5)), (17, (8, 8), (4, 4))],
)
def test_windows_have_at_most_the_tokens_asked_for(tokens, grid, shape):
    assert window_shape(tokens, grid) == shape


def test_a_window_is_neighboring_rows_and_columns_of_a_grid_without_borders():
    places = np.asarray(random_windows(jax.random.key(0), 200, (5, 7), (2, 3)))
    rows, columns = places.reshape(200, 2, 3) // 7, places.reshape(200, 2, 3) % 7
    assert (rows == rows[:, :, :1]).all()
    assert (columns == columns[:, :1]).all()
    assert ((rows[:, 1] - rows[:, 0]) % 5 == 1).all()
    assert (np.diff(columns) % 7 == 1).all()
    assert len({tuple(image) for image in places}) > 30


def test_every_token_is_seen_equally_often():
    places = np.asarray(random_windows(jax.random.key(1), 20_000, (3, 4), (2, 2)))
    seen = np.bincount(places.ravel(), minlength=12) / 20_000
    np.testing.assert_allclose(seen, 4 / 12, atol=0.02)
