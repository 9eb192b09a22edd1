"""Settings of the patch bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jaxad.config.fields import Blocks, Precision, at_least, check_types, make_preset, raise_problems, repeated_blocks


@dataclass(frozen=True)
class PatchBankConfig:
    """Nearest-patch memory bank, PatchCore's scoring (arXiv 2106.08265) on the same features as the other systems."""

    backbone: str = "facebook/dinov2-with-registers-base"
    """Frozen features: a folder, file or Hugging Face id, or "embedded" for the ViT-S/14 of the `demo` extra."""
    blocks: Blocks = None
    """Blocks of a ViT, counted from 0, that are averaged: numbers, "middle" third, or None for the last half; of a
    convolutional network the stages that are concatenated, None for strides 4, 8 and 16."""
    image_size: int = 448
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    bank_size: int = 20_000
    """Patches kept in each bank; more are subsampled."""
    subsampling: Literal["random", "coreset"] = "random"
    """Which patches are kept: a random subset, or PatchCore's greedy k-center coreset."""
    per_category: bool = False
    """One bank for each category (needs the category at test time) instead of one for all."""
    distance: Literal["cosine", "euclidean"] = "cosine"
    """1 - cosine, or the L2 distance, to the nearest patch of the bank."""
    neighbors: int = 1
    """Nearest patches over which the distance is averaged."""
    chunk: int = 4096
    """Bank entries compared at once: memory is batch x tokens x chunk."""
    seed: int = 0
    """Seed of the subsampling."""
    precision: Precision = "auto"
    """Compute type of the backbone: "auto" is float32 on CPU and bfloat16 on GPU and TPU."""

    @classmethod
    def preset(cls, name: Literal["paper", "small"] = "paper", **changes: Any) -> PatchBankConfig:
        """The setting beside DPDiff-AD's preset of the same name."""
        small = {"backbone": "embedded", "image_size": 224, "blocks": "middle"}
        return make_preset(cls, name, {"paper": {}, "small": small}, changes)

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        problems = at_least(self, 1, ("image_size", "bank_size", "neighbors", "chunk"))
        if self.neighbors > self.chunk:
            problems.append(f"neighbors = {self.neighbors}: more than chunk = {self.chunk}")
        problems += repeated_blocks(self.blocks)
        raise_problems("PatchBankConfig", problems)
