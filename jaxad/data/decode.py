"""Any image file, PIL image or array to uint8 RGB, by one documented rule for each mode; masks to bool.

    mode                                      rule
    1, L, P, RGB, CMYK, YCbCr, LAB, HSV       PIL's conversion to RGB; gray is repeated in the three channels
    LA, PA, RGBA, any tRNS transparency       composited over black, so that what is invisible is not inspected
    16-bit gray and color (PNG, TIFF, PGM)    0 to 2 ** depth - 1 maps to 0..255, rounded; the depth is that of the
                                              category (jaxad.data.depth), else what the file declares, else 16; an
                                              image is never stretched by its own content, so that all stay comparable
    signed integers, I, F (32-bit, float)     refused: their range is unknown
    EXIF orientation                          applied
    several frames                            the first

Formats are those of `FORMATS`; others that PIL knows (EPS starts Ghostscript) are not opened. The cap on pixels is
`PIL.Image.MAX_IMAGE_PIXELS`; large images are decoded one at a time. A truncated or damaged file
is an error unless the caller set `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxad.data import turns
from jaxad.data.contents import described
from jaxad.data.depth import (
    FULL,
    Depth,
    chosen_depth,
    declared_bits,
    is_premultiplied,
    is_signed,
    is_wide_color,
    to_eight_bits,
    used_bits,
)
from jaxad.data.files import bad_image, read_file
from jaxad.data.jpeg import DamagedJPEG, decode_jpeg
from jaxad.data.orientation import turned_pixels, upright
from jaxad.data.pixels import pixel_digest
from jaxad.io.foreign import raise_explained, raise_of_machine

# "JPEG" opens MPO too, the JPEG of several frames that phones write.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
EXTENSIONS = frozenset(
    f".{end}"
    for ends in ("png", "jpg jpeg jpe jfif mpo", "bmp dib", "tif tiff", "webp", "gif", "ppm pgm pbm pnm")
    for end in ends.split()
)
T = TypeVar("T")

_STRIP = 256


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image.

    Attributes:
        pixels: uint8 [h w 3], RGB, writable, contiguous.
        kind: of its file, such as "PNG RGB" or "JPEG L".
        values: what the file holds: uint16 [h w], [h w 3] or [h w 4] of a 16-bit image, else `pixels`.
        bits: the smallest depth that holds the values of a 16-bit image (`jaxad.data.depth`), 0 of other images.
        frames: of which this is the first; 1 where nobody asked for them to be counted.
    """

    pixels: np.ndarray
    kind: str
    values: np.ndarray
    bits: int = 0
    frames: int = 1

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that identify the image, whatever its file: those of its values, which no depth has rounded."""
        return pixel_digest(self.values)


class DecodedMask(NamedTuple):
    """A defect mask bool [h w], and the distinct values above 0 of its file.

    Attributes:
        pixels: True where there is a defect.
        levels: values [n] of a pixel's highest channel, ascending. Several mean that the file is no plain black and
            white mask; all of them are defect (of JPEG masks those above 127).
    """

    pixels: np.ndarray
    levels: np.ndarray


def decode(encoded: bytes, name: str = "encoded image", depth: Depth = None, *, count_frames: bool = False) -> Decoded:
    """Decodes the bytes of an image file by the rules above.

    Args:
        encoded: content of the file.
        name: what messages call it.
        depth: of 16-bit images of its category, as `jaxad.data.depth.chosen_depth` takes it.
        count_frames: whether to count the file's frames, for which all of it is looked through; `kind` tells them too.

    Raises:
        MachineError: memory is short.
        DataError: with one problem of kind "unreadable image", "truncated image", "damaged image",
            "decompression bomb" or "unsupported mode".
    """

    def convert(image: Image.Image, stored: np.ndarray | None) -> Decoded:
        frames = _frames(image) if count_frames else 1
        kind = f"{image.format} {image.mode}" + (f", the first of {frames} frames" if frames > 1 else "")
        if is_signed(image):
            raise _UnsupportedMode("signed integers, whose range is unknown; save it with 8 or 16 bits, unsigned")
        declared = 0
        if stored is not None:
            values = turned_pixels(stored, like=image)
        else:
            values = _wide_values(image, encoded)
            declared = 0 if values is None else declared_bits(image, encoded)
        if values is None:
            values = _pil_to_rgb(_loaded(image))
        if values.dtype == np.uint8:
            return Decoded(values, kind, values, frames=frames)
        bits = used_bits(values, declared)
        pixels = _array_to_rgb(values, name, chosen_depth(values, depth, declared))
        return Decoded(pixels, kind, values, bits, frames)

    return _decode(encoded, name, convert)


def decode_image(source: Path | str | bytes, name: str = "") -> np.ndarray:
    """The pixels uint8 [h w 3] of a file or of its bytes; errors as `decode`, and of files that cannot be read."""
    return decode(*_encoded(source, name)).pixels


def decode_mask(source: Path | str | bytes, name: str = "") -> np.ndarray:
    """Decodes a defect mask: bool [h w], True where any channel is above 0, because masks may hold small codes.

    Palettes are looked up, transparent pixels are background, and JPEG masks are cut at 127 because compression
    leaves a haze above 0. Arguments and errors as `decode_image`; 32-bit masks are read too.
    """
    return _decode(*_encoded(source, name), lambda image, stored: _marked(image, _levels(image, stored)))


def decode_gray_mask(source: Path | str | bytes, name: str = "") -> np.ndarray:
    """A defect mask as the gray values uint8 [h w] of its file, 0 wherever `decode_mask` sees no defect.

    Some masks hold small codes of defects in place of white; published evaluations resize those values as they are.
    """

    def convert(image: Image.Image, stored: np.ndarray | None) -> np.ndarray:
        levels = _levels(image, stored)
        return np.where(_marked(image, levels), np.clip(levels, 1, 255), 0).astype(np.uint8)

    return _decode(*_encoded(source, name), convert)


def decode_levels(encoded: bytes, name: str = "encoded image") -> np.ndarray:
    """The highest channel of each pixel [h w] of an image or mask, as its file has it. Errors as `decode`."""
    return _decode(encoded, name, _levels)


def decode_mask_levels(encoded: bytes, name: str = "encoded image") -> DecodedMask:
    """As `decode_mask`, of the bytes of a file, with the values that it holds."""

    def convert(image: Image.Image, stored: np.ndarray | None) -> DecodedMask:
        levels = _levels(image, stored)
        return DecodedMask(_marked(image, levels), np.setdiff1d(levels, 0))

    return _decode(encoded, name, convert)


def is_sixteen_bit(file: Path) -> bool:
    """Whether an image file has 16 bits a channel, by its head alone; False of one that cannot be opened."""
    try:
        with file.open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
            wide = _is_wide(image)
            stream.seek(0)
            return wide or is_wide_color(image, stream.read(32))
    except Exception as error:
        raise_of_machine(error)
        # Whoever decodes it says what is wrong.
        return False


def to_rgb(image: Any, name: str = "image", depth: Depth = None) -> np.ndarray:
    """Any image that `predict` takes as uint8 RGB [h w 3].

    Args:
        image: a path, a PIL image, or an array: uint8 or uint16 of [h w], [h w 1], [h w 3] or [h w 4].
        name: what messages call it.
        depth: as in `decode`.

    Raises:
        DataError: as `decode_image`, and kind "unsupported array" for other types and shapes.
    """
    if isinstance(image, str | Path):
        return decode(read_file(Path(image)), str(image), depth).pixels
    if isinstance(image, Image.Image):
        return _named(name, lambda: _pil_to_rgb(image, depth))
    return _array_to_rgb(np.asarray(image), name, depth)


class _UnsupportedMode(ValueError):
    pass


class _NoImage(ValueError):
    pass


def _encoded(source: Path | str | bytes, name: str) -> tuple[bytes, str]:
    """The bytes of a source, and what messages call it."""
    if isinstance(source, bytes):
        return source, name or "encoded image"
    return read_file(Path(source), name), name or str(source)


def _decode(encoded: bytes, name: str, convert: Callable[[Image.Image, np.ndarray | None], T]) -> T:
    """What every image and mask goes through, once; `convert` gets pixels too, as stored, where they are known."""

    def work() -> T:
        try:
            opened = Image.open(io.BytesIO(encoded), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise _NoImage(described(encoded) or f"not an image of a known format ({', '.join(FORMATS)})") from error
        with opened as image, ExitStack() as own:
            limit, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
            if limit is not None and pixels > limit:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, limit {limit}")
            if pixels > turns.LARGE:
                turns.take_turn(own)
            jpeg = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L", "CMYK")
            return convert(image, decode_jpeg(encoded, image.mode) if jpeg else None)

    return _named(name, work)


def _loaded(image: Image.Image) -> Image.Image:
    # Some files say only behind their pixels how they are to be turned.
    image.load()
    return image


def _frames(image: Image.Image) -> int:
    # MPO's further frames are previews. What is wrong with them is no fault of the first.
    try:
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:
        return 1
    finally:
        image.seek(0)


def _wide_values(image: Image.Image, encoded: bytes) -> np.ndarray | None:
    """uint16 values [h w] or [h w c], RGB, of an image of 16 bits; None of others."""
    if is_wide_color(image, encoded):
        # Checks the file's length and sums first, which OpenCV does not.
        image.load()
        read = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        if read is None or read.dtype != np.uint16 or read.ndim != 3 or read.shape[-1] not in (3, 4):
            raise _UnsupportedMode("16 bits a channel, stored in a way that cannot be read; save it as PNG")
        # A fourth channel need not be alpha; and colors that were multiplied by it lie over black already.
        alpha = image.has_transparency_data and not is_premultiplied(image)
        order = [2, 1, 0, 3][: read.shape[-1] if alpha else 3]
        return turned_pixels(np.ascontiguousarray(read[..., order]), like=image)
    if not _is_wide(image):
        return None
    return np.asarray(upright(_loaded(image))).astype(np.uint16)


def _named(name: str, work: Callable[[], T]) -> T:
    """The result of `work`, or a DataError that names the image and says what is wrong with it."""
    # PIL's decoders raise almost any exception on damaged input, so nothing narrower than Exception would do.
    try:
        return work()
    except _UnsupportedMode as error:
        raise bad_image("unsupported mode", name, str(error)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        advice = "crop or shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if it is trusted"
        raise bad_image("decompression bomb", name, f"{error}; {advice}") from error
    except _NoImage as error:
        raise bad_image("unreadable image", name, str(error)) from error
    except DamagedJPEG as error:
        raise bad_image(error.kind, name, f"{error}; copy or export it again") from error
    except Exception as error:
        # Whoever leaves bad images out would leave out a good one.
        raise_of_machine(error)
        short = isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
        if short or isinstance(error, MemoryError):
            raise_explained(MemoryError(str(error)))
        # WebP checks its length first and says nothing more specific.
        cut = any(sign in str(error).lower() for sign in ("truncated", "could not create decoder"))
        kind = "truncated image" if cut else "unreadable image"
        raise bad_image(kind, name, f"{str(error) or type(error).__name__}; copy or export it again") from error


def _is_wide(image: Image.Image) -> bool:
    # Older PIL opens 16-bit PNG as "I", and every PIL opens 16-bit PGM so; neither format holds 32 bits.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _pil_to_rgb(image: Image.Image, depth: Depth = None) -> np.ndarray:
    wide = _is_wide(image)
    image = upright(image)
    if wide:
        return _array_to_rgb(np.asarray(image).astype(np.uint16), "image", depth)
    if image.mode in ("I", "F"):
        raise _UnsupportedMode(
            f"{'32-bit integer' if image.mode == 'I' else 'floating-point'} pixels of unknown range; "
            "save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        return _over_black(np.asarray(straight if straight.mode == "RGBA" else straight.convert("RGBA")))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _marked(image: Image.Image, levels: np.ndarray) -> np.ndarray:
    return levels > (127 if image.format in ("JPEG", "MPO") else 0)


def _levels(image: Image.Image, stored: np.ndarray | None) -> np.ndarray:
    """The highest channel of each pixel of an opened image, from its pixels as stored where these are known."""
    if stored is not None:
        return turned_pixels(_highest(stored), like=image)
    image = _loaded(image)
    gray = image.mode in ("1", "L") and not image.has_transparency_data
    if gray or _is_wide(image) or image.mode in ("I", "F"):
        return np.asarray(upright(image.convert("L") if image.mode == "1" else image))
    return _highest(_pil_to_rgb(image))


def _highest(pixels: np.ndarray) -> np.ndarray:
    """The highest of the channels [h w c] -> [h w]; numpy's over an axis so short takes ten times as long."""
    return reduce(np.maximum, (pixels[..., channel] for channel in range(pixels.shape[-1])))


def _array_to_rgb(array: np.ndarray, name: str, depth: Depth = None) -> np.ndarray:
    pixels = array[..., None] if array.ndim == 2 else array
    if (
        array.dtype not in (np.uint8, np.uint16)
        or pixels.ndim != 3
        or pixels.shape[-1] not in (1, 3, 4)
        or not array.size
    ):
        raise bad_image(
            "unsupported array",
            name,
            f"{array.dtype} {list(array.shape)}; needs uint8 or uint16 of [h w], [h w 1], [h w 3] or [h w 4]",
        )
    if pixels.dtype == np.uint16:
        pixels = _scaled(pixels, chosen_depth(pixels, depth))
    if pixels.shape[-1] == 4:
        return _over_black(pixels)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _scaled(values: np.ndarray, depth: int) -> np.ndarray:
    """uint16 values [h w c] to uint8; alpha by its full range where it has values that the colors' depth does not."""
    scaled = to_eight_bits(values, depth)
    if values.shape[-1] == 4 and int(values[..., 3].max()) >= 2**depth:
        scaled[..., 3] = to_eight_bits(values[..., 3], FULL)
    return scaled


def _over_black(rgba: np.ndarray) -> np.ndarray:
    color, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(color)
    over = np.empty(color.shape, np.uint8)
    # The products have 16 bits, which for a whole image at once would take more memory than all else.
    for start in range(0, len(rgba), _STRIP):
        rows = slice(start, start + _STRIP)
        over[rows] = (color[rows].astype(np.uint16) * alpha[rows] + 127) // 255
    return over
