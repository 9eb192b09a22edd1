"""Feature caches on disk that are not what they say are made anew; encoding works ahead."""

import jax
import numpy as np
import pytest

from jaxad import parallel
from jaxad.features import Encoder, FeatureCache
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


@pytest.mark.parametrize("way", ["stream", "kept"])
def test_the_next_batch_is_under_way_while_one_is_fetched(parts, monkeypatch, way):
    """Devices would wait for the host, and the host for them, if each batch were fetched as soon as it is asked for."""
    encoder, events = Encoder(toy_model(), batch_size=4), []
    name, to_host = "_encode" if way == "stream" else "_encode_kept", parallel.to_host
    encode = getattr(encoder, name)
    monkeypatch.setattr(encoder, name, lambda *a: events.append("begun") or encode(*a))
    monkeypatch.setattr(parallel, "to_host", lambda tree: events.append("fetched") or to_host(tree))
    found = list(getattr(encoder, way)(parts.train, indices=range(10)))
    assert len(found) == 3
    assert events == ["begun", "begun", "fetched", "begun", "fetched", "fetched"]
