"""Masks of COCO-AD, drawn from polygons and run-length encodings as its authors draw them (ADer)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from jaxad.data.orientation import turned
from jaxad.errors import ConfigError


def draw_mask(image: Path, height: int, width: int, segmentations: Sequence[Any]) -> bytes:
    """A mask as PNG: 255 where one of the objects is, 0 elsewhere; turned as its image's EXIF orientation says.

    Args:
        image: the image's file.
        height, width: size of the image in pixels, as it was annotated: before it is turned.
        segmentations: of each object, COCO's list of polygons (x and y by turns, truncated to whole pixels; a polygon's
            outline belongs to it) or run-length encoding {"size", "counts"}, compressed (text) or not (list).
    """
    mask = np.zeros((height, width), np.uint8)
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            for polygon in segmentation:
                corners = np.asarray(polygon, np.float64).astype(np.int32).reshape(-1, 1, 2)
                cv2.fillPoly(mask, [corners], (255,))
        else:
            mask[_decode(segmentation)] = 255
    return _png(mask, image)


def _png(mask: np.ndarray, image: Path) -> bytes:
    drawn = Image.fromarray(mask)
    with Image.open(image) as opened:
        if opened.size == drawn.size:
            drawn = turned(drawn, like=opened)
    stream = io.BytesIO()
    drawn.save(stream, "PNG")
    return stream.getvalue()


def run_length_codec() -> ModuleType:
    """pycocotools' reader of run-length encodings. Raises ConfigError where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ConfigError("masks of crowds need pycocotools; run: pip install 'jaxad[coco]'") from error
    return mask


def _decode(segmentation: dict[str, Any]) -> np.ndarray:
    codec = run_length_codec()
    if isinstance(segmentation["counts"], list):
        segmentation = codec.frPyObjects(segmentation, *segmentation["size"])
    return codec.decode(segmentation) > 0
