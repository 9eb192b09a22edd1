"""Evaluation protocols: all post-processing between a `Prediction` and the metrics, by name (SPEC 4.2, DESIGN 5).

Numbers under different protocols are not comparable, so every report names its own. The maps' part is jax, batched and
jit-able; the masks' part runs on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxad.errors import ProtocolError
from jaxad.metrics import operators
from jaxad.metrics.classes import EXACT, ClassMetrics, MetricRules
from jaxad.metrics.grids import AuproGrid
from jaxad.nn.resize import bilinear


@dataclass(frozen=True)
class Smoothing:
    """Gaussian over maps: `sigma` and `radius` in pixels of the protocol's map, `boundary` "reflect" or "zero"."""

    sigma: float
    radius: int
    boundary: Literal["reflect", "zero"] = "reflect"


@dataclass(frozen=True)
class Protocol:
    """How predictions are made comparable to masks and labels; one column of SPEC 4.2.

    Attributes:
        name: for reports and the command line.
        description: one line for reports.
        size: side in pixels of maps and masks when compared.
        align_corners: how maps are first upsampled.
        canvas: (side, central part) where the published code crops its input: maps and masks are resized to the side,
            cropped to the center, then resized to `size` (maps with half-pixel centers, masks by `floor`).
        smoothing: of maps at `size`; None for none.
        mask_resize: "center" takes the pixel under each center, "floor" that at floor(i in / out) as cv2 and torch do,
            "bilinear" is PIL's antialiased filter on 0 and 255.
        mask_above: a resized mask is positive above this share of full.
        label_from_mask: an image is anomalous where its resized mask has a positive pixel, whatever the data set says.
        pool, pool_repeats: image score: maximum after averaging over pool x pool pixels, stride 1, no padding.
        top_share: image score: mean of this share of the highest pixels instead.
        score_smoothed: whether the image score sees the smoothed map.
        rules: definitions of the metrics.
    """

    name: str
    description: str
    size: int
    align_corners: bool = False
    canvas: tuple[int, int] | None = None
    smoothing: Smoothing | None = None
    mask_resize: Literal["center", "floor", "bilinear"] = "center"
    mask_above: float = 0.0
    label_from_mask: bool = False
    pool: int = 1
    pool_repeats: int = 1
    top_share: float | None = None
    score_smoothed: bool = True
    rules: MetricRules = EXACT

    def class_metrics(self) -> ClassMetrics:
        """Empty metrics of one category under this protocol's rules."""
        return ClassMetrics(self.rules)

    def postprocess(self, maps: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Everything that happens to maps.

        Args:
            maps: float32 [b h w], a `Prediction.map` at the system's own resolution.

        Returns:
            float32 [b size size], the maps to compare with masks, and float32 [b], image scores for systems that define
            none of their own.
        """
        processed = self.process_map(maps)
        return processed, self.image_score(processed if self.score_smoothed else self.resize_map(maps))

    def process_map(self, maps: jax.typing.ArrayLike) -> jax.Array:
        """Maps [b h w] resized and smoothed, float32 [b size size]."""
        return self._map(maps, smooth=True)

    def resize_map(self, maps: jax.typing.ArrayLike) -> jax.Array:
        """Maps [b h w] resized only, float32 [b size size]."""
        return self._map(maps, smooth=False)

    def image_score(self, maps: jax.typing.ArrayLike) -> jax.Array:
        """Image scores float32 [b] from maps [b size size]: smoothed ones if `score_smoothed`, else only resized."""
        maps = jnp.asarray(maps, jnp.float32)
        if self.top_share is not None:
            pixels = maps.reshape(len(maps), -1)
            return jax.lax.top_k(pixels, max(1, int(pixels.shape[1] * self.top_share)))[0].mean(axis=1)
        if self.pool > 1:
            pooling = _pooling(self)
            maps = operators.separable(pooling, pooling, maps)
        return maps.max(axis=(1, 2))

    def resize_mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask as bool [size size].

        Args:
            mask: bool [h w] at the mask file's own size, True on defects.

        Raises:
            ProtocolError: the mask is not bool [h w].
        """
        if mask.ndim != 2 or mask.dtype != bool:
            raise ProtocolError(f"mask of shape {mask.shape} and type {mask.dtype}: must be bool [h w]")
        if self.canvas is not None:
            side, kept = self.canvas
            edge = (side - kept) // 2
            gray = _filtered(mask, side)[edge : edge + kept, edge : edge + kept]
            return _picked(gray, self.size, 0.0) > 255 * self.mask_above
        if self.mask_resize == "bilinear":
            return _filtered(mask, self.size) > 255 * self.mask_above
        return _picked(mask, self.size, 0.5 if self.mask_resize == "center" else 0.0)

    def image_label(self, label: int, mask: np.ndarray | None) -> int:
        """The label an image is evaluated under: 0 or 1.

        Args:
            label: the data set's.
            mask: the resized mask, None where unknown; `label` then decides under every protocol.
        """
        return int(mask.any()) if self.label_from_mask and mask is not None else label

    def _map(self, maps: jax.typing.ArrayLike, smooth: bool) -> jax.Array:
        if jnp.ndim(maps) != 3:
            raise ProtocolError(f"maps of shape {jnp.shape(maps)}: must be [b h w]")
        _, height, width = jnp.shape(maps)
        return operators.separable(_processing(self, height, smooth), _processing(self, width, smooth), maps)


@lru_cache(maxsize=64)
def _processing(protocol: Protocol, size: int, smooth: bool) -> np.ndarray:
    """The chain from `size` samples to the protocol's as one matrix."""
    if protocol.canvas is None:
        matrix = bilinear(size, protocol.size, protocol.align_corners)
    else:
        side, kept = protocol.canvas
        matrix = operators.crop(side, kept) @ bilinear(size, side, protocol.align_corners)
        matrix = bilinear(kept, protocol.size) @ matrix
    if smooth and protocol.smoothing is not None:
        kernel = protocol.smoothing
        matrix = operators.gaussian(protocol.size, kernel.sigma, kernel.radius, kernel.boundary) @ matrix
    return matrix


@lru_cache(maxsize=64)
def _pooling(protocol: Protocol) -> np.ndarray:
    return operators.average_pool(protocol.size, protocol.pool, protocol.pool_repeats)


def _filtered(mask: np.ndarray, size: int) -> np.ndarray:
    """PIL's bilinear resizing of a mask, uint8 [size size]."""
    gray = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(gray.resize((size, size), Image.Resampling.BILINEAR))


def _picked(image: np.ndarray, size: int, offset: float) -> np.ndarray:
    """Nearest neighbor: sample i comes from floor((i + offset) in / out)."""
    rows, columns = (((np.arange(size) + offset) * n / size).astype(int) for n in image.shape)
    return image[np.ix_(rows, columns)]


def _gaussian(sigma: float) -> Smoothing:
    """scipy.ndimage.gaussian_filter(sigma), which cuts at 4 sigma (SPEC 0.2)."""
    return Smoothing(sigma, int(4 * sigma + 0.5))


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            name="exact-256",
            description="jaxad: 256 px, Gaussian 4 px, nearest masks, all thresholds, AUPRO interpolated at FPR 0.3",
            size=256,
            smoothing=_gaussian(4.0),
            pool=16,
        ),
        Protocol(
            name="exact-448",
            description="jaxad: 448 px, Gaussian 4 px, nearest masks, all thresholds, AUPRO interpolated at FPR 0.3",
            size=448,
            smoothing=_gaussian(4.0),
            pool=16,
        ),
        Protocol(
            name="diad",
            description="DiAD, VLMDiff: 256 px, Gaussian 5 px, masks > 0, AUROC flipped below 0.5, AUPRO of 200 steps",
            size=256,
            align_corners=True,
            smoothing=_gaussian(5.0),
            mask_resize="bilinear",
            label_from_mask=True,
            pool=8,
            pool_repeats=8,
            rules=MetricRules(flip_auroc=True, aupro_grid=AuproGrid(200)),
        ),
        Protocol(
            name="ader",
            description="ADer: 256 px, Gaussian 4 px, masks > 0.5, labels by mask, pixel F1 of 21, AUPRO of 100 steps",
            size=256,
            align_corners=True,
            smoothing=_gaussian(4.0),
            mask_resize="bilinear",
            mask_above=0.5,
            label_from_mask=True,
            pool=16,
            rules=MetricRules(f1_steps=21, aupro_grid=AuproGrid(100, rescale="range")),
        ),
        Protocol(
            name="dinomaly",
            description="Dinomaly: 448 px cropped to 392, then 256; 5 x 5 smoothing; score of top 1 %; AUPRO of 200",
            size=256,
            align_corners=True,
            canvas=(448, 392),
            smoothing=Smoothing(4.0, 2, "zero"),
            mask_resize="bilinear",
            top_share=0.01,
            rules=MetricRules(aupro_grid=AuproGrid(200)),
        ),
        Protocol(
            name="winclip",
            description="WinCLIP, PromptAD: 400 px, Gaussian 4 px for pixels only, AUPRO of 200 steps, filled regions",
            size=400,
            smoothing=_gaussian(4.0),
            mask_resize="floor",
            score_smoothed=False,
            rules=MetricRules(
                aupro_grid=AuproGrid(200, from_top=True, at_limit=True, rescale="range"), filled_regions=True
            ),
        ),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ProtocolError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise ProtocolError(f"protocol {name!r}: there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
