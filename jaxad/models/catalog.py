"""The published networks that jaxad is checked against and timed with: `jaxad models` and `jaxad bench models`.

Others load as well: EfficientNet-B7, Lite3 and Lite4, Stable Diffusion 2 with 4 input channels, further CLIPs of these
kinds; and VGG16, which only losses of the autoencoder use.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxad.models.clip.config import CLIPConfig, TextConfig
from jaxad.models.clip.towers import abstract_clip, abstract_text_tower
from jaxad.models.convnets.efficientnet import EfficientNetConfig, abstract_efficientnet
from jaxad.models.convnets.resnet import ResNetConfig, abstract_resnet
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import abstract_unet
from jaxad.models.vit.config import PUBLISHED
from jaxad.models.vit.network import abstract_vit

Shapes = tuple[jax.ShapeDtypeStruct, ...]

PARAMETERS = {
    "DINOv2-S/14": 22_056_192,
    "DINOv2-S/14 registers": 22_057_728,
    "DINOv2-B/14": 86_579_712,
    "DINOv2-B/14 registers": 86_582_784,
    "DINOv2-L/14": 304_367_616,
    "DINOv2-L/14 registers": 304_371_712,
    "DINOv2-g/14": 1_136_479_232,
    "DINOv2-g/14 registers": 1_136_485_376,
    "DINO S/16": 21_665_664,
    "DINO S/8": 21_670_272,
    "DINO B/16": 85_798_656,
    "DINO B/8": 85_807_872,
    "ViT-B/16": 85_798_656,
    "ViT-L/16": 303_301_632,
    "ResNet-18": 11_186_112,
    "ResNet-34": 21_301_696,
    "ResNet-50": 23_561_152,
    "ResNet-101": 42_605_504,
    "EfficientNet-B0": 4_049_564,
    "EfficientNet-B1": 6_575_232,
    "EfficientNet-B2": 7_768_562,
    "EfficientNet-B3": 10_783_528,
    "EfficientNet-B4": 17_673_816,
    "EfficientNet-B5": 28_513_520,
    "EfficientNet-B6": 40_960_136,
    "EfficientNet-Lite0": 3_413_024,
    "EfficientNet-Lite1": 4_189_344,
    "EfficientNet-Lite2": 4_869_168,
    "CLIP ViT-B/32": 151_277_313,
    "CLIP ViT-B/16": 149_620_737,
    "CLIP ViT-L/14": 427_616_513,
    "OpenCLIP ViT-B/16+ 240": 208_377_345,
    "SD 1.5 UNet": 859_520_964,
    "SD 2 inpainting UNet": 865_925_124,
    "SD AutoencoderKL": 83_653_863,
    "SD 1.5 text tower": 123_060_480,
    "SD 2 text tower": 340_387_840,
}
"""Parameters by name, batch statistics included; a test counts them again."""


@dataclass(frozen=True)
class Network:
    """One published network.

    Attributes:
        name: what it is called.
        source: hub id or file name of its weights; any local copy does as well.
        use: options of the command line that take it.
        abstract: makes its structure without arrays; takes the compute type.
        inputs: shapes of the forward pass of one image or text, as it is benchmarked.
        forward: the whole forward pass of (module, *inputs).
    """

    name: str
    source: str
    use: str
    abstract: Callable[[Any], Any]
    inputs: Shapes
    forward: Callable[..., Any]

    @property
    def parameters(self) -> int:
        """Number of parameters, without tensors that only pretraining uses."""
        return PARAMETERS[self.name]


def networks() -> tuple[Network, ...]:
    """All of them, in the order of `jaxad models`."""
    return (*_vits(), *_convolutional(), *_clips(), *_stable_diffusion())


def _vits() -> list[Network]:
    sizes = {"DINOv2": 448, "DINO": 256, "ViT": 224}
    return [
        Network(
            name,
            source,
            "--model.backbone",
            partial(abstract_vit, config),
            _image(sizes[re.split("[ -]", name)[0]]),
            _output,
        )
        for name, (source, config) in PUBLISHED.items()
    ]


def _convolutional() -> list[Network]:
    def network(name: str, source: str, abstract: Callable[[Any], Any]) -> Network:
        return Network(name, source, "--model.backbone", abstract, _image(224), _output)

    resnets = [
        network(
            f"ResNet-{layers}",
            f"microsoft/resnet-{layers}",
            partial(abstract_resnet, ResNetConfig.resnet(layers)),
        )
        for layers in (18, 34, 50, 101)
    ]
    efficientnets = [
        network(
            f"EfficientNet-{name.capitalize()}",
            f"google/efficientnet-{name}" if name.startswith("b") else f"tf_efficientnet_{name} (timm)",
            partial(abstract_efficientnet, EfficientNetConfig.published(name)),
        )
        for name in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "lite0", "lite1", "lite2")
    ]
    return resnets + efficientnets


def _clips() -> list[Network]:
    def clip(name: str, source: str, config: CLIPConfig, size: int) -> Network:
        inputs = (*_image(size), *_text())
        return Network(name, source, "--model.clip", partial(abstract_clip, config), inputs, _both_towers)

    return [
        clip("CLIP ViT-B/32", "openai/clip-vit-base-patch32", CLIPConfig.openai("B/32"), 224),
        clip("CLIP ViT-B/16", "openai/clip-vit-base-patch16", CLIPConfig.openai("B/16"), 224),
        clip("CLIP ViT-L/14", "openai/clip-vit-large-patch14", CLIPConfig.openai("L/14"), 224),
        clip(
            "OpenCLIP ViT-B/16+ 240",
            "timm/vit_base_patch16_plus_clip_240.laion400m_e31",
            CLIPConfig.vit_b_16_plus_240(),
            240,
        ),
    ]


def _stable_diffusion() -> list[Network]:
    def use(source: str) -> str:
        return "--model.diffusion" if "inpainting" in source else "--model.diffusion, --model.stable-diffusion"

    def unet(name: str, source: str, config: UNetConfig) -> Network:
        inputs = (
            jax.ShapeDtypeStruct((1, 64, 64, config.in_channels), jnp.float32),
            jax.ShapeDtypeStruct((1,), jnp.int32),
            jax.ShapeDtypeStruct((1, 77, config.cross_attention_dim), jnp.float32),
        )
        abstract = partial(abstract_unet, config)
        return Network(name, f"{source} (unet)", use(source), abstract, inputs, _output)

    def text(name: str, source: str, version: Any) -> Network:
        abstract = partial(abstract_text_tower, TextConfig.stable_diffusion(version))
        return Network(name, f"{source} (text_encoder)", use(source), abstract, _text(), _hidden)

    sd15, sd2 = "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd2-community/stable-diffusion-2-inpainting"
    return [
        unet("SD 1.5 UNet", sd15, UNetConfig.sd15()),
        unet("SD 2 inpainting UNet", sd2, UNetConfig.sd2(inpainting=True)),
        Network(
            "SD AutoencoderKL",
            f"{sd15} (vae)",
            use(sd15),
            partial(abstract_autoencoder, AutoencoderConfig()),
            _image(512),
            _reconstruction,
        ),
        text("SD 1.5 text tower", sd15, 1),
        text("SD 2 text tower", sd2, 2),
    ]


def _image(size: int) -> Shapes:
    return (jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),)


def _text() -> Shapes:
    return (jax.ShapeDtypeStruct((1, 77), jnp.int32),)


def _output(network, *inputs):
    return network(*inputs)[0]


def _both_towers(network, images, ids):
    return network.vision(images).embedding, network.text(ids).embedding


def _hidden(network, ids):
    return network(ids).hidden


def _reconstruction(network, images):
    return network.decode(network.encode(images).mean)
