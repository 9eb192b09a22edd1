"""The routes: an image in, its line of predictions.jsonl out."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from jaxad import __version__
from jaxad.data.depth import depth_of
from jaxad.errors import ConfigError
from jaxad.inference.answer import Answer
from jaxad.inference.inspector import Inspector
from jaxad.io.foreign import explained
from jaxad.io.pictures import data_uri
from jaxad.io.threads import cpus
from jaxad.report.templates import rendered
from jaxad.serve.batcher import Batcher
from jaxad.serve.numbers import Numbers
from jaxad.serve.settings import ServeSettings
from jaxad.serve.uploads import Budget, check_head, decoded, pixels_of, refusal, uploaded

AGAIN = {"Retry-After": "1"}
CAPTION = 4096
"""Characters that a caption may have; the text tower sees the first 77 tokens."""
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data: blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Service:
    """What answers requests; one for each server.

    Args:
        inspector: judges; warm.
        settings: limits.
        token: that requests must bear; "" for none.

    Attributes:
        app: the FastAPI application.
        draining: whether further images are refused, because the server is about to end.
        accepted: requests for images that were taken on.
        answered: of them.
    """

    def __init__(self, inspector: Inspector, settings: ServeSettings, token: str = ""):
        self._inspector, self._settings, self._token = inspector, settings, token
        self.numbers = Numbers()
        self._batcher = Batcher(inspector, told=self.numbers.batches.observe)
        self._pool = ThreadPoolExecutor(max(2, cpus()), thread_name_prefix="images")
        self._bytes, self._pixels = Budget(settings.held_bytes), Budget(settings.held_pixels)
        self._depths = dict(inspector.detector.depths)
        self.draining = False
        self.accepted = self.answered = 0
        self.app = self._routes()

    def close(self) -> None:
        """Ends the threads once all that was accepted is judged."""
        self._batcher.close()
        self._pool.shutdown()
        self.numbers.close()

    def _routes(self) -> FastAPI:
        title = f"jaxad: {self._inspector.detector.title}"
        app = FastAPI(title=title, version=__version__, docs_url=None, redoc_url=None)
        guarded = [Depends(self._authorize)]
        app.add_exception_handler(AnyHTTPException, _in_words)
        app.add_exception_handler(RequestValidationError, _bad_query)
        app.add_exception_handler(Exception, _unforeseen)
        app.get("/", include_in_schema=False)(self._page)
        app.get("/docs", include_in_schema=False)(self._docs)
        app.get("/health", summary="200 while images are taken; 503 while the server ends.")(self._health)
        app.get("/metrics", summary="Counters in Prometheus' format.", dependencies=guarded)(self._metrics)
        form = {"schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}}
        body = {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}, "multipart/form-data": form}}
        summary = "Judges the image in the body: its bytes, or a form with one file."
        app.post("/inspect", summary=summary, openapi_extra={"requestBody": body}, dependencies=guarded)(self._inspect)
        return app

    def _authorize(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if self._token and not (
            scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode())
        ):
            raise HTTPException(401, "a bearer token is needed, and this is not it", {"WWW-Authenticate": "Bearer"})

    async def _inspect(
        self,
        request: Request,
        category: Annotated[str, Query(description="What the image shows, where the run knows several.")] = "",
        name: Annotated[str, Query(description="What the answer calls the image.", max_length=1024)] = "",
        caption: Annotated[
            str, Query(description="What the image shows, for a run that captions condition.", max_length=CAPTION)
        ] = "",
        overlay: Annotated[bool, Query(description="Whether to send the image under its heat, a JPEG.")] = False,
        mask: Annotated[bool, Query(description="Whether to send the mask, a PNG of 0 and 255.")] = False,
    ) -> JSONResponse:
        begun, status = time.monotonic(), 500
        try:
            category = self._category(category)
            self._check_caption(caption)
            check_head(request, self._settings)
            self._accept()
            try:
                content = partial(_content, overlay=overlay, mask=mask)
                verdict, line = await self._judged(request, name, category, caption, content)
            finally:
                self.answered += 1
                self.numbers.waiting.set(self.accepted - self.answered)
            self.numbers.verdicts.labels(verdict).inc()
            status = 200
            return JSONResponse(line)
        except HTTPException as refused:
            status = refused.status_code
            raise
        finally:
            self.numbers.requests.labels(str(status)).inc()
            self.numbers.seconds.observe(time.monotonic() - begun)

    def _category(self, category: str) -> str:
        try:
            return self._inspector.category_of(category or None)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error

    def _check_caption(self, caption: str) -> None:
        if caption and self._inspector.detector.inputs.captions != "always":
            raise HTTPException(422, "caption: this run takes none; leave it out")
        if not caption and (unlike := self._inspector.unlike_uncaptioned):
            raise HTTPException(422, f"caption: the threshold does not hold, {unlike}; say ?caption=TEXT")

    def _accept(self) -> None:
        """Takes a request on, or refuses it before it costs anything."""
        if self.draining:
            raise HTTPException(503, "the server is about to end; try another, or again later", AGAIN)
        if self.accepted - self.answered >= self._settings.waiting:
            raise HTTPException(503, f"{self._settings.waiting} requests are waiting already; try again", AGAIN)
        self.accepted += 1
        self.numbers.waiting.set(self.accepted - self.answered)

    async def _judged(
        self,
        request: Request,
        name: str,
        category: str,
        caption: str,
        content: Callable[[Answer], dict[str, Any]],
    ) -> tuple[str, dict[str, Any]]:
        """The verdict, and what is made of the answer while its pixels still count as held."""
        async with uploaded(request, self._settings, self._bytes) as upload:
            encoded, name = upload.encoded, name or upload.name or "image"
            pixels = await self._run(pixels_of, encoded, self._settings)
            async with self._pixels.taken(pixels):
                image = await self._run(decoded, encoded, name, depth_of(category, self._depths))
                outcome = await asyncio.wrap_future(self._batcher.submit(image, name, category, caption))
                if not isinstance(outcome, Answer):
                    raise refusal(outcome)
                return outcome.verdict, await self._run(content, outcome)

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _health(self) -> JSONResponse:
        sound = self._batcher.alive and not self.draining
        status = "ok" if sound else "draining" if self.draining else "the thread that judges has ended"
        content = {"status": status, "detector": self._inspector.detector.name, "model": self._inspector.model}
        return JSONResponse(content, 200 if sound else 503)

    async def _metrics(self) -> Response:
        return Response(self.numbers.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _page(self) -> HTMLResponse:
        detector, model = self._inspector.detector, self._inspector.model
        categories = [] if self._inspector.category else detector.categories
        return _html("page.html", detector=detector, model=model, categories=categories, token=bool(self._token))

    async def _docs(self) -> HTMLResponse:
        return _html("docs.html", api=self.app.openapi(), token=bool(self._token), settings=self._settings)


def _content(answer: Answer, overlay: bool, mask: bool) -> dict[str, Any]:
    content = answer.to_json()
    if overlay:
        content["overlay"] = data_uri(answer.overlay, ".jpg")
    if mask:
        content["mask"] = None if answer.mask is None else data_uri(answer.mask.astype("uint8") * 255, ".png")
    return content


def _html(name: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(rendered("jaxad.serve", name, values), headers=PAGE_HEADERS)


async def _in_words(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _bad_query(request: Request, error: Any) -> JSONResponse:
    faults = [f"{fault['loc'][-1]} = {str(fault.get('input'))[:80]}: {fault['msg']}" for fault in error.errors()]
    return JSONResponse({"detail": "; ".join(faults)}, 422)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": explained(error) or "this is a bug of jaxad; its log says more"}, 500)
