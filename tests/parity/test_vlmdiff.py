"""The controlled UNet and the sampler of VLMDiff against torch, built on diffusers' blocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch.nn import functional as F

from jaxad.config import VLMDiffConfig
from jaxad.detectors.vlmdiff.detector import VLMDiff
from jaxad.detectors.vlmdiff.networks import Networks
from jaxad.detectors.vlmdiff.sgn import abstract_sgn, controlled_noise
from jaxad.models.backbone import load_backbone
from jaxad.models.clip.towers import abstract_text_tower
from jaxad.models.stable_diffusion.autoencoder_kl import load_autoencoder
from jaxad.models.stable_diffusion.checkpoints import unet_key_map
from jaxad.models.stable_diffusion.unet import load_unet
from jaxad.models.weights.key_map import CONV, CONV1X1_AS_LINEAR, fill
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from jaxad.types import Features
from tests.models.stable_diffusion.made_checkpoints import TEXT, randomized
from tests.parity.test_stable_diffusion import error, to_nchw, to_nhwc
from tests.parity.test_stable_diffusion import randomized as randomized_torch

pytestmark = pytest.mark.parity

LEVELS: dict[str, Any] = {
    "block_out_channels": (16, 16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
UP = ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
IMAGE, STEPS = 32, (501, 1)
LOWEST = ((16, 32), (16, 16))
"""Widths of the skips at the lowest resolution, and of those one level above."""


class Guided(torch.nn.Module):
    """ControlNet with the fusion, injected after the middle and into the lowest skips only."""

    def __init__(self):
        super().__init__()
        self.unet = UNet2DConditionModel(**LEVELS, up_block_types=UP)
        self.controlnet = ControlNetModel(**LEVELS, conditioning_embedding_out_channels=(16, 32, 96))
        lowest, above = LOWEST
        self.fusion = torch.nn.ModuleList(
            torch.nn.ModuleList(torch.nn.Conv2d(n, m, 3, stride=2, padding=1, bias=False) for n in above)
            for m in lowest
        )

    def forward(self, latents, t, text, image):
        outs, middle = self.controlnet(latents, t, text, image, return_dict=False)
        *_, first, second, down, last = outs
        fused = []
        for y, convs in zip((down, last), self.fusion, strict=True):
            terms = [F.silu(F.instance_norm(conv(x))) for conv, x in zip(convs, (first, second), strict=True)]
            fused.append(F.silu(y + sum(terms)))
        plain = [torch.zeros_like(out) for out in outs[:-2]]
        return self.unet(
            latents,
            t,
            text,
            down_block_additional_residuals=(*plain, *fused),
            mid_block_additional_residual=middle,
        ).sample


@pytest.fixture(scope="module")
def theirs():
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    vae = AutoencoderKL(block_out_channels=(8, 8, 16), layers_per_block=1, norm_num_groups=4, **blocks)
    return randomized_torch(Guided()), randomized_torch(vae)


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    """A VLMDiff with those weights, that guides by captions."""
    guided, vae = theirs
    folder = tmp_path_factory.mktemp("torch")
    guided.unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    save_file(guided.controlnet.state_dict() | {f"fusion.{n}": t for n, t in guided.fusion.state_dict().items()},
              folder / "sgn.safetensors")  # fmt: skip
    unet = load_unet(folder / "unet")
    decoder = ("up_blocks", "conv_norm_out", "conv_out")
    trunk = [row for row in unet_key_map(unet.config) if not row[0].startswith(decoder)]
    embedding = "controlnet_cond_embedding"
    key_map = [
        *((f"trunk/{path}", name, layout) for path, name, layout in trunk),
        ("zero_convs/{}", "controlnet_down_blocks.{}", CONV1X1_AS_LINEAR),
        ("middle_zero_conv", "controlnet_mid_block", CONV1X1_AS_LINEAR),
        ("hint/convs/0", f"{embedding}.conv_in", CONV),
        *((f"hint/convs/{1 + i}", f"{embedding}.blocks.{i}", CONV) for i in range(4)),
        ("hint/zero_conv", f"{embedding}.conv_out", CONV),
        ("fusion/convs/{}/{}", "fusion.{}.{}", CONV),
    ]  # fmt: skip
    sgn = fill(abstract_sgn(unet.config, 4), find_weights(folder / "sgn.safetensors"), key_map)
    text = randomized(abstract_text_tower(dataclasses.replace(TEXT, width=24, heads=2)))
    networks = Networks(unet, load_autoencoder(folder / "vae"), text, ("", ""))
    config = VLMDiffConfig(
        stable_diffusion="random:8",
        backbone="random:32x2x8",
        image_size=IMAGE,
        captions="always",
        guidance=3.0,
        pixels="imagenet",
        start_timestep=999,
        sampling_steps=2,
        remat=False,
    )
    empty = jnp.asarray(np.random.default_rng(5).normal(size=(77, 24)), jnp.float32)
    return VLMDiff(config, load_backbone(config.backbone), networks, sgn, empty)


@pytest.fixture(scope="module")
def inputs(ours):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2, IMAGE, IMAGE, 3)).astype(np.uint8)
    moments = np.concatenate([generator.normal(size=(2, 64, 4)), generator.normal(-2, 1, (2, 64, 4))], axis=-1)
    text = generator.normal(size=(2, 77, 24)).astype(np.float32)
    # The second image has no caption.
    text[1] = ours.empty[...]
    return Features(moments.astype(np.float32), (8, 8), {"image": images, "text": text})


def test_forward_pass_and_sampling_equal_torch(theirs, ours, inputs):
    guided, vae = theirs
    graphdef, arrays = module_state.split(ours)
    t, keys = np.array([1, 801]), jax.random.split(jax.random.key(3), 2)
    pixels = (inputs.extras["image"] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pixels = pixels.astype(np.float32)
    latents = np.random.default_rng(1).normal(size=(2, 8, 8, 4)).astype(np.float32)

    @jax.jit
    def run(arrays, features):
        model = module_state.merge(graphdef, arrays)
        hint = model.sgn.hint(pixels)
        noise = controlled_noise(model.unet, model.sgn, latents, t, features.extras["text"], hint)
        redrawn = model.reconstruct(features, keys)
        return noise, redrawn.extras["image"]

    with jax.default_matmul_precision("highest"):
        noise, redrawn = run(arrays, inputs)
    text, hint = torch.from_numpy(inputs.extras["text"]), to_nchw(pixels)
    empty = torch.from_numpy(np.array(ours.empty[...])).expand(2, -1, -1)
    posterior, start = zip(*(jax.random.split(key) for key in keys), strict=True)
    drawn, added = (
        torch.stack([to_nchw(np.array(jax.random.normal(key, (8, 8, 4)))[None])[0] for key in group])
        for group in (posterior, start)
    )
    mean, logvar = (to_nchw(part.reshape(2, 8, 8, 4)) for part in np.split(inputs.tokens, 2, axis=-1))
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = (1 - beta).cumprod(0).float()
    with torch.no_grad():
        expected = guided(to_nchw(latents), torch.from_numpy(t), text, hint)
        z = 0.18215 * (mean + torch.exp(0.5 * logvar) * drawn)
        x = alpha_bar[999].sqrt() * z + (1 - alpha_bar[999]).sqrt() * added
        for place, step in enumerate(STEPS):
            at = torch.full((2,), step)
            without, given = guided(x, at, empty, hint), guided(x, at, text, hint)
            eps = without + 3.0 * (given - without)
            then = alpha_bar[STEPS[place + 1]] if place + 1 < len(STEPS) else alpha_bar[0]
            clean = (x - (1 - alpha_bar[step]).sqrt() * eps) / alpha_bar[step].sqrt()
            x = then.sqrt() * clean + (1 - then).sqrt() * eps
        image = vae.decode(x / 0.18215).sample
        assert not torch.equal(given[0], without[0])
        assert torch.allclose(given[1], without[1], atol=1e-5)
    figures = {"noise": error(noise, to_nhwc(expected)), "image": error(redrawn, to_nhwc(image))}
    print({name: f"{figure:.1e}" for name, figure in figures.items()})
    assert figures["noise"] < 1e-4
    assert figures["image"] < 1e-4


def test_map_of_three_layers_equals_torch(ours):
    """1 - cosine of each layer, bilinear with align_corners, summed."""
    generator = np.random.default_rng(0)
    shapes = ((2, 8, 8, 5), (2, 4, 4, 7), (2, 2, 2, 9))
    before, after = ([generator.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(2))
    model = module_state.merge(*module_state.split(ours))
    object.__setattr__(model, "_look", lambda *_: (before, after))
    found = model.score(None, Features(before[0], (8, 8))).maps
    maps = [1 - F.cosine_similarity(to_nchw(x), to_nchw(y)) for x, y in zip(before, after, strict=True)]
    grown = [F.interpolate(map[:, None], (IMAGE, IMAGE), mode="bilinear", align_corners=True) for map in maps]
    assert error(found, torch.stack(grown).sum(0)[:, 0].numpy()) < 1e-5
