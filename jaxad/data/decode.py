"""Any image file, PIL image or array to uint8 RGB, by one documented rule for each mode; masks to bool.

    mode                                      rule
    1, L, P, RGB, CMYK, YCbCr, LAB, HSV       PIL's conversion to RGB; gray is repeated in the three channels
    LA, PA, RGBA, any tRNS transparency       composited over black, so that what is invisible is not inspected
    16-bit gray (I;16*, 16-bit PNG and PPM)   the full range 0..65535 maps to 0..255, rounded; never stretched by
                                              content, so that images stay comparable
    16-bit color                             the high byte (as PIL reads it)
    I, F (32-bit integer, float)              refused: their range is unknown
    EXIF orientation                          applied
    several frames                            the first

Formats are those of `FORMATS`; others that PIL knows (EPS starts Ghostscript) are not opened. The cap on pixels is
`PIL.Image.MAX_IMAGE_PIXELS`. A truncated file is an error unless the caller set `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxad.data.files import bad_image, read_file
from jaxad.data.orientation import is_turned, upright
from jaxad.errors import DataError
from jaxad.types import View

# "JPEG" opens MPO too, the JPEG of several frames that phones write.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
EXTENSIONS = frozenset(
    f".{end}"
    for ends in ("png", "jpg jpeg jpe jfif mpo", "bmp dib", "tif tiff", "webp", "gif", "ppm pgm pbm pnm")
    for end in ends.split()
)
T = TypeVar("T")

_STRIP = 256
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Decoded(NamedTuple):
    """An image uint8 [h w 3] (RGB, writable, contiguous) and the kind of its file, such as "PNG RGB" or "JPEG L"."""

    pixels: np.ndarray
    kind: str


class DecodedMask(NamedTuple):
    """A defect mask bool [h w], and the distinct values above 0 of its file.

    Attributes:
        pixels: True where there is a defect.
        levels: values [n] of a pixel's highest channel, ascending. Several mean that the file is no plain black and
            white mask; all of them are defect (of JPEG masks those above 127).
    """

    pixels: np.ndarray
    levels: np.ndarray


def decode(encoded: bytes, name: str = "encoded image") -> Decoded:
    """Decodes the bytes of an image file by the rules above.

    Args:
        encoded: content of the file.
        name: what messages call it.

    Raises:
        DataError: with one problem of kind "unreadable image", "truncated image", "decompression bomb" or
            "unsupported mode".
    """

    def convert(image: Image.Image) -> Decoded:
        kind = f"{image.format} {image.mode}"
        plain = _plain_jpeg(image, encoded)
        return Decoded(_pil_to_rgb(_loaded(image)) if plain is None else plain, kind)

    return _decode(encoded, name, convert)


def decode_image(source: Path | str | bytes, name: str = "") -> np.ndarray:
    """The pixels uint8 [h w 3] of a file or of its bytes; errors as `decode`, and of files that cannot be read."""
    return decode(*_encoded(source, name)).pixels


def decode_mask(source: Path | str | bytes, name: str = "") -> np.ndarray:
    """Decodes a defect mask: bool [h w], True where any channel is above 0, because masks may hold small codes.

    Palettes are looked up, transparent pixels are background, and JPEG masks are cut at 127 because compression
    leaves a haze above 0. Arguments and errors as `decode_image`; 32-bit masks are read too.
    """
    return _decode(*_encoded(source, name), lambda image: _marked(image, _pil_to_levels(_loaded(image))))


def decode_mask_levels(encoded: bytes, name: str = "encoded image") -> DecodedMask:
    """As `decode_mask`, of the bytes of a file, with the values that it holds."""

    def convert(image: Image.Image) -> DecodedMask:
        levels = _pil_to_levels(_loaded(image))
        return DecodedMask(_marked(image, levels), np.setdiff1d(levels, 0))

    return _decode(encoded, name, convert)


def to_rgb(image: Any, name: str = "image") -> np.ndarray:
    """Any image that `predict` takes as uint8 RGB [h w 3].

    Args:
        image: a path, a PIL image, or an array: uint8 or uint16 of [h w], [h w 1], [h w 3] or [h w 4].
        name: what messages call it.

    Raises:
        DataError: as `decode_image`, and kind "unsupported array" for other types and shapes.
    """
    if isinstance(image, str | Path):
        return decode_image(image)
    if isinstance(image, Image.Image):
        return _named(name, lambda: _pil_to_rgb(image))
    return _array_to_rgb(np.asarray(image), name)


def pixel_digest(image: np.ndarray) -> bytes:
    """16 bytes that identify the decoded pixels and their shape, whatever file they came from."""
    digest = hashlib.blake2b(np.asarray(image.shape, "<u4").tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def pixel_hash(image: np.ndarray) -> int:
    """A uint32 of the decoded pixels and their shape, from which an image's noise is drawn."""
    return int.from_bytes(pixel_digest(image)[:4], "little")


def resize(image: np.ndarray, view: View) -> np.ndarray:
    """uint8 [h w 3] to uint8 [view.height view.width 3] with PIL's antialiased resampling."""
    if view.interpolation not in RESAMPLING:
        raise DataError(f"interpolation {view.interpolation!r} of a view: must be one of {', '.join(RESAMPLING)}")
    if image.shape[:2] == (view.height, view.width):
        return image
    resized = Image.fromarray(image).resize((view.width, view.height), RESAMPLING[view.interpolation])
    return np.array(resized)


class _UnsupportedMode(ValueError):
    pass


def _encoded(source: Path | str | bytes, name: str) -> tuple[bytes, str]:
    """The bytes of a source, and what messages call it."""
    if isinstance(source, bytes):
        return source, name or "encoded image"
    return read_file(Path(source), name), name or str(source)


def _decode(encoded: bytes, name: str, convert: Callable[[Image.Image], T]) -> T:
    """What every image and mask goes through, once."""

    def work() -> T:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, limit {limit}")
            return convert(image)

    return _named(name, work)


def _loaded(image: Image.Image) -> Image.Image:
    # Some files say only behind their pixels how they are to be turned.
    image.load()
    return image


def _plain_jpeg(image: Image.Image, encoded: bytes) -> Any:
    """Pixels [h w 3] of an ordinary, complete JPEG by OpenCV, None for everything that PIL should decide.

    OpenCV and PIL use the same decoder and give the same pixels (tested), but PIL takes twice as long to hand out an
    array, holding back other threads. OpenCV says nothing of a truncated file, hence the look at its end.
    """
    ordinary = image.format == "JPEG" and image.mode in ("RGB", "L") and not is_turned(image)
    if not ordinary or not encoded.endswith(b"\xff\xd9"):
        return None
    # OpenCV raises on some damaged files and returns nothing for others; PIL finds the words.
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return pixels if pixels is not None and pixels.shape == (image.height, image.width, 3) else None


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
    except UnidentifiedImageError as error:
        raise bad_image("unreadable image", name, f"not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:
        # WebP checks its length first and says nothing more specific.
        cut = any(sign in str(error).lower() for sign in ("truncated", "could not create decoder"))
        kind = "truncated image" if cut else "unreadable image"
        raise bad_image(kind, name, f"{str(error) or type(error).__name__}; copy or export it again") from error


def _is_wide(image: Image.Image) -> bool:
    # Older PIL opens 16-bit PNG as "I", and every PIL opens 16-bit PGM so; neither format holds 32 bits.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _pil_to_rgb(image: Image.Image) -> np.ndarray:
    wide = _is_wide(image)
    image = upright(image)
    if wide:
        return _array_to_rgb(np.asarray(image).astype(np.uint16), "image")
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


def _pil_to_levels(image: Image.Image) -> np.ndarray:
    one_number = _is_wide(image) or image.mode in ("I", "F")
    return np.asarray(upright(image)) if one_number else _pil_to_rgb(image).max(axis=-1)


def _array_to_rgb(array: np.ndarray, name: str) -> np.ndarray:
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
        # 65535 = 255 * 257, so this rounds to the nearest of 0..255.
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.shape[-1] == 4:
        return _over_black(pixels)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


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
