"""The frozen feature network of a detector: uint8 images in, patch features out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad import config
from jaxad.config import Blocks
from jaxad.errors import ConfigError, WeightsError
from jaxad.models.convnets.convolution import ConvNet
from jaxad.models.convnets.efficientnet import SCALES, EfficientNet, EfficientNetConfig, abstract_efficientnet
from jaxad.models.convnets.efficientnet_checkpoints import is_efficientnet, load_efficientnet
from jaxad.models.convnets.resnet import LAYERS, ResNetConfig, abstract_resnet, is_resnet, load_resnet
from jaxad.models.vit.config import ViTConfig
from jaxad.models.vit.network import ViT, abstract_vit, load_vit
from jaxad.models.weights import embedded
from jaxad.models.weights.loader import Weights, find_weights
from jaxad.nn import module_state
from jaxad.nn.normalization import IMAGENET, INCEPTION, Normalization
from jaxad.nn.positions import Interpolation
from jaxad.nn.variables import freeze
from jaxad.types import Array

DType = Literal["float32", "bfloat16"]

Shape = ViTConfig | ResNetConfig | EfficientNetConfig

NETWORKS: Mapping[str, tuple[Any, Any]] = {
    "vit": (ViTConfig, abstract_vit),
    "resnet": (ResNetConfig, abstract_resnet),
    "efficientnet": (EfficientNetConfig, abstract_efficientnet),
}
"""Kind of network -> class of its shape, and what makes its structure without arrays."""


class Backbone(nnx.Module):
    """A frozen network as detectors use it; its arrays are ordinary nnx.Param variables.

    Attributes:
        network: the network; the "blocks" of a convolutional one are its stages.
        normalization: how it takes images.
        id: the name it was loaded by.
        sha256: hash of its weight files, "" for random weights.
        bytes: size of its weight files, of its parameters for random weights.
        dtype: compute type; features are float32 in any case.
        depth: number of blocks.
        patch: pixels of the image per feature, 16 for every convolutional network.
    """

    def __init__(
        self,
        network: ViT | ConvNet,
        *,
        normalization: Normalization = IMAGENET,
        id: str,
        sha256: str,
        bytes: int,
        dtype: DType,
    ):
        self.network = freeze(network)
        self.normalization = normalization
        self.id, self.sha256, self.bytes = id, sha256, bytes
        self.dtype: DType = dtype
        self.depth, self.patch = network.depth, network.patch

    @classmethod
    def random(cls, shape: Shape, key: jax.Array, *, id: str = "random", dtype: DType = "float32") -> Backbone:
        """An untrained backbone, for tests and for experiments that need one."""
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        network = module_state.drawn(_abstract(shape, dtype), generator)
        bytes = sum(array.nbytes for array in module_state.split(network)[1].values())
        return cls(network, id=id, sha256="", bytes=bytes, dtype=dtype)

    def features(self, images: Array, blocks: tuple[int, ...]) -> jax.Array:
        """Features of `blocks` on one grid; blocks above the deepest of them do not run.

        Those of a ViT are its patch tokens without final norm, averaged over the blocks. Those of a convolutional
        network are brought to the grid of stride 16, by averages or bilinearly, and concatenated, shallow ones first.

        Args:
            images: uint8 [b h w 3], both sides multiples of `patch`; normalization happens here.
            blocks: block numbers counted from 0.

        Returns:
            float32 [b n c].

        Raises:
            ConfigError: a block or an image size that this network cannot have.

        Source: SPEC 3.1, Eq. 9; SPEC 3.4 row 26.
        """
        return self.network.features(self.normalization(images), blocks)

    def select_blocks(self, blocks: Blocks = None) -> tuple[int, ...]:
        """The numbers of the blocks that make the features.

        Args:
            blocks: numbers; "middle" for the middle third; None for those from half the depth on (SPEC 3.4 row 27).
                Either word means a convolutional network's stages that end at strides 4, 8 and 16 (row 26).

        Raises:
            ConfigError: a block that this network does not have.
        """
        if not isinstance(blocks, tuple):
            return self.network.usual_blocks(blocks)
        if strangers := [block for block in blocks if not 0 <= block < self.depth]:
            raise ConfigError(f"blocks = {blocks}: {self.id} has blocks 0 to {self.depth - 1}, not {strangers}")
        return blocks

    def width(self, blocks: tuple[int, ...]) -> int:
        """Channels c of the features of `blocks`."""
        return self.network.features_width(blocks)

    def grid(self, image_size: int | tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns (h, w) of the features of an image of that side, or that (height, width), in pixels.

        Raises:
            ConfigError: a side that is no multiple of the patch.
        """
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        return self.network.grid((height, width))

    def config_json(self) -> dict[str, Any]:
        """All that `backbone_from_config` needs, as JSON-ready values."""
        return {
            "network": next(name for name, (shape, _) in NETWORKS.items() if isinstance(self.network.config, shape)),
            "shape": config.to_json(self.network.config),
            "normalization": config.to_json(self.normalization),
            "dtype": self.dtype,
            "id": self.id,
            "sha256": self.sha256,
            "bytes": self.bytes,
        }


def load_backbone(
    name: str,
    *,
    dtype: DType = "float32",
    revision: str | None = None,
    interpolation: Interpolation | None = None,
) -> Backbone:
    """The pretrained backbone of that name.

    Args:
        name: a local folder or weight file, or a hub id, of DINOv2, DINO, ViT, ResNet or EfficientNet as transformers,
            timm, torchvision or their authors write them; "embedded" for the ViT-S/14 of the `demo` extra; or, for an
            untrained network that is always the same, "random:WIDTHxDEPTH" or "random:WIDTHxDEPTHxPATCH", which is a
            ViT, "random:resnet18", "random:efficientnet_b0" and so on.
        dtype: compute type; parameters are float32.
        revision: branch, tag or commit on the hub.
        interpolation: how a ViT's positions are resized, None for the way of the network's authors (SPEC 6.1).

    Raises:
        WeightsError: there are no such weights, or they do not fit their network.
        ConfigError: a malformed "random:" name.
    """
    if name.startswith("random:"):
        return Backbone.random(_random_shape(name), jax.random.key(0), id=name, dtype=dtype)
    weights = embedded.embedded_weights() if name == embedded.NAME else find_weights(name, revision)
    network = _load_network(weights, dtype, interpolation)
    normalization = Normalization.of(weights.preprocessor, weights.config, _usual_normalization(weights, network))
    return Backbone(
        network, normalization=normalization, id=weights.id, sha256=weights.sha256, bytes=weights.bytes, dtype=dtype
    )


def backbone_from_config(values: Mapping[str, Any], *, dtype: DType | None = None) -> Backbone:
    """The backbone that `Backbone.config_json` describes, without arrays; a checkpoint fills it (DESIGN 4.9).

    Args:
        values: what `config_json` gave.
        dtype: compute type in place of the recorded one.

    Raises:
        ConfigError: values that `config_json` does not give.
    """
    # Checkpoints of the first version do not name the normalization, which was always ImageNet's.
    values = {"normalization": config.to_json(IMAGENET), **values}
    wanted = {"network", "shape", "normalization", "dtype", "id", "sha256", "bytes"}
    if values.keys() != wanted or values["network"] not in NETWORKS:
        raise ConfigError(
            f"backbone config {sorted(values)}: needs exactly {sorted(wanted)}, network one of {', '.join(NETWORKS)}"
        )
    compute: DType = dtype or values["dtype"]
    shape = config.from_json(NETWORKS[values["network"]][0], values["shape"])
    return Backbone(
        _abstract(shape, compute),
        normalization=config.from_json(Normalization, values["normalization"]),
        id=values["id"],
        sha256=values["sha256"],
        bytes=values["bytes"],
        dtype=compute,
    )


def _load_network(weights: Weights, dtype: DType, interpolation: Interpolation | None) -> ViT | ConvNet:
    """The network that `weights` hold: as config.json says, or else of the kind whose tensors they are."""
    model_type = weights.config.get("model_type")
    known = ("dinov2", "dinov2_with_registers", "vit", "resnet", "efficientnet")
    if model_type is not None and model_type not in known:
        raise WeightsError(
            f"{weights}: config.json: model_type = {model_type!r} is no backbone; must be one of {', '.join(known)}"
        )
    if is_resnet(weights):
        return load_resnet(weights, jnp.dtype(dtype))
    if is_efficientnet(weights):
        return load_efficientnet(weights, jnp.dtype(dtype))
    return load_vit(weights, jnp.dtype(dtype), interpolation)


def _usual_normalization(weights: Weights, network: ViT | ConvNet) -> Normalization:
    """That of networks of this kind, for checkpoints that do not say.

    ImageNet's (SPEC 3.4 row 5), but for networks that most authors trained otherwise: Vision Transformers with a
    classifier, which are supervised, and EfficientNet-Lite.
    """
    if isinstance(network, EfficientNet):
        return INCEPTION if network.config.lite and network.config.padding == "same" else IMAGENET
    supervised = isinstance(network, ViT) and not weights.tensors.keys().isdisjoint(
        ("head.weight", "classifier.weight")
    )
    return INCEPTION if supervised and "architecture" not in weights.config else IMAGENET


def _abstract(shape: Shape, dtype: DType) -> ViT | ConvNet:
    return next(abstract(shape, jnp.dtype(dtype)) for kind, abstract in NETWORKS.values() if isinstance(shape, kind))


def _random_shape(name: str) -> Shape:
    if (match := re.fullmatch(r"random:resnet(\d+)", name)) and int(match[1]) in LAYERS:
        return ResNetConfig.resnet(int(match[1]))
    if (match := re.fullmatch(r"random:efficientnet_(\w+)", name)) and match[1] in SCALES:
        return EfficientNetConfig.published(match[1])
    match = re.fullmatch(r"random:(\d+)x(\d+)(?:x(\d+))?", name)
    if not match or 0 in (numbers := [int(number) for number in match.groups("14")]):
        raise ConfigError(
            f"backbone {name!r}: must be random:WIDTHxDEPTH, random:WIDTHxDEPTHxPATCH, random:resnetN, N one of "
            f"{', '.join(map(str, LAYERS))}, or random:efficientnet_N, N one of {', '.join(SCALES)}"
        )
    width, depth, patch = numbers
    heads = width // 16 if width % 16 == 0 else 1
    return ViTConfig(width, depth, heads, patch, image_size=16 * patch, hidden=4 * width)
