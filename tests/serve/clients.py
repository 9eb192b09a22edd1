"""Servers to test, in this process or in one of their own, and clients with and without manners."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxad.inference.inspector import Inspector
from jaxad.serve.server import Server, listener
from jaxad.serve.settings import ServeSettings


def picture(seed: int = 0, size: tuple[int, int] = (60, 50), kind: str = "PNG") -> bytes:
    """A file of noise."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@contextmanager
def serving(
    inspector: Inspector, settings: ServeSettings | None = None, token: str = ""
) -> Iterator[tuple[int, Server]]:
    """A server in a thread of this process; its port and itself."""
    server = Server(inspector, settings, token)
    with listener("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        thread = threading.Thread(target=server.serve_on, args=(bound,))
        thread.start()
        try:
            yield port, server
        finally:
            server.drain()
            thread.join(60)
            assert not thread.is_alive()


@contextmanager
def process(run: Path, *flags: object) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """`jaxad serve` in a process of its own; its port and the process."""
    command = [sys.executable, "-m", "jaxad", "serve", str(run), "--port", "0", *map(str, flags)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            found = re.search(r":(\d+)$", line.strip())
            assert found, (line, server.stderr and server.stderr.read())
            yield int(found[1]), server
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    server.wait(60)
            server.kill()


def ask(port: int, body: Any, path: str = "/inspect", method: str = "POST", **headers: str) -> tuple[int, Any]:
    """Status and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named, encode_chunked="Transfer_Encoding" in headers)
        answer = connection.getresponse()
        content = answer.read()
        is_json = (answer.getheader("content-type") or "").startswith("application/json")
        return answer.status, json.loads(content) if is_json else content.decode()
    finally:
        connection.close()


def form(encoded: bytes, name: str = "part.png", field: str = "image") -> tuple[bytes, str]:
    """A form with one file, and its content type."""
    head = f'--xx\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + encoded + b"\r\n--xx--\r\n", "multipart/form-data; boundary=xx"


def raw(port: int, *parts: bytes, pause: float = 0.0, patience: float = 30.0) -> int:
    """Status of the answer to bytes that are sent part by part; 0 where the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        answer = b""
        for part in parts:
            with suppress(OSError):
                connection.sendall(part)
            if pause:
                connection.settimeout(pause)
                with suppress(TimeoutError, OSError):
                    answer += connection.recv(2**16)
                if answer:
                    break
        connection.settimeout(patience)
        while b"\r\n" not in answer:
            try:
                received = connection.recv(2**16)
            except OSError:
                break
            if not received:
                break
            answer += received
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
