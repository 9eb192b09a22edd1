"""The bytes that are stored of an image and of its mask: those of the source, or, at a prepared size, new ones."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxad.data.decode import decode, decode_mask, is_sixteen_bit
from jaxad.data.files import LARGEST, bad_image
from jaxad.data.orientation import upright_size
from jaxad.errors import DataError, Problem
from jaxad.io.problems import Problems
from jaxad.io.threads import map_threads
from jaxad.io.untrusted import bytes_of
from tfds_builders.listing import Sample


def encode(sample: Sample, size: int | None = None, depth: int | None = None) -> tuple[bytes, bytes]:
    """The encoded image and mask of a sample.

    Args:
        sample: what to read.
        size: length in pixels that the shorter side is reduced to; None copies the source's bytes. Nothing is enlarged:
            images that are small enough are copied too. Images are averaged over areas and resampled with Lanczos
            (JPEG stays JPEG, at quality 95 without chroma subsampling; everything else becomes PNG, 8 bits deep), masks
            take the nearest pixel. Images of 16 bits become 8 bits deep at any size, so that all of a category are.
        depth: at how many bits the 16-bit images of the category are read, from `category_depth`; for `size` alone.

    Returns:
        Image and mask. A normal image without mask has an all-zero PNG at its own size; an image that may be anomalous
        but has no mask has b"", which says that nobody knows.

    Raises:
        DataError: a file cannot be read, or is of 16 bits at a depth that is not known; names it.
    """
    image = read(sample.image)
    mask = mask_bytes(sample)
    if size is not None:
        large = min(_size(image, sample.image)) > size
        if large or is_sixteen_bit(sample.image):
            decoded = decode(image, str(sample.image), depth)
            if decoded.bits and depth is None:
                detail = "16 bits, and how many of them its category uses is not known; prepare it without a size"
                raise bad_image("unsupported mode", str(sample.image), detail)
            shape = decoded.pixels.shape[:2]
            height, width = _reduced(shape, size) if large else shape
            image = _save(decoded.pixels, (width, height), jpeg=_is_jpeg(image))
            mask = mask and _nearest(mask, (width, height), str(sample.mask)) if large else mask
    return image, mask if mask or sample.label != 0 else zeros(*_size(image, sample.image))


def category_depth(samples: Sequence[Sample], workers: int | None = 1) -> int | None:
    """The depth of a category's 16-bit images (`jaxad.data.depth`), which are decoded; None where there are none.

    Args:
        samples: all images of the category.
        workers: threads that decode; None for one per CPU.

    Raises:
        DataError: one of these images cannot be used; names it.
    """

    def bits(sample: Sample) -> int:
        file = sample.image
        return decode(read(file), str(file)).bits if is_sixteen_bit(file) else 0

    return max(map_threads(bits, samples, workers), default=0) or None


def read(file: Path) -> bytes:
    """A file's bytes. Raises DataError naming a file that cannot be read."""

    def unreadable(said: str) -> DataError:
        problem = Problem("unreadable file", str(file), f"{said}; put it back, or prepare again")
        return DataError("a file cannot be read:", [problem])

    return bytes_of(file, LARGEST, unreadable)


def mask_bytes(sample: Sample) -> bytes:
    """A sample's encoded mask, b"" where it has none."""
    if isinstance(sample.mask, Path):
        return read(sample.mask)
    if callable(sample.mask):
        return sample.mask()
    return sample.mask or b""


@functools.lru_cache(maxsize=64)
def zeros(width: int, height: int) -> bytes:
    """An all-zero mask as PNG of one bit per pixel: 3 kB at 20 megapixels."""
    return _png(Image.new("1", (width, height)))


def union(files: tuple[Path, ...]) -> bytes:
    """Several masks of one image as one PNG of 0 and 255: whatever any of them marks with a value above 0.

    Raises:
        DataError: a mask cannot be read, or is not of the first one's size.
    """
    masks = [decode_mask(file) for file in files]
    problems = Problems()
    for file, mask in zip(files, masks, strict=True):
        if mask.shape != masks[0].shape:
            problems.add("mask size", file, f"{mask.shape[1]} x {mask.shape[0]}, unlike {files[0].name} beside it")
    problems.stop("masks of one image differ in size:")
    return _png(Image.fromarray(np.any(masks, axis=0).astype(np.uint8) * 255))


def _size(image: bytes, file: Path) -> tuple[int, int]:
    """Width and height of an encoded image as it is to be seen, without decoding it."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return upright_size(opened)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError("an image cannot be used:", [Problem("unreadable image", str(file), str(error))]) from error


def _reduced(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    short = min(shape)
    height, width = (round(side * size / short) for side in shape)
    return height, width


def _is_jpeg(image: bytes) -> bool:
    return image.startswith(b"\xff\xd8")


def _save(pixels: np.ndarray, size: tuple[int, int], *, jpeg: bool) -> bytes:
    # Gray files were repeated in three channels on decoding.
    gray = bool((pixels == pixels[..., :1]).all())
    image = Image.fromarray(pixels[..., 0] if gray else pixels)
    image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if not jpeg:
        return _png(image)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def _nearest(mask: bytes, size: tuple[int, int], name: str) -> bytes:
    with Image.open(io.BytesIO(mask)) as opened:
        # Codes survive where a pixel is one number in a lossless file; else the mask becomes 0 and 255.
        codes = opened.mode in ("1", "L", "P") and opened.format in ("PNG", "BMP", "TIFF") and not opened.getexif()
        image = opened.copy() if codes else Image.fromarray(decode_mask(mask, name).astype(np.uint8) * 255)
    return _png(image.resize(size, Image.Resampling.NEAREST))


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
