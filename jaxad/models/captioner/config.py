"""Shapes of InternVL's networks.

Sources: arXiv 2312.14238, 2404.16821, 2504.10479, 2403.17297 (InternLM2), 2407.10671 (Qwen2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxad.nn.normalization import IMAGENET, Normalization


@dataclass(frozen=True)
class TowerConfig:
    """Shape of InternViT; the defaults are those of InternViT-300M."""

    width: int = 1024
    """Channels c of a patch."""
    depth: int = 24
    """Number of blocks."""
    heads: int = 16
    """Attention heads of a block."""
    hidden: int = 4096
    """Width of the feed-forward layer."""
    patch: int = 14
    """Side of a patch in pixels."""
    image_size: int = 448
    """Side of a tile in pixels."""
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    """Norm of the blocks; InternViT-6B has root mean squares."""
    head_norm: bool = False
    """Whether queries and keys are normalized, as in InternViT-6B."""
    qkv_bias: bool = True
    """Bias of the query, key and value projections."""
    norm_eps: float = 1e-6
    """Epsilon of every norm."""


@dataclass(frozen=True)
class Rotary:
    """How positions turn queries and keys (arXiv 2104.09864)."""

    base: float = 1_000_000.0
    """Longest wavelength, over 2 pi."""
    scaling: Literal["default", "linear", "dynamic"] = "default"
    """ "linear" divides positions by `factor`; "dynamic" enlarges the base of texts longer than `limit`."""
    factor: float = 1.0
    """Of the scaling."""
    limit: int = 32768
    """Tokens of a text that need no scaling."""


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the language model; the defaults are those of InternVL2-8B's, InternLM2."""

    width: int = 4096
    """Channels c of a token."""
    depth: int = 32
    """Number of blocks."""
    heads: int = 32
    """Query heads of a block."""
    key_heads: int = 8
    """Key and value heads of a block; each serves heads / key_heads query heads."""
    head_width: int = 128
    """Channels d of a head."""
    hidden: int = 14336
    """Width of the feed-forward layer."""
    vocabulary: int = 92553
    """Number of token ids."""
    norm_eps: float = 1e-5
    """Epsilon of every norm."""
    fused: bool = True
    """Whether queries, keys and values are one projection, as in InternLM2: of each key head its queries, itself, its
    values."""
    qkv_bias: bool = False
    """Bias of the query, key and value projections, as in Qwen2."""
    out_bias: bool = False
    """Bias of the attention's output."""
    tied: bool = False
    """Whether logits are products with the tokens' embeddings, without a head of their own."""
    rotary: Rotary = Rotary(scaling="dynamic", factor=2.0)
    """Positions."""


@dataclass(frozen=True)
class CaptionerConfig:
    """An InternVL; the defaults are those of InternVL2-8B."""

    tower: TowerConfig = TowerConfig()
    """What sees the tiles."""
    decoder: DecoderConfig = DecoderConfig()
    """What reads and writes."""
    shrink: int = 2
    """Side of the square of patches that become one token."""
    least_tiles: int = 1
    """Fewest tiles of an image."""
    most_tiles: int = 12
    """Most tiles of an image, without thumbnail."""
    thumbnail: bool = True
    """Whether an image of several tiles is also seen as a whole."""
    template: str = "internlm2-chat"
    """Name of the form in which questions are put (`jaxad.models.captioner.chat`)."""
    stops: tuple[int, ...] = ()
    """Ids that end an answer, besides the one that ends a turn."""
    normalization: Normalization = IMAGENET
    """How the tower takes tiles."""

    @property
    def tile_tokens(self) -> int:
        """Tokens that stand for a tile."""
        return (self.tower.image_size // self.tower.patch // self.shrink) ** 2

    @property
    def most(self) -> int:
        """Most tiles of an image, with its thumbnail."""
        return self.most_tiles + (self.thumbnail and self.most_tiles > 1)
