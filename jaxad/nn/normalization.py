"""How pretrained networks take their images: mean and standard deviation of each channel, on a scale from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.errors import WeightsError
from jaxad.types import Array

_LARGEST = 1e6


@dataclass(frozen=True)
class Normalization:
    """(image / 255 - mean) / std for each of the channels red, green and blue."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Means; those of ImageNet."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviations; those of ImageNet."""

    def __call__(self, images: Array) -> jax.Array:
        """Images [b h w 3] on a scale from 0 to 255, as a network takes them: float32."""
        chex.assert_shape(images, (None, None, None, 3), custom_message="images must be [b h w 3]")
        mean, std = self._arrays()
        return (jnp.asarray(images, jnp.float32) / 255 - mean) / std

    def inverse(self, normalized: Array) -> jax.Array:
        """Normalized images [b h w 3] back on a scale from 0 to 255: float32, neither rounded nor clipped."""
        chex.assert_shape(normalized, (None, None, None, 3), custom_message="normalized must be [b h w 3]")
        mean, std = self._arrays()
        return (jnp.asarray(normalized, jnp.float32) * std + mean) * 255

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (np.array(values, np.float32).reshape(1, 1, 1, 3) for values in (self.mean, self.std))
        return mean, std

    @classmethod
    def of(cls, preprocessor: Mapping[str, Any], config: Mapping[str, Any], default: Normalization) -> Normalization:
        """What a checkpoint says.

        Args:
            preprocessor: content of preprocessor_config.json, as transformers writes it; empty where there is none.
            config: content of config.json, which in timm's repositories says it under `pretrained_cfg`, or of
                open_clip_config.json, which says it under `preprocess_cfg`.
            default: where neither says anything.

        Raises:
            WeightsError: values that are not three numbers, or a scale other than 1/255; names the field.
        """
        said = config.get("preprocess_cfg", config.get("pretrained_cfg", config if "architecture" in config else {}))
        said = said if isinstance(said, Mapping) else {}
        mean = preprocessor.get("image_mean", said.get("mean", default.mean))
        std = preprocessor.get("image_std", said.get("std", default.std))
        if not preprocessor.get("do_normalize", True):
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        problems = [
            f"{name} = {values!r:.200}: must be three numbers{' above 0' if least > 0 else ''}"
            for name, values, least in (("mean", mean, -_LARGEST), ("std", std, 1 / _LARGEST))
            if not _are_three(values, least)
        ]
        rescale = preprocessor.get("rescale_factor", 1 / 255)
        if (
            type(rescale) not in (int, float)
            or not abs(255 * rescale - 1) <= 1e-6
            or preprocessor.get("rescale_offset")
        ):
            problems.append("rescale_factor, rescale_offset: must be 1/255 and false")
        if problems:
            raise WeightsError(
                "\n".join(
                    [
                        "preprocessor_config.json or config.json cannot be used:",
                        *(f"  {p}" for p in problems),
                    ]
                )
            )
        processor = preprocessor.get("image_processor_type")
        if str(processor).startswith("EfficientNet") and preprocessor.get("include_top", True):
            # That processor divides by the standard deviation twice, and is given its square root.
            std = [value**2 for value in std]
        (red, green, blue), (red_std, green_std, blue_std) = map(float, mean), map(float, std)
        return cls((red, green, blue), (red_std, green_std, blue_std))


def _are_three(values: Any, least: float) -> bool:
    """Whether these are three numbers that images can be scaled by."""
    numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
    return numbers and len(values) == 3 and all(least <= value <= _LARGEST for value in values)


IMAGENET = Normalization()
OPENAI_CLIP = Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Images as OpenAI's CLIP takes them, and most that were trained after it."""
INCEPTION = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Images from -1 to 1, as the supervised ViT, and EfficientNet-Lite in TensorFlow's training, take them."""
