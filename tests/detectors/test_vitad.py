import dataclasses

import jax
import numpy as np
import pytest

from tests.detectors import peers

detector = peers.PEERS["vitad"].make


@pytest.fixture(scope="module")
def encoded(parts):
    return peers.encoded(detector(), parts.train)


def test_the_neck_alone_is_seen_and_the_others_are_restored(parts, encoded):
    model = detector()
    images = np.stack([np.asarray(jax.image.resize(parts.train[i].image, (56, 56, 3), "linear")) for i in range(4)])
    taps = model.backbone.network.taps(model.backbone.normalization(images.astype(np.uint8)), range(4))
    for part, block in zip(model.split(encoded), range(4), strict=True):
        np.testing.assert_allclose(part, np.asarray(taps[block])[:, 1:], atol=1e-4)
    restored = np.stack(model.restore(encoded))
    assert restored.shape == (2, 4, 16, 32)
    changed = encoded.tokens.copy()
    changed[..., :64] = 0
    np.testing.assert_array_equal(np.stack(model.restore(dataclasses.replace(encoded, tokens=changed))), restored)
    for neck in range(2, 4):
        changed = encoded.tokens.copy()
        changed[:, 3, 32 * neck : 32 * neck + 32] += np.random.default_rng(0).normal(size=32)
        moved = np.stack(model.restore(dataclasses.replace(encoded, tokens=changed))) != restored
        assert moved.any(-1).all()


def test_the_last_half_of_the_decoder_restores_the_shallow_block(encoded):
    model = detector()
    before = np.stack(model.restore(encoded))
    model.decoder[3].fc2.bias[...] += 1.0
    after = np.stack(model.restore(encoded))
    np.testing.assert_array_equal(before[1], after[1])
    np.testing.assert_allclose(after[0] - before[0], 1, atol=1e-5)
    model.decoder[1].fc2.bias[...] += 1.0
    np.testing.assert_allclose(np.asarray(model.restore(encoded)[1]) - before[1], 1, atol=1e-5)
