"""What detectors on the patch features of one frozen backbone have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxad.detector import Detector
from jaxad.models.backbone import Backbone, load_backbone
from jaxad.nn.precision import compute_dtype
from jaxad.types import Batch, Features, View


class PatchDetector(Detector):
    """A detector that sees images as one grid of patch features. Abstract.

    Args:
        config: settings, among them `backbone`, `blocks`, `image_size` and `precision`.
        backbone: the frozen network; None to load `config.backbone`.

    Attributes:
        backbone: the frozen network.
        blocks: those of its blocks, or stages, that make the features.
        channels: width c of the features.
        grid: rows and columns (h, w) of the features.

    Raises:
        ConfigError: impossible settings, all listed, or blocks or a size that the backbone does not have.
        WeightsError: the backbone cannot be found or does not fit.
    """

    frozen: ClassVar[tuple[str, ...]] = ("backbone",)

    def __init__(self, config: Any, backbone: Backbone | None):
        config.check()
        self.config = config
        self.categories = ()
        self.backbone = backbone or load_backbone(config.backbone, dtype=compute_dtype(config.precision))
        self.blocks = self.backbone.select_blocks(config.blocks)
        self.channels = self.backbone.width(self.blocks)
        self.grid = self.backbone.grid(config.image_size)

    @property
    def views(self) -> dict[str, View]:
        return {"image": View(self.config.image_size, self.config.image_size, "bilinear")}

    @property
    def encoder_identity(self) -> tuple:
        return (self.backbone.config_json(), self.blocks)

    def encode(self, batch: Batch) -> Features:
        """The backbone's features of the chosen blocks: averaged of a ViT, concatenated of a convolutional network."""
        return Features(self.backbone.features(batch.images["image"], self.blocks), self.grid)
