"""Settings that detectors on the same frozen features have in common, and trainings of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxad.config.fields import Blocks, Config, Precision, at_least, make_preset, repeated_blocks, setting
from jaxad.config.training import TrainConfig

_ALIKE = "as DPDiff-AD has it, so that the two compare on the same features"

SMALL: Mapping[str, Any] = {"backbone": "embedded", "image_size": 224, "blocks": "middle"}
"""What the preset "small" of DPDiff-AD takes: the features that detectors are compared on where there is no GPU."""


@dataclass(frozen=True)
class FrozenFeatures(Config):
    """The features of DPDiff-AD. Base of the settings of detectors that stand beside it."""

    backbone: str = setting("facebook/dinov2-with-registers-base", source="jaxad", reason=_ALIKE)
    """Frozen feature network: a folder, file or Hugging Face id (ORG/NAME or ORG/NAME@REVISION), or "embedded", the
    ViT-S/14 of the `demo` extra."""
    blocks: Blocks = setting(None, source="jaxad", reason=_ALIKE)
    """Blocks of a ViT, counted from 0, that are averaged: numbers, "middle" third, or None for the last half; of a
    convolutional network the stages that are concatenated, None for strides 4, 8 and 16."""
    image_size: int = setting(448, source="jaxad", reason=_ALIKE)
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    precision: Precision = setting("auto", source="jaxad", reason="accelerators are fastest in bfloat16")
    """Compute type of the networks: "auto" is float32 on CPU and bfloat16 on GPU and TPU."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        return at_least(self, 1, ("image_size",)) + repeated_blocks(self.blocks)


@dataclass(frozen=True)
class TrainedFeatures(FrozenFeatures):
    """The same for detectors that are trained, each preset in its own way. Base."""

    TRAININGS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What the training of each preset changes of `TrainConfig`'s defaults; the first one is that of `training()`."""

    @classmethod
    def training(cls, name: str | None = None, **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name, with `changes` to it; not checked yet.

        Raises:
            ConfigError: no preset has that name.
        """
        return make_preset(TrainConfig, name, cls.TRAININGS, changes)
