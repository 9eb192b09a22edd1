"""DPDiff-AD against an implementation in torch: maps and scores, the loss and its gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxad.bench._dpdiff_detectors import abstract_dpdiff
from jaxad.inference.predictor import Predictor
from jaxad.inference.programs import NOISE_SEED
from jaxad.nn import module_state
from jaxad.types import Batch, Features
from tests.parity.dpdiff_benchmark import twin

pytestmark = pytest.mark.parity

PAPER = {"prediction": "epsilon", "sampling_steps": 3, "residual": "squared"}
SETTINGS = {
    "paper": PAPER,
    "small": {"prediction": "v", "sampling_steps": 1, "draws": 3, "residual": "cosine", "train_timesteps": (0, 400)},
    "u-vit": PAPER | {"denoiser": "uvit", "depth": 5},
    "u-net": PAPER | {"denoiser": "unet"},
    "ddpm": PAPER | {"sampler": "ddpm", "start_timestep": 4},
}


@pytest.fixture(scope="module", params=SETTINGS)
def pair(request):
    """A detector whose every branch counts, on 16 x 16 patches, and its twin."""
    detector = abstract_dpdiff("tiny", "float32", image_size=224, **{"depth": 2, **SETTINGS[request.param]})
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

    def keys(draw):
        """Of the tokens, of the prototypes and of the steps, [b] each."""
        each = [jax.random.fold_in(jax.random.fold_in(jax.random.key(NOISE_SEED), seed), draw) for seed in seeds]
        return zip(*(jax.random.split(key, 3) for key in each), strict=True)

    def normal(keys, shape):
        return torch.from_numpy(np.stack([jax.random.normal(key, shape) for key in keys]))

    def noise(draw):
        of_tokens, of_prototypes, _ = keys(draw)
        return normal(of_tokens, shapes[0]), normal(of_prototypes, shapes[1])

    def step_noise(draw, step):
        *_, of_steps = keys(draw)
        return normal([jax.random.fold_in(key, step) for key in of_steps], shapes[0])

    with torch.inference_mode():
        their_maps, their_scores = network.predict(torch.from_numpy(images), noise, step_noise)
    close(maps, their_maps)
    close(scores, their_scores)


def test_loss_and_gradients(pair, images):
    detector, network = pair
    tokens = np.array(detector.encode(Batch({"image": images}, np.zeros(2, np.uint32), np.ones(2, bool))).tokens)
    graphdef, arrays = module_state.split(detector)
    trained = {path: array for path, array in arrays.items() if path.startswith(("denoiser/", "local/", "global_/"))}
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
    for path, gradient in gradients.items():
        close(gradient, network.gradient(path))
