"""What the server bounds. Every request costs what these allow, whoever sends it."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True)
class ServeSettings:
    """Limits of the server.

    Attributes:
        waiting: requests that are being read, decoded or judged; further ones are answered 503.
        body_bytes: of a request's body.
        pixels: of an image.
        body_seconds: in which a body must have come.
        head_seconds: in which the head of a request must have come.
        answer_seconds: in which a client must have taken a part of its answer.
        linger_seconds: for which what a client still sends behind its answer is read and thrown away, so that it gets
            to read the answer.
        drain_seconds: in which, after SIGTERM, requests that were accepted must be answered.
        connections: open at once.
    """

    waiting: int = 64
    body_bytes: int = 32 * MEBIBYTE
    pixels: int = 50_000_000
    body_seconds: float = 30.0
    head_seconds: float = 10.0
    answer_seconds: float = 30.0
    linger_seconds: float = 5.0
    drain_seconds: float = 30.0
    connections: int = 512

    @property
    def held_bytes(self) -> int:
        """Of the bodies of all requests together; what goes beyond is answered 503."""
        return 8 * self.body_bytes

    @property
    def held_pixels(self) -> int:
        """Of the decoded images of all requests together; further ones wait for room."""
        return 4 * self.pixels
