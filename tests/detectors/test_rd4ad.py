import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad.detectors.rd4ad import Block
from tests.detectors import peers

detector = peers.PEERS["rd4ad"].make


@pytest.fixture(scope="module")
def encoded(parts):
    return peers.encoded(detector(), parts.train)


def test_features_are_the_patches_of_the_blocks_side_by_side(parts, encoded):
    model = detector()
    images = np.stack([np.asarray(jax.image.resize(parts.train[i].image, (56, 56, 3), "linear")) for i in range(4)])
    taps = model.backbone.network.taps(model.backbone.normalization(images.astype(np.uint8)), (0, 1, 3))
    for part, block in zip(model.split(encoded), (0, 1, 3), strict=True):
        np.testing.assert_allclose(part, np.asarray(taps[block])[:, 1:], atol=1e-4)


@pytest.mark.parametrize(("step", "sides"), [("same", (4, 6)), ("half", (2, 3)), ("double", (8, 12))])
def test_blocks_keep_halve_or_double_rows_and_columns(step, sides):
    block = Block(8, 16, step, dtype="float32", rngs=nnx.Rngs(0))
    assert block(jnp.ones((2, 4, 6, 8))).shape == (2, *sides, 16)


def test_the_student_goes_from_the_deepest_block_to_the_shallowest(encoded):
    model = detector()
    before = model.restore(encoded)
    assert [array.shape for array in before] == [(4, 16, 32)] * 3
    assert min(float(array.min()) for array in before) < 0
    model.student[1][1].norm3.bias[...] += 1.0
    after = model.restore(encoded)
    moved = [float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(before, after, strict=True)]
    assert moved[2] == 0
    assert moved[1] == pytest.approx(1, abs=1e-5)
    assert moved[0] > 0


def test_loss_and_map_sum_what_cosines_lack(encoded):
    model = detector()
    targets, restored = (list(map(np.asarray, arrays)) for arrays in (model.split(encoded), model.restore(encoded)))

    def lacking(x, y):
        return 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)

    pairs = [*zip(targets, restored, strict=True)]
    maps = np.asarray(peers.judged(model, encoded).maps)
    np.testing.assert_allclose(maps.reshape(4, 16), sum(lacking(*pair) for pair in pairs), atol=1e-5)
    total, terms = model.loss(encoded, jax.random.key(0))
    each = [lacking(x.reshape(4, -1), y.reshape(4, -1)).mean() for x, y in pairs]
    assert set(terms) == {"block_0", "block_1", "block_3"}
    np.testing.assert_allclose([terms[f"block_{block}"] for block in (0, 1, 3)], each, atol=1e-5)
    assert float(total) == pytest.approx(sum(each), abs=1e-5)
