"""What a network must be and say to serve as a backbone, and the registry of the families that there are."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

import jax

from jaxad.errors import ConfigError
from jaxad.models.weights.loader import Weights
from jaxad.nn.normalization import IMAGENET, Normalization
from jaxad.nn.positions import Interpolation
from jaxad.registry import Registry, registrar
from jaxad.types import Array


class Network(Protocol):
    """A frozen network that makes features: an `nnx.Module` with the members below.

    A block is whatever has an output that can be a feature: a transformer's block, a convolutional network's stage.

    Attributes:
        config: the frozen dataclass that `Family.abstract` made it from.
        depth: number of blocks.
        patch: pixels of the image per feature, along each side; images come in multiples of it.
    """

    config: Any

    @property
    def depth(self) -> int: ...

    @property
    def patch(self) -> int: ...

    def features(self, images: Array, blocks: tuple[int, ...]) -> jax.Array:
        """Features of normalized images, from the outputs of `blocks`.

        Args:
            images: float [b h w 3], both sides multiples of `patch`.
            blocks: numbers of blocks, counted from 0.

        Returns:
            float32 [b n c], n = h / patch * w / patch, row by row.
        """
        ...

    def features_width(self, blocks: tuple[int, ...]) -> int:
        """Channels c of `features` for these blocks."""
        ...

    def usual_blocks(self, part: Literal["middle"] | None = None) -> tuple[int, ...]:
        """The blocks that make the features unless a user names others; "middle" for a choice of mid-level ones."""
        ...

    def maps(self, images: Array, stages: tuple[int, ...] | None = None) -> list[jax.Array]:
        """One or more feature maps float32 [b h' w' c] of normalized images [b h w 3], for detectors that compare
        whole images by them, as VLMDiff does; of chosen `stages` where the network has such, else always None."""
        ...


class Family(Protocol):
    """Networks of one architecture in all its sizes, and the files that hold their weights.

    A family is a class that is never instantiated: all its functions are static. Inherit from this one to have the
    defaults of `normalization` and `random`, and register it:

        @jaxad.models.family.register_backbone
        class Swin(Family):
            name = "swin"
            config = SwinConfig
            ...

    in a module that is imported before the first backbone is loaded, or that an entry point `swin` of the group
    "jaxad.backbones" names. `load_backbone`, checkpoints and `--model.backbone` then take its networks.

    Attributes:
        name: what checkpoints call the family.
        config: class of the network's shape, a frozen dataclass of JSON-ready fields; no two families share one.
        random_names: how the names that `random` knows are written, for messages.
    """

    name: ClassVar[str]
    config: ClassVar[type]
    random_names: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def abstract(config: Any, dtype: Any) -> Network:
        """The network of that shape without arrays (`jaxad.nn.module_state.abstract`); `dtype` is its compute type."""
        ...

    @staticmethod
    def recognizes(weights: Weights) -> bool:
        """Whether `weights` are of this family, by `weights.config` (config.json) or the tensors' names and shapes.

        Should say yes to damaged files too, so that `load` can say what is wrong with them.
        """
        ...

    @staticmethod
    def load(weights: Weights, dtype: Any, interpolation: Interpolation | None) -> Network:
        """The network that `weights` hold: its shape read off them, every parameter filled, every tensor accounted for.

        `jaxad.models.weights.key_map.fill` does the latter, given a table of names.

        Args:
            weights: such as this family recognizes.
            dtype: compute type; parameters are float32.
            interpolation: how learned positions are resized, None for the way of the network's authors; of no meaning
                for networks without them.

        Raises:
            WeightsError: weights that do not fit.
        """
        ...

    @staticmethod
    def normalization(weights: Weights, network: Any) -> Normalization:
        """How the network takes images where its files do not say; ImageNet's by default, as most are trained."""
        return IMAGENET

    @staticmethod
    def random(name: str) -> Any:
        """The shape of the untrained network "random:NAME", a `config`; None for names that this family lacks."""
        return None


families: Registry[type[Family]] = Registry("backbone family", group="jaxad.backbones", package="jaxad.models.families")
"""All families by name; jaxad's own are the modules of `jaxad.models.families`."""

register_backbone = registrar(families)
"""Class decorator that registers a family under its attribute `name`."""


def recognize(weights: Weights) -> type[Family] | None:
    """The family that `weights` are of, None if of none known.

    Families of other packages are asked before jaxad's own, so that one for a variant goes before the architecture in
    general.
    """
    return next((family for family in reversed(families.entries().values()) if family.recognizes(weights)), None)


def family_of(config: Any) -> type[Family]:
    """The family whose networks have shapes of the class of `config`.

    Raises:
        ConfigError: there is none.
    """
    found = next((family for family in families.entries().values() if type(config) is family.config), None)
    if found is None:
        raise ConfigError(f"{type(config).__name__}: no backbone family has it as its config")
    return found
