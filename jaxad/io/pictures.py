"""Pictures as bytes of files."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
from PIL import Image

from jaxad.errors import JaxadError


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """The image uint8 [h w 3] with its longer side at most `side` pixels, aspect ratio kept."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    return cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )


def encode_picture(picture: np.ndarray, suffix: str, *, quality: int = 85) -> bytes:
    """The picture uint8 [h w 3] or [h w] as the bytes of a file, by the suffix ".png", ".jpg" or ".jpeg"."""
    formats = {".png": ("PNG", {"optimize": True}), ".jpg": ("JPEG", {"quality": quality, "optimize": True})}
    formats[".jpeg"] = formats[".jpg"]
    if suffix.lower() not in formats:
        raise JaxadError(f"{suffix!r}: pictures are saved as .png, .jpg or .jpeg")
    name, options = formats[suffix.lower()]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, name, **options)
    return buffer.getvalue()


def data_uri(picture: np.ndarray, suffix: str, *, quality: int = 85) -> str:
    """The picture uint8 [h w] or [h w 3] as a `data:` URI; arguments and errors as of `encode_picture`."""
    kind = "png" if suffix.lower() == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(encode_picture(picture, suffix, quality=quality)).decode()}"


def by_centers(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An array [h w] at another size, by the element under each center."""
    rows, columns = (
        ((np.arange(to) + 0.5) * length / to).astype(int) for to, length in zip(shape, array.shape, strict=True)
    )
    return array[np.ix_(rows, columns)]
