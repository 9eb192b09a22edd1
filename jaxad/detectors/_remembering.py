"""What detectors have in common that learn from one pass over the patches of normal images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Self

import chex

from jaxad.detector import PatchDetector, Remembers
from jaxad.errors import ConfigError, DataError
from jaxad.features import FeatureCache, Progress, features_of
from jaxad.types import Array, Features, Source


class RememberingDetector(PatchDetector, Remembers):
    """A detector that learns from normal images without gradients. Abstract; `_learn` and `judge` are not written."""

    def remember(
        self, source: Source, *, features: FeatureCache | None = None, progress: Progress | None = None
    ) -> Self:
        """Learns from normal images, in place of what was known, in one pass; returns the detector itself.

        Args:
            source: the images.
            features: of all of them, where they are computed already.
            progress: called after every batch.

        Raises:
            DataError: the source holds no images.
        """
        if not len(source):
            raise DataError(f"{source.name}: no normal images to remember")
        self.learn_names(source)
        self._learn(features_of(self, source, features, progress), source)
        return self

    def _learn(self, stream: Iterator[Features], source: Source) -> None:
        """Takes what is to be known from the features of all images of `source`, in their order."""
        raise TypeError(f"{type(self).__name__} does not learn")

    def _tokens(self, features: Features) -> Array:
        """Tokens [b n c] to be judged.

        Raises:
            ConfigError: there is nothing yet to judge them by.
        """
        wanted = (None, math.prod(self.grid), self.channels)
        chex.assert_shape(features.tokens, wanted, custom_message=f"features.tokens must be {wanted}, which is [b n c]")
        if not self.categories:
            raise ConfigError(f"{self.name} knows nothing: call `remember` with normal images before it judges others")
        return features.tokens
