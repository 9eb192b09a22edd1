"""DPDiff-AD against an implementation in torch: maps and scores, the loss and its gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxad.bench._dpdiff_programs import abstract_dpdiff
from jaxad.inference.predictor import Predictor
from jaxad.inference.programs import NOISE_SEED
from jaxad.nn import module_state
from jaxad.types import Batch, Features
from tests.parity.dpdiff_benchmark import twin

pytestmark = pytest.mark.parity

PRESETS = {
    "paper": {"prediction": "epsilon", "sampling_steps": 3, "residual": "squared"},
    "small": {"prediction": "v", "sampling_steps": 1, "draws": 3, "residual": "cosine", "train_timesteps": (0, 400)},
}


@pytest.fixture(scope="module", params=PRESETS)
def pair(request):
    """A detector whose every branch counts, on 16 x 16 patches, and its twin."""
    detector = abstract_dpdiff("tiny", "float32", image_size=224, depth=2, **PRESETS[request.param])
    detector = module_state.drawn(detector, np.random.default_rng(0))
    detector.channel_std[...] = jnp.linspace(0.5, 2, detector.channels)
    return detector, twin(detector)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8)


def close(ours, theirs):
    """To 1e-4 of the largest value."""
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_maps_and_scores(pair, images):
    detector, network = pair
    seeds = np.array([3, 8], np.uint32)
    batch = Batch({"image": images}, seeds, np.ones(2, bool), category=np.zeros(2, np.int32))
    scores, maps = Predictor(detector, "exact-256", batch_size=2)(batch)
    prototypes = detector.config.local_prototypes + detector.config.global_prototypes
    shapes = (256, detector.channels), (prototypes, detector.channels)

    def noise(draw):
        keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(NOISE_SEED), seed), draw) for seed in seeds]
        split = [jax.random.split(key, 3)[:2] for key in keys]
        return tuple(
            torch.from_numpy(np.stack([jax.random.normal(pair[which], shape) for pair in split]))
            for which, shape in enumerate(shapes)
        )

    with torch.inference_mode():
        their_maps, their_scores = network.predict(torch.from_numpy(images), noise)
    close(maps, their_maps)
    close(scores, their_scores)


def test_loss_and_gradients(pair, images):
    detector, network = pair
    tokens = np.array(detector.encode(Batch({"image": images}, np.zeros(2, np.uint32), np.ones(2, bool))).tokens)
    graphdef, arrays = module_state.split(detector)
    trained = {path: array for path, array in arrays.items() if path.startswith("denoiser/")}
    key = jax.random.key(5)

    def loss(trained):
        return module_state.merge(graphdef, {**arrays, **trained}).loss(Features(tokens, detector.grid), key)[0]

    value, gradients = jax.value_and_grad(loss)(trained)
    keys = jax.random.split(key, 3)
    t = jax.random.randint(keys[0], (2,), *detector.config.train_timesteps, dtype=jnp.int32)
    prototypes = (2, detector.config.local_prototypes + detector.config.global_prototypes, detector.channels)
    noise = [jax.random.normal(k, s) for k, s in zip(keys[1:], (tokens.shape, prototypes), strict=True)]
    on_torch = [torch.from_numpy(np.array(array)) for array in (tokens, t, *noise)]
    network.zero_grad()
    theirs = network.loss(on_torch[0], on_torch[1], (on_torch[2], on_torch[3]))
    theirs.backward()
    close(value, theirs.detach())
    for path in ("denoiser/project_in/kernel", "denoiser/blocks/0/prototype_attention/key_value/kernel"):
        name = path.replace("/", ".").removesuffix("kernel") + "weight"
        close(gradients[path].T, network.get_parameter(name).grad)
