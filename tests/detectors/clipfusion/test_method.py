"""How CLIPFusion joins its halves, on networks without weights: what each half says is given."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion.detector import CLIPFusion
from jaxad.detectors.clipfusion.mapdiff import MapDiff
from jaxad.detectors.clipfusion.networks import FusionNetworks
from jaxad.detectors.clipfusion.patchclip import PatchCLIP
from jaxad.models.clip.config import CLIPConfig
from jaxad.models.clip.towers import abstract_vision_tower
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.unet import abstract_unet
from jaxad.nn.variables import Memory
from jaxad.types import Batch, Features, View
from tests.models.stable_diffusion.made_checkpoints import AUTOENCODER, UNET

CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 12, "patch_size": 4, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 9, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def model():
    """Few-shot, of one category."""
    vae: Any = abstract_autoencoder(AUTOENCODER)
    unet: Any = abstract_unet(dataclasses.replace(UNET, in_channels=4))
    vision = abstract_vision_tower(CLIPConfig.from_open_clip(CLIP).vision)
    sources = {"clip": "made", "diffusion": "made"}
    networks = FusionNetworks(vision, jnp.float32(1), vae, unet, sources=sources, sha256="", bytes=0)
    config = CLIPFusionConfig(**sources, image_size=16, output_size=3, diffusion_taps=((201, 1),))
    model = CLIPFusion(config, networks)
    for bank in (*model.clip_banks, *model.diffusion_banks):
        bank.set_value(jnp.ones((1, 1, 4)))
    return model


def test_maps_and_scores_are_the_weighted_sums_of_equations_4_and_9(model, monkeypatch):
    generator = np.random.default_rng(0)
    words, pictures, attention, distances = generator.random((4, 2, 3, 3)).astype(np.float32)
    token, focus = generator.random((2, 2)).astype(np.float32)
    both = {"language": attention, "vision": distances}, {"language": focus, "vision": distances.max((1, 2))}
    monkeypatch.setattr(PatchCLIP, "language", lambda *_: (words.reshape(2, 9), token))
    monkeypatch.setattr(PatchCLIP, "vision", lambda *_: pictures.reshape(2, 9))
    monkeypatch.setattr(MapDiff, "terms", lambda *_: both)
    monkeypatch.setattr(CLIPFusion, "context", lambda *_: {"clip_texts": None, "bank": None})
    nothing: Any = None
    found = model.judge(Features(nothing, (3, 3), {}), nothing, nothing)
    np.testing.assert_allclose(found.maps, 0.25 * (words + pictures) + 0.75 * (attention + distances), rtol=1e-5)
    expected = 0.75 * (token + pictures.max((1, 2))) + 0.25 * (focus + distances.max((1, 2)))
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)


def test_references_are_seen_with_the_prompt_of_a_perfect_object(model, monkeypatch):
    perfect, states = (
        np.random.default_rng(seed).normal(size=(2, *shape)) for seed, shape in ((0, (5, 3)), (1, (4, 5, 3)))
    )
    monkeypatch.setattr(model, "reference", Memory(perfect))
    monkeypatch.setattr(model, "queries", Memory(states))
    blocks = {name: np.zeros((3, 9, 4)) for name in model.patchclip.banks}
    monkeypatch.setattr(CLIPFusion, "encode", lambda *_: SimpleNamespace(extras=blocks))
    monkeypatch.setattr(MapDiff, "references", lambda self, unet, images, text: [jnp.asarray(text)])
    batch = Batch({}, np.zeros(3, np.uint32), np.ones(3, bool), np.array([1, 0, 1]))
    *_, found = model.reference_tokens(batch)
    np.testing.assert_allclose(found, perfect[[1, 0, 1]], rtol=1e-5)


@pytest.mark.parametrize("per_category", [True, False])
def test_images_are_compared_with_references_of_their_category_or_of_all(model, monkeypatch, per_category):
    monkeypatch.setattr(model, "categories", ("bolt", "nut"))
    monkeypatch.setattr(model, "config", dataclasses.replace(model.config, per_category=per_category))
    batch = Batch({}, np.zeros(3, np.uint32), np.ones(3, bool), np.array([1, 0, 1]))
    np.testing.assert_array_equal(model.context(batch)["bank"], [1, 0, 1] if per_category else [0, 0, 0])


def test_images_are_resized_bicubically_for_clip_and_bilinearly_for_the_diffusion_model(model):
    assert model.inputs.views == {"clip": View(12, 12, "bicubic"), "diffusion": View(16, 16, "bilinear")}


def test_published_settings():
    """Of the paper: alpha in Eq. 4 and 9, what is seen at which timestep, and of which states."""
    config = CLIPFusionConfig()
    assert (config.map_weight, config.score_weight) == (0.25, 0.75)
    assert config.diffusion_taps == ((201, 3), (401, 2), (801, 1))
    assert config.states == ("crack", "hole", "residue", "damage")
    assert config.attention_parts == ("down", "up")
