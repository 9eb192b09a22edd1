"""`jaxad serve`: a checkpoint behind HTTP."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from jaxad.cli._command import Command, below_one, raise_problems
from jaxad.cli._printing import show
from jaxad.config import Precision
from jaxad.errors import ConfigError

VARIABLE = "JAXAD_TOKEN"


@dataclass(frozen=True)
class Serve(Command):
    """Answer images over HTTP with a checkpoint, until the command is stopped (extra `serve`).

    POST /inspect takes an image, / is a page to drop one on, /docs says the rest. Where the variable JAXAD_TOKEN, or
    --token-file, holds a bearer token, requests must bear it.
    """

    words: ClassVar[str] = "serve"

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A workdir (its newest step) or one step's folder."""
    host: str = "127.0.0.1"
    """Address to listen on; of this machine alone if not given."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    token_file: Annotated[Path | None, tyro.conf.DisallowNone] = None
    """File that holds the bearer token, in place of the variable JAXAD_TOKEN."""
    category: str = ""
    """What images show where a request does not say."""
    threshold: Annotated[float | None, tyro.conf.DisallowNone] = None
    """Image score above which an image is anomalous, in place of the checkpoint's."""
    backbone: str | None = None
    """Folder or id to load the backbone from, as for predict."""
    precision: Annotated[Precision | None, tyro.conf.DisallowNone] = None
    """What networks compute in, as for predict."""
    batch_size: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Images at once, at most; one on each CPU and 8 on each accelerator if not given."""
    waiting: int = 64
    """Requests that may wait; further ones are answered 503."""
    body_mib: int = 32
    """MiB that a request may have."""
    megapixels: int = 50
    """Millions of pixels that an image may have."""
    timeout: float = 30.0
    """Seconds in which the body of a request must have come."""

    def run(self) -> None:
        """Serves."""
        problems = below_one(self, "batch_size", "waiting", "body_mib", "megapixels")
        if not 0 <= self.port < 65536:
            problems.append(f"port = {self.port}: must be 0 to 65535")
        if not self.timeout > 0:
            problems.append(f"timeout = {self.timeout}: must be above 0")
        raise_problems(problems)
        token = self._token()

        from jaxad.inference.inspector import load
        from jaxad.io.progress import Reporter
        from jaxad.io.text import visible
        from jaxad.serve.server import Server, is_loopback, listener
        from jaxad.serve.settings import MEBIBYTE, ServeSettings

        settings = ServeSettings(
            waiting=self.waiting,
            body_bytes=self.body_mib * MEBIBYTE,
            pixels=self.megapixels * 1_000_000,
            body_seconds=self.timeout,
        )
        reporter = Reporter()
        with listener(self.host, self.port) as bound:
            if not token and not is_loopback(self.host):
                reporter.warn([f"host = {self.host}: whoever reaches it may ask; set {VARIABLE} to a token"])
            inspector = load(
                self.checkpoint,
                category=self.category,
                threshold=self.threshold,
                backbone=self.backbone,
                precision=self.precision,
                batch_size=self.batch_size,
                told=lambda text: reporter.warn([f"{text}; a request gives one as ?caption=TEXT"]),
            )
            reporter.warn(inspector.notes)
            server = Server(inspector, settings, token)
            host = f"[{self.host}]" if ":" in self.host else self.host
            show(f"serving {visible(self.checkpoint)} on http://{host}:{bound.getsockname()[1]}", flush=True)
            try:
                server.serve_on(bound)
            finally:
                reporter.say(f"{server.service.accepted} images accepted, {server.service.answered} answered")

    def _token(self) -> str:
        """The bearer token, "" for none."""
        if self.token_file is None:
            return os.environ.get(VARIABLE, "").strip()
        try:
            token = self.token_file.read_text("utf-8").strip()
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"token_file = {self.token_file}: cannot be read ({why})") from error
        if not token:
            raise ConfigError(f"token_file = {self.token_file}: is empty; write a token to it")
        return token
