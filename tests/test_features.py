"""Feature caches on disk that are not what they say are made anew."""

import jax
import numpy as np
import pytest

from jaxad.features import FeatureCache
from jaxad.testing import toy_model


@pytest.mark.parametrize("damage", ["cut off", "other array", "pickle"])
def test_a_damaged_cache_is_made_anew(parts, tmp_path, damage):
    model, source = toy_model(), parts.train
    first = jax.tree.map(np.array, FeatureCache.build(model, source, folder=tmp_path)[np.arange(len(source))])
    file = tmp_path / "0.npy"
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        np.save(file, np.zeros(3) if damage == "other array" else np.array([{}], object))
    again = FeatureCache.build(model, source, folder=tmp_path)[np.arange(len(source))]
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
