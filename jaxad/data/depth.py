"""Images of 16 bits a channel: how many of the bits are used, and how values become 8 bits.

Cameras of 10, 12 or 14 bits write their values into files of 16, most of them as they are, so that white is 4095. No
file says reliably where white is, and no single image tells: a dark one may use fewer bits. So the depth is one number
for each category, the smallest of `DEPTHS` that holds every value of its images, or more where a file declares more
bits. A detector keeps the depths that it was fitted with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16)
FULL = 16
Depth = int | tuple[int, ...] | None
"""What is known of the depth of an image, for `chosen_depth`."""
_MAX_SAMPLE_VALUE, _BITS_PER_SAMPLE, _SAMPLE_FORMAT, _EXTRA_SAMPLES = 281, 258, 339, 338


def to_eight_bits(values: np.ndarray, depth: int = FULL) -> np.ndarray:
    """uint16 values to uint8: 0 to 2 ** depth - 1 become 0 to 255, rounded; what lies above stays 255."""
    white = 2**depth - 1
    return ((np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def used_bits(values: np.ndarray, declared: int = 0) -> int:
    """The smallest depth that holds uint16 values [h w] or [h w c], and as many bits as the file declares.

    Alpha, the last of four channels, does not count. An image with values above what its file declares is scaled to 16
    bits already, as PNG's standard asks.
    """
    color = values[..., :3] if values.ndim == 3 and values.shape[-1] == 4 else values
    bits = int(color.max(initial=0)).bit_length()
    return FULL if 0 < declared < bits else _fitting(max(bits, declared))


def declared_bits(image: Image.Image, encoded: bytes) -> int:
    """How many bits a 16-bit file says that its colors use: PNG's sBIT, TIFF's MaxSampleValue; 0 if it says nothing."""
    if image.format == "TIFF":
        highest = image.tag_v2.get(_MAX_SAMPLE_VALUE, 0)  # type: ignore[attr-defined]
        return max(_of_colors(np.atleast_1d(highest).astype(int).tolist()), default=0).bit_length()
    return max(_of_colors(_chunk(encoded, b"sBIT")), default=0) if image.format == "PNG" else 0


def chosen_depth(values: np.ndarray, depth: Depth, declared: int = 0) -> int:
    """The depth at which to read uint16 values.

    Args:
        values: of one image.
        depth: what is known of its category: one depth, or several of which the smallest that holds the values is
            taken, or None: then what the file declares decides, else all 16 bits are taken.
        declared: bits that its file declares.
    """
    if isinstance(depth, int):
        return depth
    if depth is None:
        return used_bits(values, declared) if declared else FULL
    bits = used_bits(values, declared)
    return next((known for known in sorted(depth) if known >= bits), max(depth))


def common_depths(used: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The depth of each category with 16-bit images, from pairs of a category and the bits that one of them uses."""
    depths: dict[str, int] = {}
    for category, bits in used:
        if bits:
            depths[category] = max(bits, depths.get(category, 0))
    return depths


def depth_of(category: str, depths: Mapping[str, int]) -> Depth:
    """What `depths` tell of an image of a category: its depth; of a category that is not there those of all others."""
    if category in depths or not depths:
        return depths.get(category)
    several = tuple(sorted(set(depths.values())))
    return several[0] if len(several) == 1 else several


def is_wide_color(image: Image.Image, encoded: bytes) -> bool:
    """Whether an opened file has several channels of 16 bits, of which Pillow keeps the high bytes."""
    if image.format == "PNG":
        return encoded[24:25] == b"\x10" and image.mode in ("RGB", "RGBA", "LA")
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA"):
        return set(image.tag_v2.get(_BITS_PER_SAMPLE, ())) == {16}  # type: ignore[attr-defined]
    return False


def is_premultiplied(image: Image.Image) -> bool:
    """Whether an opened file's colors are multiplied by its alpha, which only TIFF has."""
    extra = image.tag_v2.get(_EXTRA_SAMPLES, ()) if image.format == "TIFF" else ()  # type: ignore[attr-defined]
    return 1 in np.atleast_1d(extra)


def is_signed(image: Image.Image) -> bool:
    """Whether an opened file holds integers below 0, which only TIFF has."""
    formats = image.tag_v2.get(_SAMPLE_FORMAT, (1,)) if image.format == "TIFF" else (1,)  # type: ignore[attr-defined]
    return 2 in np.atleast_1d(formats)


def _of_colors(channels: Sequence[int]) -> Sequence[int]:
    """What is said of each channel, without that of alpha, the second of two or the fourth of four."""
    return channels[:-1] if len(channels) in (2, 4) else channels


def _fitting(bits: int) -> int:
    return next((depth for depth in DEPTHS if depth >= bits), FULL)


def _chunk(png: bytes, name: bytes) -> bytes:
    """The content of the first chunk of that name before the pixels, empty where there is none."""
    place = 8
    while place + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        if kind == name:
            return png[place + 8 : place + 8 + length]
        if kind == b"IDAT":
            break
        place += length + 12
    return b""


def read_at(source: Any, depths: Mapping[str, int]) -> Any:
    """A source whose images of 16 bits are read as those were that a detector was fitted on.

    Args:
        source: of `jaxad.types.Source`.
        depths: by category, as `Detector.depths` has them.

    Returns:
        The same source where it reads no such images, or nothing is known of them.
    """
    return source.at_depths(depths) if depths and hasattr(source, "at_depths") else source
