"""The server: bound before anything is loaded, drained when it is asked to end."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from jaxad.errors import ConfigError
from jaxad.inference.inspector import Inspector
from jaxad.io import signals
from jaxad.serve.app import Service
from jaxad.serve.connections import Lingering, timed_protocol
from jaxad.serve.settings import ServeSettings

REFUSING = 5
"""Ticks of a tenth of a second for which, before it closes, a server that is to end answers new requests with 503."""
LONGEST_HEAD = 2**14
"""Bytes of a request's head."""


class Server(uvicorn.Server):
    """Answers requests until the process is asked to end (`jaxad.io.signals`), or `drain` is called.

    Args:
        inspector: judges; warm.
        settings: limits.
        token: that requests must bear; "" for none.
    """

    def __init__(self, inspector: Inspector, settings: ServeSettings | None = None, token: str = ""):
        settings = settings or ServeSettings()
        self.service = Service(inspector, settings, token)
        config = uvicorn.Config(
            Lingering(self.service.app, settings),
            http=timed_protocol(settings),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=settings.connections,
            timeout_graceful_shutdown=round(settings.drain_seconds),
            h11_max_incomplete_event_size=LONGEST_HEAD,
        )
        super().__init__(config)
        self._ticks = 0

    def serve_on(self, listener: socket.socket) -> None:
        """Answers what comes to a listening socket; returns when all that was accepted is answered."""
        try:
            with signals.held():
                self.run(sockets=[listener])
        finally:
            self.service.close()

    def drain(self) -> None:
        """Refuses further images, answers those that were accepted, and ends; may be called from any thread."""
        self.service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; whether to end."""
        if signals.asked() is not None:
            self.drain()
        self._ticks += self.service.draining
        self.should_exit = self.should_exit or self._ticks > REFUSING
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's: signals are jaxad's."""
        yield


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ConfigError: there is no such address here, or it is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"host = {host}, port = {port}: cannot listen there ({why}); give another port") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
