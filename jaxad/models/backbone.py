"""The frozen feature network of a detector: uint8 images in, patch features out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad import config
from jaxad.config import Blocks
from jaxad.errors import ConfigError, WeightsError
from jaxad.models.family import families, family_of, recognize
from jaxad.models.weights import embedded
from jaxad.models.weights.loader import Weights, find_weights
from jaxad.nn import module_state
from jaxad.nn.normalization import IMAGENET, Normalization
from jaxad.nn.positions import Interpolation, patch_grid
from jaxad.nn.variables import freeze
from jaxad.types import Array

DType = Literal["float32", "bfloat16"]

_RANDOM = "random:"
_KINDS = ("model_type", "architecture")


class Backbone(nnx.Module):
    """A frozen network as detectors use it; its arrays are of the variable type `Frozen`.

    Attributes:
        network: the network, of any registered family; the "blocks" of a convolutional one are its stages.
        normalization: how it takes images.
        id: the name it was loaded by; of one from the hub ORG/NAME@COMMIT.
        sha256: hash of its weight files, "" for random weights.
        bytes: size of its weight files, of its parameters for random weights.
        dtype: compute type; features are float32 in any case.
        depth: number of blocks.
        patch: pixels of the image per feature.
    """

    def __init__(
        self,
        network: Any,
        *,
        normalization: Normalization = IMAGENET,
        id: str,
        sha256: str,
        bytes: int,
        dtype: DType,
    ):
        self.network: Any = freeze(network)
        self.normalization = normalization
        self.id, self.sha256, self.bytes = id, sha256, bytes
        self.dtype: DType = dtype
        self.depth, self.patch = network.depth, network.patch

    @classmethod
    def random(cls, shape: Any, key: jax.Array, *, id: str = "random", dtype: DType = "float32") -> Backbone:
        """An untrained backbone, for tests and for experiments that need one.

        Args:
            shape: a config of any family.
            key: draws the parameters.
            id: name to go by.
            dtype: compute type.
        """
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        abstract: Any = family_of(shape).abstract(shape, jnp.dtype(dtype))
        network = module_state.drawn(abstract, generator)
        bytes = sum(array.nbytes for array in module_state.split(network)[1].values())
        return cls(network, id=id, sha256="", bytes=bytes, dtype=dtype)

    def features(self, images: Array, blocks: tuple[int, ...]) -> jax.Array:
        """Features of `blocks` on one grid; blocks above the deepest of them do not run.

        Those of a ViT are its patch tokens without final norm, averaged over the blocks (DPDiff-AD, Eq. 9). Those of a
        convolutional network are brought to the grid of stride 16, by averages or bilinearly, and concatenated,
        shallow ones first.

        Args:
            images: uint8 [b h w 3], both sides multiples of `patch`; normalization happens here.
            blocks: block numbers counted from 0.

        Returns:
            float32 [b n c].

        Raises:
            ConfigError: a block or an image size that this network cannot have.
        """
        chex.assert_shape(images, (None, None, None, 3), custom_message="images must be [b h w 3]")
        return self.network.features(self.normalization(images), blocks)

    def select_blocks(self, blocks: Blocks = None) -> tuple[int, ...]:
        """The numbers of the blocks that make the features.

        Args:
            blocks: numbers; "middle" for the middle third; None for those from half the depth on. Of a convolutional
                network either means the stages that end at strides 4, 8 and 16.

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
        return patch_grid((height, width), self.patch)

    def config_json(self) -> dict[str, Any]:
        """All that `backbone_from_config` needs, as JSON-ready values."""
        return {
            "family": family_of(self.network.config).name,
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
        name: a local folder or weight file, or a hub id (ORG/NAME or ORG/NAME@REVISION), of any registered family,
            such as DINOv2, DINO, ViT, ResNet or EfficientNet as transformers, timm, torchvision or their authors write
            them; "embedded" for the ViT-S/14 of the `demo` extra; or, for an untrained network that is always the same,
            "random:WIDTHxDEPTH" or "random:WIDTHxDEPTHxPATCH", which is a ViT, "random:resnet18",
            "random:efficientnet_b0" and so on.
        dtype: compute type; parameters are float32.
        revision: branch, tag or commit on the hub.
        interpolation: how a ViT's positions are resized, None for the way of the network's authors.

    Raises:
        WeightsError: there are no such weights, or they do not fit their network.
        ConfigError: a "random:" name that no family knows.
    """
    if name.startswith(_RANDOM):
        return Backbone.random(_random_shape(name), jax.random.key(0), id=name, dtype=dtype)
    weights = embedded.embedded_weights() if name == embedded.NAME else find_weights(name, revision)
    with weights.reading():
        family = recognize(weights)
        if family is None:
            raise WeightsError(_unrecognized(weights))
        network = family.load(weights, jnp.dtype(dtype), interpolation)
        usual = family.normalization(weights, network)
        normalization = Normalization.of(weights.preprocessor, weights.config, usual)
    return Backbone(
        network,
        normalization=normalization,
        id=weights.pinned,
        sha256=weights.sha256,
        bytes=weights.bytes,
        dtype=dtype,
    )


def backbone_from_config(values: Mapping[str, Any], *, dtype: DType | None = None) -> Backbone:
    """The backbone that `Backbone.config_json` describes, without arrays; a checkpoint fills it.

    Args:
        values: what `config_json` gave.
        dtype: compute type in place of the recorded one.

    Raises:
        ConfigError: values that `config_json` does not give, or a family that is not installed here.
    """
    wanted = {"family", "shape", "normalization", "dtype", "id", "sha256", "bytes"}
    if values.keys() != wanted:
        raise ConfigError(f"backbone config {sorted(values)}: needs exactly {sorted(wanted)}")
    compute: DType = dtype or values["dtype"]
    family = families.get(values["family"])
    return Backbone(
        family.abstract(config.from_json(family.config, values["shape"]), jnp.dtype(compute)),
        normalization=config.from_json(Normalization, values["normalization"]),
        id=values["id"],
        sha256=values["sha256"],
        bytes=values["bytes"],
        dtype=compute,
    )


def _unrecognized(weights: Weights) -> str:
    """What to say of weights that no family recognizes."""
    names = sorted(weights.tensors)
    signs = [f"config.json: {key} = {weights.config[key]!r}" for key in _KINDS if key in weights.config]
    signs.append(f"tensors are called, e.g., {', '.join(names[:: max(len(names) // 3, 1)][:3]) or 'nothing'}")
    return f"{weights}: no backbone known here ({'; '.join(signs)}); must be one of {', '.join(families.names())}"


def _random_shape(name: str) -> Any:
    found = (family.random(name.removeprefix(_RANDOM)) for family in families.entries().values())
    if (shape := next((shape for shape in found if shape is not None), None)) is not None:
        return shape
    forms = ", ".join(f"{_RANDOM}{form}" for family in families.entries().values() for form in family.random_names)
    raise ConfigError(f"backbone = {name!r}: must be one of {forms}")
