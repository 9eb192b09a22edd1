"""Nearest-patch memory bank: PatchCore's scoring (arXiv 2106.08265) as the baseline that others are judged against."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import PatchBankConfig
from jaxad.detectors.patch_detector import PatchDetector
from jaxad.errors import ConfigError, DataError
from jaxad.features import Encoder, FeatureCache, Progress
from jaxad.memory.bank import Reservoir, bank_entries, greedy_coreset, nearest_distance, stack_banks
from jaxad.models.backbone import Backbone
from jaxad.nn.variables import Memory
from jaxad.types import Array, Batch, Context, Features, Prediction, Source

CANDIDATES = 5
"""A coreset is chosen from this many times as many random patches: the greedy search needs them all in memory."""


class PatchBank(PatchDetector):
    """Distance of every patch to the nearest normal patch, from one bank for all categories or one for each.

    Make one with `PatchBank.create(config)`, fill it with `remember(source)`.
    """

    name: ClassVar[str] = "patch-bank"
    title: str = "Patch bank"
    trains: bool = False
    config_class: ClassVar[Any] = PatchBankConfig
    memories: ClassVar[tuple[str, ...]] = ("banks",)

    def __init__(self, config: PatchBankConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone)
        self.banks = Memory.empty()

    @classmethod
    def create(
        cls, config: PatchBankConfig | None = None, *, key: Array | None = None, backbone: Backbone | None = None
    ) -> Self:
        """A detector with an empty bank.

        Args:
            config: settings; None for the defaults.
            key: not used, there are no parameters; accepted as by every system.
            backbone: the frozen network, if it is already loaded; else `config.backbone` is loaded.
        """
        return cls(config or PatchBankConfig(), backbone)

    @property
    def needs_category(self) -> bool:
        return self.config.per_category

    def remember(
        self, source: Source, *, features: FeatureCache | None = None, progress: Progress | None = None
    ) -> Self:
        """Fills the bank, or one bank for each category, from one pass over normal images.

        Args:
            source: the images.
            features: of all of them, where they are computed already.
            progress: called after every batch.

        Raises:
            DataError: the source holds no images.
        """
        if not len(source):
            raise DataError(f"{source.name}: no normal images to remember")
        config = self.config
        self.categories = tuple(source.categories)
        groups = [record.category if config.per_category else "" for record in source.records]
        kept = config.bank_size * (CANDIDATES if config.subsampling == "coreset" else 1)
        reservoirs = {
            group: Reservoir(min(kept, images * math.prod(self.grid)), config.seed)
            for group, images in Counter(groups).items()
        }
        stream = (
            features.stream()
            if features is not None
            else (f for f, _ in Encoder(self).stream(source, progress=progress))
        )
        tokens = (np.asarray(image, np.float32) for batch in stream for image in batch.tokens)
        for group, image in zip(groups, tokens, strict=True):
            reservoirs[group].add(image)
        names = self.categories if config.per_category else ("",)
        entries = [bank_entries(reservoirs[name].patches(), config.distance) for name in names]
        if config.subsampling == "coreset":
            keys = jax.random.split(jax.random.key(config.seed), len(entries))
            chosen = [greedy_coreset(bank, config.bank_size, key) for bank, key in zip(entries, keys, strict=True)]
            entries = [bank[np.sort(indices)] for bank, indices in zip(entries, chosen, strict=True)]
        self.banks = Memory(jnp.asarray(stack_banks(entries)))
        return self

    def context(self, features: Features, batch: Batch) -> Context:
        """Which bank each image is compared with."""
        if not self.categories:
            raise ConfigError("patch-bank is empty: call `remember` with normal images before it judges others")
        if not self.needs_category:
            return Context({"bank": jnp.zeros(features.tokens.shape[0], jnp.int32)})
        if batch.category is None:
            raise DataError("patch-bank with one bank per category needs the category of every image (--category NAME)")
        return Context({"bank": batch.category})

    def score(self, features: Features, reconstruction: Features | None, context: Context) -> Prediction:
        """Distance of every patch to its nearest entries, on the token grid."""
        config = self.config
        near = nearest_distance(
            features.tokens,
            self.banks[...],
            context.arrays["bank"],
            distance=config.distance,
            neighbors=config.neighbors,
            chunk=config.chunk,
        )
        return Prediction(near.reshape(-1, *features.grid))
