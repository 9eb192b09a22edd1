import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad.config import TrainConfig, ViTADConfig
from jaxad.detectors.vitad import ViTAD
from jaxad.errors import ConfigError
from jaxad.features import Encoder
from jaxad.nn import module_state
from jaxad.testing import check_detector

CONFIG: dict[str, Any] = {"backbone": "random:32x4", "image_size": 56, "blocks": (0, 1), "neck": (2, 3), "depth": 4}
CONFIG |= {"heads": 2}
TRAINING: dict[str, Any] = {"learning_rate": 2e-3, "steps": 30, "batch_size": 4, "checkpoint_every": 30}


def detector(**changes):
    return ViTAD.create(ViTADConfig(**CONFIG | changes), key=jax.random.key(0))


@pytest.fixture(scope="module")
def encoded(parts):
    return next(Encoder(detector(), batch_size=4).stream(parts.train))[0]


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
    student = jaxad.RD4AD.create(
        jaxad.RD4ADConfig(backbone="random:32x4", image_size=56, blocks=(0, 1), depths=(1, 1)), key=jax.random.key(0)
    )
    models = (student, detector(), detector(neck=(3,)), detector(neck=(3, 2)))
    assert len({repr(model.inputs.identity) for model in models}) == 4


def test_what_does_not_fit_is_listed():
    with pytest.raises(ConfigError, match="neck") as error:
        detector(neck=(2, 2), depth=0)
    assert "depth = 0" in str(error.value)
    with pytest.raises(ConfigError, match="neck = "):
        detector(neck=())
    with pytest.raises(ConfigError, match="depth = 5") as error:
        detector(depth=5, heads=3, neck=(4,))
    assert all(name in str(error.value) for name in ("heads = 3", "neck = (4,)"))


def test_trainings_of_the_presets():
    paper, small = ViTADConfig.training("paper"), ViTADConfig.training("small", steps=5)
    assert (paper.batch_size, paper.learning_rate, paper.weight_decay) == (8, 1e-4, 1e-4)
    assert (small.steps, small.schedule) == (5, "cosine")
