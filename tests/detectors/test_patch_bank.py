import numpy as np
import pytest

import jaxad
from jaxad.config import PatchBankConfig
from jaxad.detectors.patch_bank import PatchBank
from jaxad.errors import DataError
from jaxad.features import Encoder, FeatureCache
from jaxad.inference.predictor import Predictor
from jaxad.types import Features


def bank(**changes):
    return PatchBank.create(PatchBankConfig(**{"backbone": "random:32x2", "image_size": 56} | changes))


def features(model, source):
    return np.concatenate([encoded.tokens for encoded, _ in Encoder(model, batch_size=8).stream(source)])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_map_is_the_distance_to_the_nearest_patch_of_all_categories(parts, distance):
    model = bank(distance=distance, bank_size=10_000, chunk=50).remember(parts.train)
    known = features(model, parts.train).reshape(-1, 32).astype(np.float64)
    assert model.banks[...].shape == (1, len(known), 32)
    x = features(model, parts.test)[0].astype(np.float64)
    if distance == "cosine":
        known, unit = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (known, x))
        expected = (1 - unit @ known.T).min(-1)
    else:
        expected = np.linalg.norm(x[:, None] - known[None], axis=-1).min(-1)
    encoded, loaded = next(Encoder(model, batch_size=2).stream(parts.test))
    found = model.judge(encoded, loaded.batch, None).maps[0]
    np.testing.assert_allclose(np.asarray(found).ravel(), expected, rtol=1e-3, atol=1e-5)


def test_one_bank_for_each_category(parts):
    model = bank(per_category=True, bank_size=60).remember(parts.train)
    assert model.banks[...].shape == (2, 60, 32)
    assert model.categories == ("disc", "tile")
    output = next(Predictor(model, batch_size=16).stream(parts.test))
    assert np.isfinite(output.maps).all()
    disc, tile = (jaxad.predict(model, parts.test.records[0].file, category=name)[0] for name in ("disc", "tile"))
    assert parts.test.records[0].category == "disc"
    assert disc.score < tile.score
    np.testing.assert_allclose(disc.score, output.scores[0], rtol=1e-5)


def test_unknown_categories_are_named_where_they_matter(parts):
    model = bank(per_category=True, bank_size=60).remember(parts.train)
    for category in ("", "bolt"):
        with pytest.raises(DataError, match="knows disc, tile"):
            jaxad.predict(model, parts.test.records[0].file, category=category)
    assert jaxad.predict(bank(bank_size=60).remember(parts.train), parts.test.records[0].file, category="bolt")


@pytest.mark.parametrize("subsampling", ["random", "coreset"])
def test_bank_keeps_patches_of_the_training_images_and_the_same_every_time(parts, subsampling):
    one, two = (bank(bank_size=30, subsampling=subsampling, distance="euclidean").remember(parts.train) for _ in "ab")
    np.testing.assert_array_equal(one.banks[...], two.banks[...])
    known = features(one, parts.train).reshape(-1, 32)
    kept = np.asarray(one.banks[...])[0]
    assert kept.shape == (30, 32)
    assert len(np.unique(kept, axis=0)) == 30
    for entry in kept:
        assert np.abs(known - entry).max(-1).min() < 1e-4


def test_a_coreset_covers_the_directions_that_the_cosine_searches(parts):
    model = bank(bank_size=4, subsampling="coreset", distance="cosine")
    directions = np.arange(16 * len(parts.train)) % 4
    tokens = 0.1 * np.eye(32, dtype=np.float32)[directions]
    # One direction has patches of very different lengths, far from each other in any other space.
    tokens *= np.where(directions == 0, np.arange(len(tokens)) + 1, 1)[:, None].astype(np.float32)
    cache = FeatureCache(Features(tokens.reshape(-1, 16, 32), (4, 4)), "")
    found = np.asarray(model.remember(parts.train, features=cache).banks[...])[0]
    np.testing.assert_allclose(found[np.lexsort(found.T[::-1])][::-1], np.eye(4, 32), atol=1e-6)


def test_other_seeds_keep_other_patches(parts):
    one, two = (bank(bank_size=30, seed=seed).remember(parts.train) for seed in (0, 1))
    assert not np.array_equal(one.banks[...], two.banks[...])
