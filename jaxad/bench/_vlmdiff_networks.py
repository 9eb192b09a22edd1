"""The VLMDiff that its benchmark is about: networks without arrays, of the published size or of a few channels."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jaxad.bench._account import batch_of, on_cpu
from jaxad.config import FirstStageConfig, VLMDiffConfig, to_json
from jaxad.detectors.vlmdiff.detector import VLMDiff
from jaxad.models.clip.config import TextConfig
from jaxad.models.convnets.lpips import abstract_lpips
from jaxad.models.convnets.vgg import WIDTHS as VGG_WIDTHS
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.vit.config import ViTConfig
from jaxad.nn import module_state
from jaxad.nn.normalization import IMAGENET
from jaxad.training.autoencoder.loss import AUTOENCODER, LPIPS
from jaxad.types import Features

Size = Literal["published", "tiny"]


class Shapes(NamedTuple):
    """Of the networks, and the side of an image."""

    unet: UNetConfig
    autoencoder: AutoencoderConfig
    text: TextConfig
    backbone: ViTConfig
    image_size: int


PUBLISHED = Shapes(
    UNetConfig.sd15(), AutoencoderConfig(), TextConfig.stable_diffusion(1), ViTConfig.dino("small", 8), 256
)
TINY = Shapes(
    UNetConfig(
        block_out_channels=(8, 64),
        layers_per_block=1,
        down_attention=(False, False),
        up_attention=(False, False),
        heads=(2, 2),
        cross_attention_dim=16,
        norm_num_groups=4,
    ),
    AutoencoderConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4),
    TextConfig(16, depth=1, heads=2, hidden=32, vocabulary=300, projection=None),
    ViTConfig(16, 1, 2, 8, image_size=16, hidden=32),
    16,
)
"""For tests: few layers, a factor of 2, and some kernels that are large enough to be sharded."""


def abstract_vlmdiff(size: Size, dtype: Literal["float32", "bfloat16"], remat: bool = True) -> VLMDiff:
    """The detector without arrays."""
    return built(PUBLISHED if size == "published" else TINY, dtype, remat)


def built(shapes: Shapes, dtype: Literal["float32", "bfloat16"], remat: bool) -> VLMDiff:
    """The detector of networks of these shapes, without arrays."""
    config = VLMDiffConfig(image_size=shapes.image_size, precision=dtype, remat=remat)
    networks = {"unet": shapes.unet, "autoencoder": shapes.autoencoder, "text": shapes.text}
    values = {"family": "vit", "shape": to_json(shapes.backbone), "normalization": to_json(IMAGENET), "dtype": dtype}
    backbone = {**values, "id": config.backbone, "sha256": "", "bytes": 0}
    structure = {name: to_json(shape) for name, shape in networks.items()}
    return VLMDiff.abstract(config, {"backbone": backbone, "networks": {**structure, "identity": []}})


def features(detector: VLMDiff, batch: int) -> Features:
    """Shapes of what the feature cache gives to the training step for so many images."""
    graphdef, arrays = module_state.split(detector)
    captions = jax.ShapeDtypeStruct((batch, detector.text.config.context), jnp.int32)
    images = batch_of(detector, batch, {"caption": captions})
    return jax.eval_shape(lambda arrays, images: module_state.merge(graphdef, arrays).encode(images), arrays, images)


def compilable(detector: VLMDiff, mesh: Mesh) -> VLMDiff:
    """The detector, or on a CPU, which emulates bfloat16, the same in float32."""
    if not on_cpu(mesh):
        return detector
    config, networks = detector.config, (detector.unet.config, detector.autoencoder.config, detector.text.config)
    shapes = Shapes(*networks, detector.backbone.network.config, config.image_size)
    return built(shapes, "float32", config.remat)


def abstract_first_stage(size: Size) -> tuple[dict[str, nnx.Module], FirstStageConfig]:
    """The autoencoder and LPIPS, which finetuning takes, without arrays, and its settings."""
    shapes = PUBLISHED if size == "published" else TINY
    widths = VGG_WIDTHS if size == "published" else (8,) * len(VGG_WIDTHS)
    networks = {AUTOENCODER: abstract_autoencoder(shapes.autoencoder), LPIPS: abstract_lpips(widths)}
    return networks, FirstStageConfig(image_size=shapes.image_size)
