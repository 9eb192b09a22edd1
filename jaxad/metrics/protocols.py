"""Evaluation protocols: all post-processing between anomaly maps and metrics, registered by name.

Numbers under different protocols are not comparable, so every report names its own. Importing this module costs
neither numpy nor jax; the work is done in `jaxad.metrics.processing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxad.errors import ConfigError, ProtocolError
from jaxad.metrics.rules import EXACT, AuproGrid, MetricRules
from jaxad.registry import Registry, unknown

if TYPE_CHECKING:
    import jax
    import numpy as np

    from jaxad.metrics.classes import ClassMetrics


@dataclass(frozen=True)
class Smoothing:
    """Gaussian over maps: `sigma` and `radius` in pixels of the protocol's map, `boundary` "reflect" or "zero"."""

    sigma: float
    radius: int
    boundary: Literal["reflect", "zero"] = "reflect"


@dataclass(frozen=True)
class Protocol:
    """How predictions are made comparable to masks and labels, and which metrics are taken of them.

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
        gray_masks: whether that filter sees the gray values of the masks' files instead, as the published code does: of
            a small defect that VisA marks by the code 1 hardly anything is left.
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
    gray_masks: bool = False
    mask_above: float = 0.0
    label_from_mask: bool = False
    pool: int = 1
    pool_repeats: int = 1
    top_share: float | None = None
    score_smoothed: bool = True
    rules: MetricRules = EXACT

    def class_metrics(self) -> ClassMetrics:
        """Empty metrics of one category under this protocol's rules."""
        from jaxad.metrics.classes import ClassMetrics

        return ClassMetrics(self.rules)

    def postprocess(self, maps: jax.typing.ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Everything that happens to maps; jit-able.

        Args:
            maps: float [b h w], anomaly maps at the detector's own resolution.

        Returns:
            float32 [b size size], the maps to compare with masks, and float32 [b], image scores for detectors that
            define none of their own.
        """
        processed = self.process_map(maps)
        return processed, self.image_score(processed if self.score_smoothed else self.resize_map(maps))

    def process_map(self, maps: jax.typing.ArrayLike) -> jax.Array:
        """Maps resized and smoothed: [b h w] -> float32 [b size size]."""
        from jaxad.metrics import processing

        return processing.process_maps(self, maps, smooth=True)

    def resize_map(self, maps: jax.typing.ArrayLike) -> jax.Array:
        """Maps resized only: [b h w] -> float32 [b size size]."""
        from jaxad.metrics import processing

        return processing.process_maps(self, maps, smooth=False)

    def image_score(self, maps: jax.typing.ArrayLike) -> jax.Array:
        """Image scores float32 [b] from maps [b size size]: smoothed ones if `score_smoothed`, else only resized."""
        from jaxad.metrics import processing

        return processing.image_scores(self, maps)

    def resize_mask(self, mask: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
        """A mask as bool [size size].

        Args:
            mask: bool [h w] at the mask file's own size, True on defects; or uint8 [h w], its gray values, of which
                protocols without `gray_masks` only see whether they are above 0.
            shape: (h, w) in place of (size, size), for maps that were put together of tiles.

        Raises:
            ProtocolError: the mask is neither.
        """
        from jaxad.metrics import processing

        return processing.resize_mask(self, mask, shape)

    def image_label(self, label: int, mask: np.ndarray | None) -> int:
        """The label an image is evaluated under: 0 or 1.

        Args:
            label: the data set's.
            mask: the resized mask, None where unknown; `label` then decides under every protocol.
        """
        return int(mask.any()) if self.label_from_mask and mask is not None else label


_protocols: Registry[Protocol] = Registry("protocol", group="jaxad.protocols")


def register_protocol(protocol: Protocol) -> Protocol:
    """Makes a protocol known by its name, as do entry points of the group "jaxad.protocols"; returns it.

    Raises:
        ConfigError: jaxad has another protocol of that name, under which its reports would be misread.
    """
    if any(own.name == protocol.name and own != protocol for own in _OWN):
        raise ConfigError(f"protocol {protocol.name!r}: jaxad has another one of this name; choose a new name")
    return _protocols.register(protocol.name, protocol)


def protocol_names() -> tuple[str, ...]:
    """Names of all protocols, jaxad's own first."""
    return _protocols.names()


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ProtocolError: there is none; names the nearest, and all there are.
    """
    if name not in protocol_names():
        raise ProtocolError(unknown("protocol", name, protocol_names()))
    return _protocols.get(name)


def _gaussian(sigma: float) -> Smoothing:
    """The kernel of scipy.ndimage.gaussian_filter(sigma), which ends at 4 sigma."""
    return Smoothing(sigma, int(4 * sigma + 0.5))


_OWN = (
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
        name="dpdiff",
        description="DPDiff-AD as its paper is written: 448 px, no smoothing; masks and metrics as in exact-448",
        size=448,
        pool=16,
    ),
    Protocol(
        name="diad",
        description="DiAD, VLMDiff: 256 px, Gaussian 5 px, gray masks > 0, AUROC flipped below 0.5, AUPRO of 200 steps",
        size=256,
        align_corners=True,
        smoothing=_gaussian(5.0),
        mask_resize="bilinear",
        gray_masks=True,
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
for _protocol in _OWN:
    register_protocol(_protocol)
