"""Answers of the server: those of the inspector, in words where there is none."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from jaxad.inference.uncaptioned import Uncaptioned
from jaxad.serve.settings import ServeSettings
from tests.compilations import counted
from tests.serve.clients import ask, form, picture, serving


@pytest.fixture(scope="module")
def port(inspector):
    with serving(inspector) as (port, _):
        yield port


def test_an_answer_is_that_of_the_inspector(inspector, port):
    encoded = picture(1)
    expected = inspector(Image.open(io.BytesIO(encoded)), category="disc").to_json()
    body, kind = form(encoded)
    for found in (
        ask(port, encoded, "/inspect?category=disc&name=part.png"),
        ask(port, body, "/inspect?category=disc", Content_Type=kind),
        ask(port, encoded, "/inspect?category=disc&name=part.png", Content_Type="image/png"),
    ):
        assert found == (
            200,
            expected
            | {
                "file": "part.png",
                "score": pytest.approx(expected["score"], rel=1e-5),
                "scaled": pytest.approx(expected["scaled"], rel=1e-5),
            },
        )


def test_overlay_and_mask_come_on_request_at_the_size_of_the_image(inspector, port):
    encoded = picture(2, (41, 77))
    status, answer = ask(port, encoded, "/inspect?overlay=true&mask=true")
    assert status == 200
    pictures = {}
    for name in ("overlay", "mask"):
        with Image.open(io.BytesIO(base64.b64decode(answer[name].partition(",")[2]))) as image:
            pictures[name] = np.asarray(image)
    assert pictures["overlay"].shape == (41, 77, 3)
    np.testing.assert_array_equal(pictures["mask"] > 0, inspector(Image.open(io.BytesIO(encoded))).mask)
    assert {"overlay", "mask"}.isdisjoint(ask(port, encoded)[1])


def test_concurrent_requests_share_batches_and_compile_nothing(inspector):
    files = [picture(seed, (40 + seed, 50)) for seed in range(24)]
    expected = [inspector(Image.open(io.BytesIO(file))).score for file in files]
    with serving(inspector) as (port, server), counted() as counts, ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda file: ask(port, file), files))
        text = ask(port, None, "/metrics", "GET")[1]
    assert [status for status, _ in found] == [200] * len(files)
    assert [answer["score"] for _, answer in found] == pytest.approx(expected, rel=1e-5)
    assert counts["programs"] == 0
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(numbers["jaxad_batch_images_sum"]) == len(files)
    assert float(numbers["jaxad_batch_images_count"]) < len(files)
    assert float(numbers['jaxad_requests_total{status="200"}']) == len(files)
    assert float(numbers["jaxad_programs_compiled_total"]) == float(numbers["jaxad_waiting_requests"]) == 0
    assert server.service.accepted == server.service.answered == len(files)


@pytest.mark.parametrize(
    ("body", "path", "headers", "status", "said"),
    [
        (b"", "/inspect", {}, 400, "image is empty"),
        (b"no image", "/inspect", {}, 422, "not an image of a known format"),
        (picture()[:200], "/inspect", {}, 422, "truncated image"),
        (picture(), "/inspect?category=bolt", {}, 422, "knows disc, tile"),
        (picture(), "/inspect?overlay=maybe", {}, 422, "overlay = maybe"),
        (picture(), "/inspect?caption=a%20disc", {}, 422, "caption: this run takes none"),
        (b"{}", "/inspect", {"Content_Type": "application/json"}, 415, "content type application/json"),
        (picture(), "/inspect", {"Content_Type": "multipart/form-data"}, 400, "form cannot be read"),
        (b"--xx--\r\n", "/inspect", {"Content_Type": "multipart/form-data; boundary=xx"}, 400, "no file"),
        (picture(), "/nowhere", {}, 404, "Not Found"),
    ],
)
def test_what_cannot_be_judged_is_said_in_words(port, body, path, headers, status, said):
    found, answer = ask(port, body, path, **headers)
    assert found == status
    assert said in answer["detail"]


def test_a_token_is_asked_for_where_there_is_one(inspector):
    with serving(inspector, token="a secret") as (port, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic a secret"}):
            assert ask(port, picture(), **headers)[0] == 401
            assert ask(port, None, "/metrics", "GET", **headers)[0] == 401
        assert ask(port, picture(), Authorization="Bearer a secret")[0] == 200
        assert ask(port, None, "/metrics", "GET", Authorization="bearer a secret")[0] == 200
        for path in ("/", "/docs", "/health"):
            assert ask(port, None, path, "GET")[0] == 200


def test_pages_ask_nobody_else(port):
    for path in ("/", "/docs"):
        status, page = ask(port, None, path, "GET")
        assert status == 200
        assert "//" not in page.replace("http://HOST:PORT", "").replace("// ", "")
        assert "src=" not in page
    assert "/inspect" in ask(port, None, "/openapi.json", "GET")[1]["paths"]


@pytest.fixture
def held(inspector, monkeypatch):
    """Events: that the inspector has been asked, and, to be set, that it may answer."""
    entered, go = threading.Event(), threading.Event()
    real = inspector.outcomes

    def slow(source, **how):
        entered.set()
        assert go.wait(60)
        return real(source, **how)

    monkeypatch.setattr(inspector, "outcomes", slow)
    return entered, go


def test_more_than_may_wait_is_refused_at_once(inspector, held):
    entered, go = held
    with serving(inspector, ServeSettings(waiting=3)) as (port, _), ThreadPoolExecutor(3) as pool:
        first = [pool.submit(ask, port, picture()) for _ in range(3)]
        entered.wait(60)
        while float(_number(port, "jaxad_waiting_requests")) < 3:
            pass
        status, answer = ask(port, picture())
        go.set()
        assert (status, "3 requests are waiting" in answer["detail"]) == (503, True)
        assert [future.result()[0] for future in first] == [200] * 3


def test_what_was_accepted_is_answered_before_the_end_and_nothing_more_accepted(inspector, held):
    entered, go = held
    with ThreadPoolExecutor(2) as pool:
        with serving(inspector) as (port, server):
            accepted = pool.submit(ask, port, picture())
            entered.wait(60)
            server.drain()
            assert ask(port, picture())[0] == 503
            assert ask(port, None, "/health", "GET") == (
                503,
                {"status": "draining", "detector": "dpdiff", "model": inspector.model},
            )
            threading.Timer(1.5, go.set).start()
        assert accepted.result()[0] == 200


def test_a_caption_comes_with_its_image(inspector, monkeypatch):
    inputs = dataclasses.replace(inspector.detector.inputs, captions="always")
    monkeypatch.setattr(type(inspector.detector), "inputs", inputs)
    judge, seen = inspector.outcomes, []

    def seeing(source, **how):
        seen.extend(record.caption for record in source.records)
        return judge(source, **how)

    monkeypatch.setattr(inspector, "outcomes", seeing)
    with serving(inspector) as (port, _):
        for query in ("?caption=a%20dark%20disc", ""):
            assert ask(port, picture(), f"/inspect{query}")[0] == 200
    assert seen == ["a dark disc", ""]
    # One whose threshold was measured with captions decides nothing without.
    measured = {"kind": "vlm, pd", "images": 10, "missing": 0}
    monkeypatch.setattr(inspector, "_uncaptioned", Uncaptioned(inspector.detector, measured))
    with serving(inspector) as (port, _):
        status, answer = ask(port, picture())
        assert (status, "measured with captions of vlm, pd" in answer["detail"]) == (422, True)
        assert "?caption=" in answer["detail"]
        assert ask(port, picture(), "/inspect?caption=a%20dark%20disc")[0] == 200


def test_a_failure_of_the_detector_is_no_end(inspector, monkeypatch):
    with serving(inspector) as (port, _):
        with monkeypatch.context() as patch:
            patch.setattr(inspector, "outcomes", lambda *_, **__: 1 / 0)
            status, answer = ask(port, picture())
        assert (status, "bug of jaxad" in json.dumps(answer)) == (500, True)
        assert ask(port, picture())[0] == 200


def _number(port: int, name: str) -> str:
    text = ask(port, None, "/metrics", "GET")[1]
    return next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} "))
