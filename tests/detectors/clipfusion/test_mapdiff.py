"""The diffusion model's half of CLIPFusion alone: which passes each of its settings asks for, and what becomes of them.

The UNet here is a few lines, so that what it gives is known.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import parallel
from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion import maps as maps
from jaxad.detectors.clipfusion.mapdiff import Call, MapDiff, chunked, joined
from jaxad.models.stable_diffusion.autoencoder_kl import Moments
from jaxad.models.stable_diffusion.config import UNetConfig
from tests.models.stable_diffusion.made_checkpoints import AUTOENCODER, UNET

STATES, TOKENS, GRID = 3, 5, 8
CONFIG = CLIPFusionConfig.preset(
    "mapdiff", image_size=16, diffusion_taps=((201, 1),), language_timesteps=(201,), output_size=12
)
NOISE = np.random.default_rng(0)
LATENTS = NOISE.normal(size=(2, GRID, GRID, 4)).astype(np.float32)
TEXTS = {
    "queries": NOISE.normal(size=(2, STATES, TOKENS, 12)).astype(np.float32),
    "reference": NOISE.normal(size=(2, TOKENS, 12)).astype(np.float32),
    "places": np.full((2, STATES, 1), 2),
    "used": np.ones((2, STATES, 1), bool),
    # The first category has but two states, whose last one fills it up.
    "weights": np.float32([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]),
}
TEXTS["queries"][0, 2] = TEXTS["queries"][0, 1]
BANKS = [NOISE.normal(size=(2, 20, 3)).astype(np.float32)]
BANKS = [bank / np.linalg.norm(bank, axis=-1, keepdims=True) for bank in BANKS]


def features(latents, text):
    """[b h w 3] of latents [b h w 4] and text tokens [b k 12]."""
    return latents[..., :3] + text[:, 0, None, None, :3]


def attention(latents, text):
    """[b h w k]: shares that hang on the place and on the text."""
    logits = latents[..., :1] * text[:, None, None, :, 0] / 10
    return jax.nn.softmax(logits, axis=-1)


class UNetOfAFewLines:
    """Notes what it is asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, latents, timesteps, text, *, taps, attention_sites, output):
        self.asked.append((len(latents), tuple(taps), bool(attention_sites)))
        found = {site: attention(latents, text) for site in attention_sites}
        return None, {tap: features(latents, text) for tap in taps}, found


SCOPES = ("states", "sites")
PROMPTS, NORMS = ("states", "last-state", "reference"), ("minmax", "max", "none", "resoftmax")


@pytest.fixture(scope="module")
def found():
    """Maps and scores by setting, from one program, and what the UNet was asked for."""
    shape, asked = dataclasses.replace(UNET, in_channels=4), {}

    def terms(latents, texts, banks, **changes):
        half, unet = MapDiff(dataclasses.replace(CONFIG, **changes), AUTOENCODER, shape), UNetOfAFewLines()
        assert not half.problems
        terms = half.terms(unet, {"latents": latents}, texts, banks, jnp.arange(2), True)
        asked[changes.get("vision_prompt")] = unet.asked
        return terms

    @jax.jit
    def run(latents, texts, banks):
        by_prompt = {name: terms(latents, texts, banks, vision_prompt=name) for name in PROMPTS}
        by_norm = {name: terms(latents, texts, [], attention_norm=name) for name in NORMS}
        by_norm |= {f"of {name}": terms(latents, texts, [], attention_norm_of=name) for name in SCOPES}
        return by_prompt | by_norm | {"scaled": terms(latents, texts, [], attention_score="scaled")}

    return run(LATENTS, TEXTS, BANKS), asked


def distance(image, text):
    """Half of 1 - cosine to the nearest reference, [h w], of an image under one prompt [k 12]."""
    found = np.asarray(features(LATENTS[image : image + 1], text[None]))[0]
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    return 0.5 * (1 - (found @ BANKS[0][image].T).max(-1))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_passes_whose_features_are_compared(found, prompt):
    (by_modality, scores), asked = found[0][prompt], found[1][prompt]
    for image, states in enumerate((2, 3)):
        by_state = [distance(image, TEXTS["queries"][image, state]) for state in range(states)]
        expected = {
            "states": np.mean(by_state, axis=0),
            "last-state": by_state[-1],
            "reference": distance(image, TEXTS["reference"][image]),
        }[prompt]
        resized = np.asarray(maps.resize(expected[None], (12, 12)))[0]
        np.testing.assert_allclose(by_modality["vision"][image], resized, atol=1e-5)
        assert float(scores["vision"][image]) == pytest.approx(resized.max(), rel=1e-4)
    # A pass for each of the two images and three states; of the prompt for references one more for each image.
    tap = ("up_blocks.1",)
    assert (
        asked
        == {
            "states": [(6, tap, True)],
            "last-state": [(2, tap, True), (4, (), True)],
            "reference": [(6, (), True), (2, tap, False)],
        }[prompt]
    )


TAPS = ((201, 1), (401, 1), (801, 1))
PASSES = [
    ("literal", {}, (4, 4 + 2, 3)),
    # What the attention looks at is none of the passes that the features come from.
    ("literal", {"language_timesteps": (601,)}, (4, 4 + 3, 3)),
    ("literal", {"vision_prompt": "reference"}, (4, 4 + 3, 3)),
    ("literal", {"vision_prompt": "states"}, (4, 4 + 8, 12)),
    ("default", {}, (12, 12, 12)),
    ("default", {"vision_prompt": "last-state"}, (12, 12, 3)),
    # A further block of a timestep is a further look into the same pass.
    ("literal", {"diffusion_taps": (*TAPS, (801, 0))}, (4, 4 + 2, 3)),
    ("default", {"diffusion_taps": (*TAPS, (801, 0)), "language_timesteps": (1,)}, (4, 4 + 12, 12)),
]


@pytest.mark.parametrize(("preset", "changes", "passes"), PASSES)
def test_passes_of_the_unet(preset, changes, passes):
    """Of one image, without references, with them, and with them alone; the paper has four states."""
    settings = {"models": ("diffusion",), "image_size": 16, "diffusion_taps": TAPS, "output_size": 12, **changes}
    config = CLIPFusionConfig.preset(preset, **settings)
    half = MapDiff(config, AUTOENCODER, dataclasses.replace(UNET, in_channels=4))
    assert not half.problems
    texts = {"queries": np.zeros((1, 4, TOKENS, 12)), "reference": np.zeros((1, TOKENS, 12))}
    texts |= {"places": np.ones((1, 4, 1), int), "used": np.ones((1, 4, 1), bool), "weights": np.full((1, 4), 0.25)}
    banks = [np.ones((1, 20, 3), np.float32)] * len(config.diffusion_taps)
    counts = []
    for references, language in (([], True), (banks, True), (banks, False)):
        unet = UNetOfAFewLines()
        images = {"latents": LATENTS[:1]}
        run = partial(half.terms, unet, images, texts, references, np.zeros(1, int), language)
        jax.eval_shape(run)
        counts.append(sum(rows for rows, _, _ in unet.asked))
    assert tuple(counts) == passes


def test_each_tap_sees_its_timestep_and_attention_is_the_mean_over_timesteps():
    """Of two images; the last tap is of a timestep whose attention is not wanted."""
    steps, taps = (201, 401, 801), ((401, 1), (201, 1), (601, 1))
    config = dataclasses.replace(CONFIG, language_timesteps=steps, diffusion_taps=taps)
    half = MapDiff(config, AUTOENCODER, dataclasses.replace(UNET, in_channels=4))

    def at(latents, timesteps):
        return latents[..., :2] * jnp.asarray(timesteps, jnp.float32)[:, None, None, None]

    def unet(latents, timesteps, text, *, taps, attention_sites, output):
        seen = at(latents, timesteps)
        return None, dict.fromkeys(taps, seen), dict.fromkeys(attention_sites, seen)

    text = TEXTS["reference"]
    attention, features = half._run(unet, {"latents": LATENTS}, text, language=True, vision=True)
    assert set(attention) == set(half.sites)
    for found in attention.values():
        np.testing.assert_allclose(found, at(LATENTS, [np.mean(steps)] * 2), rtol=1e-5)
    for (t, _), found in zip(taps, features, strict=True):
        np.testing.assert_allclose(found, np.reshape(at(LATENTS, [t] * 2), (2, GRID * GRID, 2)), rtol=1e-5)


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("name", ["clean", "noised"])
def test_noise_of_each_timestep_comes_onto_the_latents_alone(channels, name):
    half = MapDiff(
        dataclasses.replace(CONFIG, denoiser_input=name), AUTOENCODER, dataclasses.replace(UNET, in_channels=channels)
    )
    noise = np.asarray(half.noise(LATENTS, np.uint32([7, 8])))
    np.testing.assert_array_equal(noise, half.noise(LATENTS[:, ::-1], np.uint32([7, 8])))
    assert np.abs(noise[0] - noise[1]).max() > 1
    assert 0.8 < noise.std() < 1.2
    timesteps = jnp.array([201, 801])
    images = {"latents": LATENTS} | ({"noise": noise} if name == "noised" else {})
    found = np.asarray(half._inputs(images, timesteps))
    beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    share = np.cumprod(1 - beta)[[201, 801]][:, None, None, None]
    expected = LATENTS if name == "clean" else np.sqrt(share) * LATENTS + np.sqrt(1 - share) * noise
    np.testing.assert_allclose(found[..., :4], expected, atol=1e-5)
    assert found.shape[-1] == channels
    if channels == 9:
        assert not found[..., 4].any()
        np.testing.assert_array_equal(found[..., 5:], LATENTS)


def test_score_of_the_scaled_map(found):
    """Less its minimum; the map of the other scores is the same."""
    by_modality, scores = found[0]["scaled"]
    np.testing.assert_allclose(by_modality["language"], found[0]["minmax"][0]["language"], atol=1e-6)
    map = np.asarray(by_modality["language"])
    np.testing.assert_allclose(scores["language"], 1 - np.median(map, axis=(1, 2)) / map.max((1, 2)), rtol=1e-4)
    assert np.abs(scores["language"] - found[0]["minmax"][1]["language"]).min() > 0.05


@pytest.mark.parametrize("of", SCOPES)
def test_scaling_before_the_mean_over_states(found, of):
    """With sites that are all alike, of each state and of each site of each state are the same."""
    by_modality, scores = found[0][f"of {of}"]
    for image, states in enumerate((2, 3)):
        maps_of = [
            np.asarray(attention(LATENTS[image : image + 1], TEXTS["queries"][image, state][None]))[0, ..., 2]
            for state in range(states)
        ]
        expected = np.mean([(map - map.min()) / (map.max() - map.min()) for map in maps_of], axis=0)
        np.testing.assert_allclose(by_modality["language"][image], maps.resize(expected[None], (12, 12))[0], atol=1e-4)
    np.testing.assert_allclose(scores["language"], found[0]["minmax"][1]["language"], rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_scales_of_attention_change_the_map_alone(found, norm):
    by_modality, scores = found[0][norm]
    assert list(by_modality) == ["language"]
    for image, states in enumerate((2, 3)):
        shares = [
            np.asarray(attention(LATENTS[image : image + 1], TEXTS["queries"][image, state][None]))[0]
            for state in range(states)
        ]
        raw = np.mean([share[..., 2] for share in shares], axis=0)
        sharp = np.mean([np.asarray(jax.nn.softmax(100 * share[..., 1:], axis=-1))[..., 1] for share in shares], axis=0)
        expected = {
            "minmax": (raw - raw.min()) / (raw.max() - raw.min()),
            "max": raw / raw.max(),
            "none": raw,
            "resoftmax": sharp,
        }[norm]
        np.testing.assert_allclose(by_modality["language"][image], maps.resize(expected[None], (12, 12))[0], atol=1e-4)
        large = np.asarray(maps.resize(raw[None], (12, 12)))[0]
        assert float(scores["language"][image]) == pytest.approx(1 - np.median(large) / large.max(), rel=1e-3)


PARTS = {("down", "mid", "up"): 16, ("down", "up"): 15, ("down",): 6, ("mid",): 1, ("up",): 9}


@pytest.mark.parametrize(("parts", "sites"), PARTS.items(), ids=lambda value: str(value))
def test_cross_attentions_of_the_published_unet(parts, sites):
    """Cross-attentions of the encoder, the middle and the decoder: 6, 1 and 9."""
    config = dataclasses.replace(CONFIG, image_size=512, attention_parts=parts)
    autoencoder = dataclasses.replace(AUTOENCODER, block_out_channels=(8, 8, 16, 16))
    found = MapDiff(config, autoencoder, UNetConfig.sd2(inpainting=True)).sites
    assert len(found) == sites
    assert {site.partition("_")[0] for site in found} == set(parts)
    small = dataclasses.replace(config, attention_sides=(8, 16))
    beside = MapDiff(small, autoencoder, UNetConfig.sd2(inpainting=True)).sites
    # 8 x 8 in the middle, 16 x 16 at the third level.
    expected = {"mid_block.attentions.0", *(f"down_blocks.2.attentions.{i}" for i in range(2))}
    expected |= {f"up_blocks.1.attentions.{i}" for i in range(3)}
    assert set(beside) == expected & set(found)


@pytest.mark.parametrize("latents", ["mode", "sample"])
def test_latents_are_the_mode_or_drawn_by_the_seed_of_each_image(latents):
    class Autoencoder:
        config = AUTOENCODER

        def encode(self, images):
            mean = images[:, ::2, ::2, :1] * jnp.ones((1, 1, 1, 4))
            return Moments(mean, jnp.zeros_like(mean))

    half = MapDiff(dataclasses.replace(CONFIG, latents=latents), AUTOENCODER, UNET)
    images = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3), np.uint8).repeat(3, axis=0)
    found = np.asarray(jax.jit(lambda *given: half.latents(Autoencoder(), *given))(images, np.uint32([7, 8, 7])))
    mode = (images[:, ::2, ::2, :1] / 127.5 - 1) * np.ones(4) * AUTOENCODER.scaling_factor
    np.testing.assert_array_equal(found[0], found[2])
    noise = (found - mode) / AUTOENCODER.scaling_factor
    if latents == "mode":
        assert np.abs(noise).max() < 1e-5
    else:
        assert np.abs(found[0] - found[1]).max() > 0.1
        # Of unit variance here: 256 values.
        assert 0.8 < noise[0].std() < 1.2


@pytest.mark.parametrize("count", [6, 20, 40])
def test_every_device_has_as_many_rows_of_a_call(count):
    """Else a kernel, which each device runs on images of its own, would be left out, and devices would wait."""
    mesh, mapdiff = parallel.make_mesh(), MapDiff(CLIPFusionConfig(memory_gb=1e-9), AUTOENCODER, UNET)
    values, seen = jnp.arange(2.0 * count).reshape(count, 2), []

    def function(rows):
        seen.append(len(rows))
        return rows + 1

    def program(values):
        return chunked(function, values, 3 * mapdiff.at_once)

    np.testing.assert_array_equal(jax.jit(parallel.on_mesh(program, mesh))(values), values + 1)
    assert seen
    assert not any(rows % mesh.size for rows in seen)
    assert max(seen) <= 3 * mesh.size


def test_calls_are_joined_without_doubles():
    calls = [Call((201, 401), ("down",), ((201, "up"),)), Call((801, 201), (), ((801, "up"), (201, "up")))]
    both = joined(calls)
    assert both == ((201, 401, 801), ("down",), ((201, "up"), (801, "up")))
    assert both.names == ("201 down", "401 down", "801 down", "201 up", "801 up")
    assert joined([]) == ((), (), ())
