"""What VLMDiff does between its networks, against closed forms: each network here is a line or two.

No network runs, so that every factor, timestep and key is seen in the numbers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.config import VLMDiffConfig
from jaxad.detectors.vlmdiff import detector as module
from jaxad.detectors.vlmdiff.detector import VLMDiff
from jaxad.detectors.vlmdiff.networks import Networks
from jaxad.detectors.vlmdiff.sgn import HintEncoder, abstract_sgn
from jaxad.models.clip.towers import abstract_text_tower
from jaxad.models.stable_diffusion.autoencoder_kl import AutoencoderKL, abstract_autoencoder
from jaxad.models.stable_diffusion.unet import abstract_unet
from jaxad.nn import module_state
from jaxad.nn.variables import Pretrained
from jaxad.types import Features
from tests.models.stable_diffusion.made_checkpoints import AUTOENCODER, TEXT, UNET

SIDE, GRID = 16, 8
SCALE = 0.18215
ALPHA_BAR = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
TIMESTEPS = (901, 801, 701, 601, 501, 401, 301, 201, 101, 1)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
EMPTY = 0.25
"""The text tower's output for no text, everywhere."""


def strided(images, stages):
    """In place of a network: every fourth and every eighth pixel."""
    return [images[:, ::stride, ::stride] for stride in (4, 8)]


@pytest.fixture(scope="module")
def make():
    """VLMDiff of networks without weights, by its settings."""
    unet: Any = abstract_unet(UNET)
    networks = Networks(unet, abstract_autoencoder(AUTOENCODER), abstract_text_tower(TEXT), ("", ""))
    sgn = abstract_sgn(UNET, networks.factor)
    backbone: Any = SimpleNamespace(id="strided", patch=4, grid=lambda side: (4, 4), network=SimpleNamespace())
    backbone.network.maps = strided

    def made(**changes):
        settings = {"stable_diffusion": "random:8", "image_size": SIDE, "pixels": "imagenet"}
        empty = jnp.full((TEXT.context, TEXT.width), EMPTY, jnp.float32)
        return VLMDiff(VLMDiffConfig(**{**settings, **changes}), backbone, networks, sgn, empty)

    return made


@pytest.fixture(autouse=True)
def closed_forms(monkeypatch):
    """Networks: the hint is the mean of the image, the decoder enlarges three channels."""
    monkeypatch.setattr(HintEncoder, "__call__", lambda self, image: jnp.asarray(image).mean((1, 2, 3)))
    monkeypatch.setattr(AutoencoderKL, "decode", lambda self, z: jnp.repeat(jnp.repeat(z[..., :3], 2, 1), 2, 2))


def predict(monkeypatch, noise):
    """Lets the SGN-guided UNet say `noise` of latents, timesteps, context and hint; returns what it was given."""
    given = []

    def controlled(unet, sgn, latents, timesteps, context, hint):
        given.append((latents, timesteps, context, hint))
        return noise(latents, timesteps, context, hint)

    monkeypatch.setattr(module, "controlled_noise", controlled)
    return given


def features(images, mean, logvar, text=None):
    """Of `images` uint8 [b SIDE SIDE 3], whose posterior is the same everywhere."""
    parts = [np.full((len(images), GRID * GRID, 4), value, np.float32) for value in (mean, logvar)]
    extras = {"image": images} | ({} if text is None else {"text": text})
    return Features(np.concatenate(parts, -1), (GRID, GRID), extras)


def drawn(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def normalized(images):
    return (images / 255 - MEAN) / STD


def latents_of(tokens):
    return np.asarray(tokens, np.float64).reshape(-1, GRID, GRID, 4)


NONE = -30.0
"""Logarithm of a variance that is none."""


def start(model, given, keys):
    """The noised latents at the first call, by images whose posterior is `given`.

    Of a UNet that sees no noise, the sampler only scales them.
    """
    found = jax.jit(lambda features, keys: model.reconstruct(features, keys).tokens)(given, keys)
    return latents_of(found) * np.sqrt(ALPHA_BAR[TIMESTEPS[0]] / ALPHA_BAR[0])


def test_images_are_noised_to_999_from_a_scaled_draw_of_their_posterior(make, monkeypatch):
    predict(monkeypatch, lambda latents, *_: jnp.zeros_like(latents))
    model, keys, images = make(), jax.random.split(jax.random.key(0), 4), drawn(4)
    signal, noise = np.sqrt(ALPHA_BAR[999]), np.sqrt(1 - ALPHA_BAR[999])
    added = start(model, features(images, 0, NONE), keys)
    assert added.std() == pytest.approx(noise, rel=0.05)
    apart = (start(model, features(images, 1e4, NONE), keys) - added) / 1e4
    np.testing.assert_allclose(apart, signal * SCALE, rtol=1e-4)
    # Of unit variance, the posterior's noise is another one.
    draws = (start(model, features(images, 0, 20.0), keys) - added) / (signal * SCALE * np.exp(10))
    assert draws.std() == pytest.approx(1, rel=0.1)
    assert abs(np.corrcoef(draws.ravel(), added.ravel())[0, 1]) < 0.1


def test_ten_steps_from_901_to_1_guided_by_texts_and_the_same_hint(make, monkeypatch):
    model, keys, images = make(captions="always", guidance=3.0), jax.random.split(jax.random.key(0), 2), drawn(2)
    text = np.random.default_rng(1).normal(size=(2, TEXT.context, TEXT.width)).astype(np.float32)
    given = features(images, 1, NONE, text)
    predict(monkeypatch, lambda latents, *_: jnp.zeros_like(latents))
    x = start(model, given, keys)

    def noise(latents, timesteps, context, hint):
        by_image = timesteps / 1000 * (1 + context[:, 0, 0]) + hint
        return 0.1 * latents + by_image[:, None, None, None]

    predict(monkeypatch, noise)
    found = jax.jit(lambda given, keys: model.reconstruct(given, keys))(given, keys)
    hint = normalized(images).mean((1, 2, 3))
    for now, then in zip(TIMESTEPS, (*TIMESTEPS[1:], 0), strict=True):
        t = np.full(2, now)
        without, told = (noise(x, t, context, hint) for context in (np.full_like(text, EMPTY), text))
        guided = without + 3 * (told - without)
        clean = (x - np.sqrt(1 - ALPHA_BAR[now]) * guided) / np.sqrt(ALPHA_BAR[now])
        x = np.sqrt(ALPHA_BAR[then]) * clean + np.sqrt(1 - ALPHA_BAR[then]) * guided
    np.testing.assert_allclose(latents_of(found.tokens), x, rtol=1e-3, atol=1e-3 * np.abs(x).max())


@pytest.mark.parametrize("pixels", ["imagenet", "symmetric"])
def test_what_is_decoded_is_neither_scaled_nor_clamped(make, monkeypatch, pixels):
    clean = np.random.default_rng(2).normal(size=(1, GRID, GRID, 4)).astype(np.float32)
    monkeypatch.setattr(module, "ddim", lambda *_, **__: clean)
    found = make(pixels=pixels).reconstruct(features(drawn(1), 0, NONE), jax.random.split(jax.random.key(0), 1))
    decoded = clean[..., :3].repeat(2, 1).repeat(2, 2) / SCALE
    assert np.abs(decoded).max() > 10
    expected = decoded if pixels == "imagenet" else ((decoded + 1) / 2 - MEAN) / STD
    np.testing.assert_allclose(found.extras["image"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pixels", ["imagenet", "symmetric"])
def test_the_autoencoder_alone_is_seen_beside_the_reconstruction(make, pixels):
    """What is decoded are the latents themselves, without noise; pictures are of 0 to 255."""
    given, redrawn = features(drawn(1), 0.25, NONE), normalized(drawn(1, 1)).astype(np.float32)
    seen = Features(given.tokens, (GRID, GRID), {"image": redrawn})
    found = make(pixels=pixels).explain(given, seen, jax.random.split(jax.random.key(0), 1)).pictures
    assert found.keys() == {"reconstruction", "autoencoder"}
    np.testing.assert_array_equal(found["reconstruction"], drawn(1, 1))
    level = 255 * (0.25 * STD + MEAN) if pixels == "imagenet" else np.full(3, 255 * 1.25 / 2)
    assert found["autoencoder"].dtype == np.uint8
    np.testing.assert_allclose(found["autoencoder"], np.broadcast_to(level, (1, SIDE, SIDE, 3)), atol=1)


def test_the_loss_is_of_noise_at_a_timestep_of_each_image_with_its_normalized_self_as_hint(make, monkeypatch):
    given = predict(monkeypatch, lambda latents, *_: jnp.full_like(latents, 0.5))
    images = drawn(64)
    loss, terms = make().loss(features(images, 5, NONE), jax.random.key(0))
    ((noisy, t, context, hint),) = given
    t = np.asarray(t)
    assert 0 <= t.min() < 100
    assert 900 < t.max() < 1000
    assert len(set(t.tolist())) > 50
    alpha_bar = ALPHA_BAR[t][:, None, None, None]
    noise = (np.asarray(noisy, np.float64) - np.sqrt(alpha_bar) * SCALE * 5) / np.sqrt(1 - alpha_bar)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, rel=0.02)
    assert (float(loss), terms) == (pytest.approx(np.square(noise - 0.5).mean(), rel=1e-4), {})
    np.testing.assert_allclose(hint, normalized(images).mean((1, 2, 3)), atol=1e-4)
    np.testing.assert_array_equal(context, np.full((64, TEXT.context, TEXT.width), EMPTY))


def test_maps_of_several_strides_are_summed_with_aligned_corners(make):
    image, redrawn = drawn(1), np.random.default_rng(3).normal(size=(1, SIDE, SIDE, 3)).astype(np.float32)
    given = features(image, 0, NONE)
    found = make().score(given, Features(given.tokens, (GRID, GRID), {"image": redrawn})).maps[0]
    expected = np.zeros((SIDE, SIDE))
    for before, after in zip(strided(normalized(image), None), strided(redrawn, None), strict=True):
        lengths = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
        map = (1 - (before * after).sum(-1) / lengths)[0]
        places, own = np.linspace(0, len(map) - 1, SIDE), np.arange(len(map))
        wide = np.array([np.interp(places, own, row) for row in map])
        expected += np.array([np.interp(places, own, column) for column in wide.T]).T
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_published_parts_are_trained(make):
    """All of the SGN, and of the UNet what comes after its middle."""
    parts = ("sgn/", "unet/up_blocks/", "unet/conv_norm_out/", "unet/conv_out/")
    _, kept, others = module_state.split(make(), Pretrained, ...)
    every = {*kept, *others}
    assert set(others) == {path for path in every if path.startswith(parts)}
    assert {path.split("/")[1] for path in kept if path.startswith("unet/")} == {
        *("time_embedding", "conv_in", "down_blocks", "mid_block")
    }
