from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad.config import RD4ADConfig, TrainConfig
from jaxad.detectors.rd4ad import RD4AD, Block
from jaxad.errors import ConfigError
from jaxad.features import Encoder
from jaxad.nn import module_state
from jaxad.testing import check_detector
from jaxad.types import Batch

CONFIG: dict[str, Any] = {"backbone": "random:32x4", "image_size": 56, "blocks": (0, 1, 3), "embedding_depth": 1}
CONFIG |= {"depths": (1, 2, 1)}
TRAINING: dict[str, Any] = {"learning_rate": 2e-3, "steps": 30, "batch_size": 4, "checkpoint_every": 30}


def detector(**changes):
    return RD4AD.create(RD4ADConfig(**CONFIG | changes), key=jax.random.key(0))


@pytest.fixture(scope="module")
def encoded(parts):
    return next(Encoder(detector(), batch_size=4).stream(parts.train))[0]


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
    batch = Batch({}, np.zeros(4, np.uint32), np.ones(4, bool))
    maps = np.asarray(model.judge(encoded, batch, np.zeros(4)).maps)
    np.testing.assert_allclose(maps.reshape(4, 16), sum(lacking(*pair) for pair in pairs), atol=1e-5)
    total, terms = model.loss(encoded, jax.random.key(0))
    each = [lacking(x.reshape(4, -1), y.reshape(4, -1)).mean() for x, y in pairs]
    assert set(terms) == {"block_0", "block_1", "block_3"}
    np.testing.assert_allclose([terms[f"block_{block}"] for block in (0, 1, 3)], each, atol=1e-5)
    assert float(total) == pytest.approx(sum(each), abs=1e-5)


def test_gradients_reach_all(encoded):
    graphdef, trained, rest = module_state.split(detector(), nnx.Param, ...)

    def loss(params):
        return module_state.merge(graphdef, rest | params).loss(encoded, jax.random.key(0))[0]

    gradients = jax.jit(jax.grad(loss))(trained)
    assert [path for path, g in gradients.items() if not np.abs(g).max() > 0] == []


def test_it_is_fitted_and_restored_and_finds_defects(parts, tmp_path):
    run = jaxad.fit(detector(), parts.train, TrainConfig(**TRAINING), workdir=tmp_path / "run")
    check_detector(run.model, parts.test)
    again = jaxad.restore(tmp_path / "run").detector
    mean = jaxad.evaluate(again, parts.test)["mean"]
    assert mean["image_auroc"] > 0.8


def test_its_features_are_not_taken_for_those_of_others():
    bank = jaxad.PatchBank.create(jaxad.PatchBankConfig(backbone="random:32x4", image_size=56, blocks=(0, 1, 3)))
    assert repr(bank.inputs.identity) != repr(detector().inputs.identity)
    assert repr(detector(blocks=(3, 1, 0)).inputs.identity) == repr(detector().inputs.identity)


def test_what_does_not_fit_is_listed():
    with pytest.raises(ConfigError, match="depths") as error:
        detector(depths=(1, 0), embedding_depth=0)
    assert "embedding_depth = 0" in str(error.value)
    with pytest.raises(ConfigError, match="image_size = 70") as error:
        detector(image_size=70, depths=(1, 1))
    assert "depths = (1, 1)" in str(error.value)
    with pytest.raises(ConfigError, match="Vision Transformer"):
        detector(backbone="random:resnet18", image_size=64)


def test_trainings_of_the_presets():
    paper, small = RD4ADConfig.training("paper"), RD4ADConfig.training("small", steps=5)
    assert (paper.batch_size, paper.learning_rate, paper.weight_decay) == (16, 5e-3, 0)
    assert (small.steps, small.schedule) == (5, "cosine")
