"""Connections that do not wait for ever, and close so that the other side can read why."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from jaxad.io.json_files import json_text
from jaxad.serve.settings import ServeSettings


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


def timed_protocol(settings: ServeSettings) -> type[H11Protocol]:
    """uvicorn's HTTP with an end to waiting for the head of a request: 408. What is no HTTP can read its 400, too."""

    class Timed(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _deaf = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()

        def data_received(self, data: bytes) -> None:
            if not self._deaf:
                super().data_received(data)

        def handle_events(self) -> None:
            super().handle_events()
            if self.conn.their_state is not h11.IDLE:
                self._stop()
            elif self._timer is None and self.conn.trailing_data[0]:
                self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._end(400, msg)

        def _start(self) -> None:
            self._timer = self.loop.call_later(settings.head_seconds, self._give_up)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self._end(408, f"The head of the request did not come within {settings.head_seconds:g} seconds.")

        def _end(self, status: int, words: str) -> None:
            """Answers, takes nothing more, and closes once the other side has had time to read."""
            content = json_text({"detail": words}).encode()
            length = ("content-length", str(len(content)))
            headers = [length, ("content-type", "application/json"), ("connection", "close")]
            answer = (h11.Response(status_code=status, headers=headers), h11.Data(data=content), h11.EndOfMessage())
            try:
                self.transport.write(b"".join(self.conn.send(event) or b"" for event in answer))
                self.transport.write_eof()
            except h11.LocalProtocolError:
                # It has an answer already, or part of one.
                self.transport.close()
            self._deaf = True
            self.transport.resume_reading()
            self.loop.call_later(settings.linger_seconds, self.transport.close)
            if self.cycle is not None and not self.cycle.response_complete:
                self.cycle.disconnected = True
                self.cycle.message_event.set()

    return Timed
