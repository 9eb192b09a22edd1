"""Settings of the patch bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import SMALL, FrozenFeatures


@dataclass(frozen=True)
class PatchBankConfig(FrozenFeatures):
    """Nearest-patch memory bank: PatchCore's scoring (arXiv 2106.08265) on the features of the other detectors.

    The presets "paper" and "small" are the settings beside DPDiff-AD's presets of the same names.
    """

    RESOURCES: ClassVar = ("chunk",)
    MAIN: ClassVar = ("backbone", "blocks", "image_size", "bank_size", "per_category")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}

    bank_size: int = setting(
        20_000,
        source="jaxad",
        reason="PatchCore keeps a share of each category's patches; a fixed size bounds time and memory",
        decision="patch-bank-subsampling",
    )
    """Patches kept in each bank; more are subsampled."""
    subsampling: Literal["random", "coreset"] = setting(
        "random",
        source="jaxad",
        reason="PatchCore's coreset takes far longer to choose; a baseline should be quick",
        decision="patch-bank-subsampling",
    )
    """Which patches are kept: a random subset, or PatchCore's greedy k-center coreset."""
    per_category: bool = setting(
        False,
        source="jaxad",
        reason="PatchCore has a bank for each category; one for all needs no category at test time",
        decision="patch-bank-subsampling",
    )
    """One bank for each category (needs the category at test time) instead of one for all."""
    distance: Literal["cosine", "euclidean"] = setting(
        "cosine",
        source="jaxad",
        reason="PatchCore takes the L2 distance; the cosine is how DPDiff-AD compares tokens with prototypes",
        decision="patch-bank-features",
    )
    """1 - cosine, or the L2 distance, to the nearest patch of the bank."""
    neighbors: int = setting(1, source="paper")
    """Nearest patches over which the distance is averaged."""
    chunk: int = setting(4096, source="jaxad", reason="bounds memory only")
    """Bank entries compared at once: memory is batch x tokens x chunk."""
    seed: int = setting(0, source="jaxad", reason="any number does")
    """Seed of the subsampling."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 1, ("bank_size", "neighbors", "chunk"))
        if self.neighbors > self.chunk:
            problems.append(f"neighbors = {self.neighbors}: more than chunk = {self.chunk}")
        return problems
