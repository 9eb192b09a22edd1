"""From a request to the bytes of one image and to its pixels, within bounds; whatever is wrong is said in words."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import numpy as np
from fastapi import HTTPException, Request
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from jaxad.data.decode import FORMATS, decode
from jaxad.data.depth import Depth
from jaxad.errors import DataError, Problem
from jaxad.serve.settings import ServeSettings

MULTIPART = "multipart/form-data"
BYTES = ("application/octet-stream", "application/x-www-form-urlencoded")
"""Content types of a body that is a file; the latter is what curl says of one."""
FORM_FIELDS = 8
"""Fields of a form, of which one is the image."""


class Upload(NamedTuple):
    """What came: the bytes of an image file, and the name that its sender gives it, "" for none."""

    encoded: bytes
    name: str


class Budget:
    """So much of something that all requests together may hold; used in one event loop.

    Args:
        total: how much.
    """

    def __init__(self, total: int):
        self._left = total
        self._changed = asyncio.Condition()

    def try_take(self, amount: int) -> bool:
        """Takes some, unless there is too little left."""
        if amount > self._left:
            return False
        self._left -= amount
        return True

    async def give_back(self, amount: int) -> None:
        """Puts some back."""
        async with self._changed:
            self._left += amount
            self._changed.notify_all()

    @asynccontextmanager
    async def taken(self, amount: int) -> AsyncIterator[None]:
        """Waits for some, and holds it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.try_take(amount))
        try:
            yield
        finally:
            await self.give_back(amount)


def check_head(request: Request, settings: ServeSettings) -> None:
    """Refuses a request by what its head says, before its body is read."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind not in BYTES and kind != MULTIPART and not kind.startswith("image/"):
        raise HTTPException(415, f"content type {kind}: send the bytes of an image (image/*) or a form ({MULTIPART})")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > settings.body_bytes:
        raise _too_large(settings)


@asynccontextmanager
async def uploaded(request: Request, settings: ServeSettings, held: Budget) -> AsyncIterator[Upload]:
    """Reads the body of a request; its bytes count as held until the context ends.

    Args:
        request: a form with a file, or the bytes themselves.
        settings: bounds size and time.
        held: of the bodies of all requests.
    """
    parts: list[bytes] = []
    size = 0
    try:
        try:
            async with asyncio.timeout(settings.body_seconds):
                async for part in request.stream():
                    if size + len(part) > settings.body_bytes:
                        raise _too_large(settings)
                    if not held.try_take(len(part)):
                        raise HTTPException(
                            503, "too many bytes of others are waiting; try again", {"Retry-After": "1"}
                        )
                    size += len(part)
                    parts.append(part)
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not come within {settings.body_seconds:g} seconds") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the body was cut off") from error
        body = b"".join(parts)
        parts.clear()
        upload = await _of_form(request, body) if _is_form(request) else Upload(body, "")
        if not upload.encoded:
            raise HTTPException(400, "the image is empty; send its bytes as the body, or as a file of a form")
        yield upload
    finally:
        await held.give_back(size)


def pixels_of(encoded: bytes, settings: ServeSettings) -> int:
    """How many pixels an image says it has; 0 where that cannot be told, which decoding then says."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError as error:
        raise HTTPException(413, f"decompression bomb: {error}; crop or shrink the image") from error
    except Exception:
        return 0
    if pixels > settings.pixels:
        size = f"{pixels / 1e6:,.1f} million pixels, at most {settings.pixels / 1e6:,.1f} are taken"
        raise HTTPException(413, f"decompression bomb: {size}; crop or shrink the image")
    return pixels


def decoded(encoded: bytes, name: str, depth: Depth) -> np.ndarray:
    """The pixels uint8 [h w 3]; an image that cannot be used is refused."""
    try:
        return decode(encoded, name, depth).pixels
    except DataError as error:
        raise refusal(error.problems or (Problem("unreadable image", name, str(error)),)) from error


def refusal(problems: tuple[Problem, ...]) -> HTTPException:
    """The answer to an image that cannot be used."""
    (problem, *_) = problems
    return HTTPException(413 if problem.kind == "decompression bomb" else 422, f"{problem.kind}: {problem.detail}")


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith(MULTIPART)


async def _of_form(request: Request, body: bytes) -> Upload:
    """The one file of a form."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=FORM_FIELDS)
    # It has been read already, and is to stay in memory.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise HTTPException(400, f"the form cannot be read: {getattr(error, 'message', error)}") from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, "the form has no file; send the image as one")
        return Upload(await files[0].read(), files[0].filename or "")
    finally:
        await form.close()


def _too_large(settings: ServeSettings) -> HTTPException:
    return HTTPException(413, f"the body is larger than {settings.body_bytes / 2**20:g} MiB, which is the limit here")
