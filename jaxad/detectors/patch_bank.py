"""Nearest-patch memory bank: PatchCore's scoring (arXiv 2106.08265) as the baseline that others are judged against."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import PatchBankConfig
from jaxad.detector import InputSpec, register
from jaxad.detectors._remembering import RememberingDetector
from jaxad.errors import DataError
from jaxad.features import Progress, features_of
from jaxad.memory.bank import Reservoir, bank_entries, greedy_coreset, nearest_distance, stack_banks
from jaxad.models.backbone import Backbone
from jaxad.nn.variables import Memory
from jaxad.types import Array, Batch, Features, Judgement, Source

CANDIDATES = 5
"""A coreset is chosen from this many times as many random patches: the greedy search needs them all in memory."""


@register
class PatchBank(RememberingDetector):
    """Distance of every patch to the nearest normal patch, from one bank for all categories or one for each.

    Make one with `PatchBank.create(config)`, fill it with `remember(source)`.
    """

    name: ClassVar[str] = "patch-bank"
    title: str = "Patch bank"
    config_class: ClassVar[type] = PatchBankConfig
    extends: ClassVar[bool] = True

    def __init__(self, config: PatchBankConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        self.banks = Memory.empty()

    @property
    def inputs(self) -> InputSpec:
        return dataclasses.replace(super().inputs, needs_category=self.config.per_category)

    def _learn(self, stream: Iterable[Features], source: Source) -> None:
        """Fills the bank, or one bank for each category."""
        entries = self._entries(stream, source)
        self.banks = Memory(jnp.asarray(stack_banks([entries[name] for name in self._groups(self.categories)])))

    def extend(self, source: Source, *, progress: Progress | None = None) -> Self:
        """Adds patches of further normal images to the bank, at most `bank_size` of them, and takes none away.

        Args:
            source: the images; a category that is new gets a bank of its own where each has one.
            progress: called after every batch.

        Raises:
            DataError: the source holds no images.
        """
        if not len(source):
            raise DataError(f"{source.name}: no normal images to remember")
        entries, known = self._entries(features_of(self, source, None, progress), source), np.asarray(self.banks[...])
        for name, bank in zip(self._groups(self.categories), known, strict=True):
            kept = bank[~np.isnan(bank[:, 0])]
            entries[name] = np.concatenate([kept, entries[name]]) if name in entries else kept
        self.categories = tuple(dict.fromkeys((*self.categories, *source.categories)))
        self.depths = tuple(sorted({**dict(getattr(source, "depths", {})), **dict(self.depths)}.items()))
        self.banks = Memory(jnp.asarray(stack_banks([entries[name] for name in self._groups(self.categories)])))
        return self

    def _groups(self, categories: Sequence[str]) -> Sequence[str]:
        """The names of the banks."""
        return categories if self.config.per_category else ("",)

    def _entries(self, stream: Iterable[Features], source: Source) -> dict[str, np.ndarray]:
        """The patches of a source that a bank keeps [k c], by the name of the bank."""
        config = self.config
        groups = [record.category if config.per_category else "" for record in source.records]
        kept = config.bank_size * (CANDIDATES if config.subsampling == "coreset" else 1)
        reservoirs = {
            group: Reservoir(min(kept, images * math.prod(self.grid)), config.seed)
            for group, images in Counter(groups).items()
        }
        tokens = (np.asarray(image, np.float32) for batch in stream for image in batch.tokens)
        for group, image in zip(groups, tokens, strict=True):
            reservoirs[group].add(image)
        names = self._groups(tuple(source.categories))
        entries = [bank_entries(reservoirs[name].patches(), config.distance) for name in names]
        if config.subsampling == "coreset":
            keys = jax.random.split(jax.random.key(config.seed), len(entries))
            chosen = [greedy_coreset(bank, config.bank_size, key) for bank, key in zip(entries, keys, strict=True)]
            entries = [bank[np.sort(indices)] for bank, indices in zip(entries, chosen, strict=True)]
        return {name: np.asarray(bank) for name, bank in zip(names, entries, strict=True)}

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Distance of every patch to its nearest entries, on the token grid."""
        config = self.config
        tokens = self._tokens(features)
        near = nearest_distance(
            tokens,
            self.banks[...],
            self._bank_of_each(len(tokens), batch),
            distance=config.distance,
            neighbors=config.neighbors,
            chunk=config.chunk,
        )
        return Judgement(near.reshape(-1, *features.grid))

    def _bank_of_each(self, images: int, batch: Batch) -> Array:
        """The number of the bank that each image is compared with, int32 [b]."""
        if not self.config.per_category:
            return jnp.zeros(images, jnp.int32)
        if batch.category is None:
            raise DataError("patch-bank with one bank per category must know the category of every image (`category`)")
        return batch.category
