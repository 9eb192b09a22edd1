"""Images that come without the captions that condition a detector: "" stands for them, and that is said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxad.data import ImageList
from jaxad.data.captions.record import lacking, other_kind, record_of
from jaxad.detector import Detector
from jaxad.errors import ConfigError
from jaxad.types import Source

Told = Callable[[str], object]


class Uncaptioned:
    """Looks at what comes, and says once that images have no caption.

    Args:
        detector: judges.
        measured: what is recorded of the captions of the images that the threshold was measured on; None where there
            is no such threshold.
        told: is told; None for a Python warning.

    Attributes:
        unlike: why that threshold does not hold for an image without caption; "" where it does.
    """

    def __init__(self, detector: Detector, measured: Mapping[str, Any] | None = None, told: Told | None = None):
        self._waits = detector.inputs.captions == "always"
        self._measured, self._told = measured, told or _warn
        bare = {"images": 1, "missing": 1}
        self.unlike = other_kind(measured, bare) if self._waits and measured is not None else ""

    def look(self, source: Source) -> None:
        """Looks at the images that are to be judged."""
        if not self._waits or not (text := lacking(source.records)):
            return
        self._waits = False
        unlike = "" if self._measured is None else other_kind(self._measured, record_of(None, source.records))
        self._told(f"{text}; the threshold does not hold, {unlike}" if unlike else text)


def describe(images: ImageList, captions: str | Sequence[str], detector: Detector) -> None:
    """Gives images their captions, in place.

    Args:
        images: one or several.
        captions: a text for each, or one text for one image; "" for none.
        detector: judges them.

    Raises:
        ConfigError: it takes no captions, or there are more or fewer than images.
    """
    texts = [captions] if isinstance(captions, str) else list(captions)
    if detector.inputs.captions != "always":
        raise ConfigError(f"captions: this {detector.name} takes none when it judges")
    if len(texts) != len(images):
        raise ConfigError(f"captions: {len(texts)} for {len(images)} images; give one for each, '' for none")
    images.describe(texts)


def _warn(text: str) -> None:
    warnings.warn(f"{text}; give them with captions", stacklevel=4)
