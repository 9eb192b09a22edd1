"""Features that one fit leaves in memory for the next."""

from __future__ import annotations

from collections.abc import Callable

from jaxad import parallel
from jaxad.detector import Detector
from jaxad.features.cache import FeatureCache, cache_identity
from jaxad.types import Source


class LastFeatures:
    """The features that a training has kept in memory last: those on the same images, by the same networks, share them.

    Give one to several calls of `jaxad.fit`, such as those of several seeds. It holds the features of one source at a
    time, and lets them go before others are computed.
    """

    def __init__(self) -> None:
        self._last: FeatureCache | None = None

    def of(self, detector: Detector, source: Source, build: Callable[[], FeatureCache]) -> FeatureCache:
        """The features of a source: those at hand, or what `build` computes.

        Args:
            detector: whose features they are.
            source: the images, all of them.
            build: called where the features at hand are of other images or another network.
        """
        last = self._last
        same = last is not None and last.identity == cache_identity(detector, source)
        # All processes take part in encoding.
        if last is None or not parallel.all_agree(same):
            self.clear()
            self._last = last = build()
        return last

    def clear(self) -> None:
        """Lets them go."""
        self._last = None
