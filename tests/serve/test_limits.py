"""Hostile requests: each is answered 4xx, and the server goes on."""

from __future__ import annotations

import io
import itertools
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from PIL import Image

from jaxad.serve.settings import ServeSettings
from tests.serve.clients import ask, form, picture, process, raw, serving

TIGHT = ServeSettings(
    body_bytes=100_000, pixels=10_000, body_seconds=1, head_seconds=1, linger_seconds=20, answer_seconds=20
)
HEAD = b"POST /inspect HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def port(inspector):
    with serving(inspector, TIGHT) as (port, _):
        yield port
        assert ask(port, picture())[0] == 200


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is as large, with a kilobyte of data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(2**20))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(101, 100), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_images_of_too_many_pixels_are_refused_unseen(port, size):
    status, answer = ask(port, bomb(*size))
    assert status in (413, 422)
    assert size == (2**31 - 1, 2**31 - 1) or "decompression bomb" in answer["detail"]


def test_bodies_that_are_too_large_are_refused_and_the_answer_arrives(port):
    large = bytes(5_000_000)
    assert ask(port, large)[0] == 413
    body, kind = form(large)
    assert ask(port, body, Content_Type=kind)[0] == 413
    chunked = itertools.repeat(bytes(50_000), 100)
    assert ask(port, chunked, Transfer_Encoding="chunked")[0] == 413
    # One that announces more than it ever sends.
    assert raw(port, HEAD + b"Content-Length: 99999999999\r\n\r\n") == 413


def test_slow_senders_are_given_up(port):
    assert raw(port, b"") == 408
    assert raw(port, HEAD, *(b"X-%d: y\r\n" % number for number in range(20)), pause=0.2) == 408
    slow = [HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 20]
    assert raw(port, *slow, pause=0.2) == 408


def test_a_second_request_on_a_connection_is_timed_too(port):
    whole = HEAD + b"Content-Length: 0\r\n\r\n"
    assert raw(port, whole) == 400
    begun = time.monotonic()
    assert raw(port, whole + HEAD, patience=20) == 400
    assert time.monotonic() - begun < 15


def test_bytes_of_all_bodies_together_are_bounded(inspector):
    """Eight full bodies are held; what comes beyond is told to come again, and room is given back."""
    with serving(inspector, TIGHT) as (port, server), ThreadPoolExecutor(12) as pool:
        head = HEAD + b"Content-Length: 100000\r\n\r\n"
        slow = [pool.submit(raw, port, head + bytes(99_000), *[b"x"] * 20, pause=0.2) for _ in range(12)]
        statuses = Counter(future.result() for future in slow)
        assert statuses == {408: 8, 503: 4}
        assert ask(port, bytes(90_000))[0] == 422
        assert server.service.accepted == server.service.answered


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/one\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"A" * 100_000,
    ],
    ids=["version", "tls", "negative", "two lengths", "no chunk", "long head", "no head"],
)
def test_what_is_no_http_is_answered_400(port, request_):
    assert raw(port, request_ if b"\r\n\r\n" in request_ else request_ + b"\r\n\r\n") == 400


@pytest.mark.slow
def test_two_hundred_hostile_requests(trained, capsys):
    """All at once, bodies of 1 GB among them; memory stays bounded and the server answers the next photo."""
    flags = ("--timeout", 3, "--body-mib", 8, "--megapixels", 20, "--waiting", 200)
    with process(trained.workdir, *flags) as (port, server):
        assert ask(port, picture())[0] == 200
        memory = psutil.Process(server.pid)
        before, highest = memory.memory_info().rss, 0
        with ThreadPoolExecutor(24) as pool:
            found = [(kind, pool.submit(work)) for kind, work in _hostile(port)]
            while not all(future.done() for _, future in found):
                highest = max(highest, memory.memory_info().rss)
                time.sleep(0.1)
        statuses = Counter((kind, future.result()) for kind, future in found)
        assert sum(statuses.values()) == 200
        assert {status // 100 for _, status in statuses} == {4}, statuses
        assert ask(port, picture())[0] == 200
        assert highest - before < 400e6
        with capsys.disabled():
            print(
                f"\n200 hostile requests: {dict(statuses)}; memory {before / 1e6:.0f} MB, {highest / 1e6:.0f} at most"
            )


def _hostile(port: int) -> Iterator[tuple[str, object]]:
    whole = {kind: picture(3, (200, 200), kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")}
    for number in range(60):
        kind = list(whole)[number % 6]
        yield "truncated", lambda e=whole[kind], n=number: ask(port, e[: 20 + (len(e) - 60) * n // 60])[0]
    for number in range(30):
        size = ((6000, 6000), (30_000, 30_000), (65_000, 65_000))[number % 3]
        yield "bomb", lambda s=size: ask(port, bomb(*s))[0]
    for number in range(50):
        body = (b"{}", b"GIF89a", b"%PDF-1.7", b"PK\x03\x04" * 100, bytes(1000))[number % 5]
        kind = ("application/json", "image/png", "text/plain", "", "image/jpeg")[number % 5]
        yield "wrong type", lambda b=body, k=kind: ask(port, b, Content_Type=k)[0]
    for number in range(6):
        # As senders do that read while they send; those that do not are cut off after `linger_seconds`.
        head = b"Content-Length: 1073741824\r\n\r\n" if number % 2 else b"Transfer-Encoding: chunked\r\n\r\n"
        part = bytes(2**20) if number % 2 else b"100000\r\n" + bytes(2**20) + b"\r\n"
        yield "1 GB", lambda h=head, p=part: raw(port, HEAD + h, *[p] * 1024, pause=0.001)
    for number in range(24):
        head = HEAD if number % 2 else HEAD + b"Content-Length: 100\r\n\r\n"
        part = b"X-A: b\r\n" if number % 2 else b"x"
        yield "slow", lambda h=head, p=part: raw(port, h, *[p] * 90, pause=0.2)
    for number in range(30):
        body, kind = form(b"x" * number)
        cut = body[: len(body) - 1 - number % 20]
        yield "bad form", lambda b=cut, k=kind: ask(port, b, Content_Type=k)[0]


def test_images_within_the_bounds_are_judged(port):
    buffer = io.BytesIO()
    Image.new("RGB", (100, 100)).save(buffer, "PNG")
    assert ask(port, buffer.getvalue())[0] == 200
