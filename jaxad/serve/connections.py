"""Connections that do not wait for ever, and close so that the other side can read why."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from jaxad.serve.settings import ServeSettings

LATE = b"the head of the request did not come in time\n"


class Lingering:
    """An ASGI application whose answers reach clients that are still sending.

    A connection that is closed with unread data is reset, and the client may never see its answer. So what a client
    sends behind the answer to a refused request is thrown away for a while.

    Args:
        app: answers.
        settings: how long.
    """

    def __init__(self, app: Any, settings: ServeSettings):
        self._app, self._settings = app, settings

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request."""
        names = {name for name, value in scope.get("headers", ()) if (name, value) != (b"content-length", b"0")}
        whole = not names & {b"content-length", b"transfer-encoding"}

        async def counted() -> Any:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def patient(message: Any) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start" and not whole:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            # A client that takes no answer must not hold it for ever.
            async with asyncio.timeout(self._settings.answer_seconds):
                await send({**message, "more_body": True} if last and not whole else message)
            if last and not whole:
                try:
                    async with asyncio.timeout(self._settings.linger_seconds):
                        while not whole:
                            await counted()
                except TimeoutError:
                    pass
                await send({"type": "http.response.body", "body": b""})

        await self._app(scope, counted, patient)


def timed_protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP on which the head of a request must come within so many seconds; else 408 is answered."""

    class Timed(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(seconds, self._give_up)

        def handle_events(self) -> None:
            super().handle_events()
            if self.conn.their_state is not h11.IDLE:
                self._stop()
            elif self._timer is None and self.conn.trailing_data[0]:
                self._timer = self.loop.call_later(seconds, self._give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                headers = [("content-length", str(len(LATE))), ("content-type", "text/plain"), ("connection", "close")]
                answer = (h11.Response(status_code=408, headers=headers), h11.Data(data=LATE), h11.EndOfMessage())
                self.transport.write(b"".join(self.conn.send(event) or b"" for event in answer))
                self.transport.close()

    return Timed
