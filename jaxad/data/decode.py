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
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxad.data.orientation import turn_of, upright
from jaxad.errors import DataError, Problem
from jaxad.types import View

# "JPEG" opens MPO too, the JPEG of several frames that phones write.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
EXTENSIONS = frozenset(
    f".{end}"
    for ends in ("png", "jpg jpeg jpe jfif mpo", "bmp dib", "tif tiff", "webp", "gif", "ppm pgm pbm pnm")
    for end in ends.split()
)
T = TypeVar("T")

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode_image(source: Path | str | bytes, name: str = "") -> np.ndarray:
    """Decodes an image file by the rules above.

    Args:
        source: a file, or the encoded bytes of one.
        name: what messages call it; the path by default.

    Returns:
        uint8 [h w 3], RGB, writable and contiguous.

    Raises:
        DataError: with one problem of kind "unreadable image", "truncated image", "decompression bomb" or
            "unsupported mode".
    """
    return _read(source, name, _pil_to_rgb)


def decode_mask(source: Path | str | bytes, name: str = "") -> np.ndarray:
    """Decodes a defect mask: bool [h w], True where any channel is above 0 (SPEC 4.5; masks may hold small codes).

    Palettes are looked up, transparent pixels are background, and JPEG masks are cut at 127 because compression
    leaves a haze above 0. Arguments and errors as `decode_image`; 32-bit masks are read too.
    """
    return _read(source, name, _pil_to_mask)


def decode_mask_levels(source: Path | str | bytes, name: str = "") -> tuple[np.ndarray, np.ndarray]:
    """A defect mask as `decode_mask` has it, and the distinct values above 0 of its file.

    Returns:
        Mask bool [h w], and values [n] of a pixel's highest channel, ascending: several mean that the file is no plain
        black and white mask. All of them are defect (of JPEG masks those above 127). Errors as `decode_image`.
    """
    return _read(source, name, lambda image: (_pil_to_mask(image), np.setdiff1d(_pil_to_levels(image), 0)))


def image_kind(source: Path | str | bytes, name: str = "") -> str:
    """Format and PIL mode of an image file before conversion, e.g. "PNG RGB" or "JPEG L". Errors as `decode_image`."""
    return _read(source, name, lambda image: f"{image.format} {image.mode}", load=False)


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
    """A uint32 of the decoded pixels and their shape, from which an image's noise is drawn (DESIGN 4.3)."""
    return int.from_bytes(pixel_digest(image)[:4], "little")


def resize(image: np.ndarray, view: View) -> np.ndarray:
    """uint8 [h w 3] to uint8 [view.height view.width 3] with PIL's antialiased resampling (SPEC 0.2)."""
    if view.interpolation not in RESAMPLING:
        raise DataError(f"interpolation {view.interpolation!r} of a view: must be one of {', '.join(RESAMPLING)}")
    if image.shape[:2] == (view.height, view.width):
        return image
    resized = Image.fromarray(image).resize((view.width, view.height), RESAMPLING[view.interpolation])
    return np.array(resized)


class _UnsupportedMode(ValueError):
    pass


def _bad(kind: str, name: str, detail: str) -> DataError:
    return DataError("an image cannot be used:", [Problem(kind, name, detail)])


def _read(source: Path | str | bytes, name: str, convert: Callable[[Image.Image], T], *, load: bool = True) -> T:
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), name or "encoded image", convert, load)
    path = Path(source)
    name = name or str(path)
    try:
        # Opening a named pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _bad("unreadable image", name, "not a regular file; remove it or put an image in its place")
        with path.open("rb") as stream:
            return _decode(stream, name, convert, load)
    except OSError as error:
        raise _bad("unreadable image", name, f"cannot open the file ({error.strerror or error})") from error


def _decode(stream: BinaryIO, name: str, convert: Callable[[Image.Image], T], load: bool) -> T:
    def work() -> T:
        with Image.open(stream, formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, limit {limit}")
            if convert is _pil_to_rgb and (pixels := _plain_jpeg(image, stream)) is not None:
                return pixels
            if load:
                image.load()
            return convert(image)

    return _named(name, work)


def _plain_jpeg(image: Image.Image, stream: BinaryIO) -> Any:
    """Pixels [h w 3] of an ordinary, complete JPEG by OpenCV, None for everything that PIL should decide.

    OpenCV and PIL use the same decoder and give the same pixels (tested), but PIL takes twice as long to hand out an
    array, holding back other threads. OpenCV says nothing of a truncated file, hence the look at its end.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or turn_of(image) is not None:
        return None
    stream.seek(0)
    encoded = stream.read()
    if not encoded.endswith(b"\xff\xd9"):
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
        raise _bad("unsupported mode", name, str(error)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        advice = "crop or shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if it is trusted"
        raise _bad("decompression bomb", name, f"{error}; {advice}") from error
    except UnidentifiedImageError as error:
        raise _bad("unreadable image", name, f"not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:
        # WebP checks its length first and says nothing more specific.
        cut = any(sign in str(error).lower() for sign in ("truncated", "could not create decoder"))
        kind = "truncated image" if cut else "unreadable image"
        raise _bad(kind, name, f"{str(error) or type(error).__name__}; copy or export it again") from error


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
        return _over_black(np.array(straight.convert("RGBA")))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _pil_to_mask(image: Image.Image) -> np.ndarray:
    return _pil_to_levels(image) > (127 if image.format in ("JPEG", "MPO") else 0)


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
        raise _bad(
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
    return ((color.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
