"""Large images one at a time."""

import io
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest
from PIL import Image

from jaxad.data import files, turns
from jaxad.data.decode import decode_image, decode_mask
from jaxad.data.turns import large_images_in_turn


def _png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 7)).save(stream, "PNG")
    return stream.getvalue()


IMAGE = _png()


@pytest.mark.parametrize("large", [True, False])
def test_large_images_are_held_by_one_thread_at_a_time(monkeypatch, large):
    monkeypatch.setattr(turns, "LARGE", 0 if large else 10**6)
    data, held, most, lock = IMAGE, 0, 0, threading.Lock()
    together = threading.Barrier(4)

    def work(_):
        nonlocal held, most
        together.wait()
        with large_images_in_turn():
            decode_image(data)
            with lock:
                held += 1
                most = max(most, held)
            if large:
                # Long enough for another to come, were it not kept waiting.
                threading.Event().wait(0.05)
            else:
                together.wait()
            with lock:
                held -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most == (1 if large else 4)


def test_a_turn_ends_with_the_context_and_without_one_with_the_decoding(monkeypatch):
    monkeypatch.setattr(turns, "LARGE", 0)
    with ThreadPoolExecutor(1) as other:
        decode_image(IMAGE)
        other.submit(decode_image, IMAGE).result(timeout=60)
        with large_images_in_turn():
            decode_image(IMAGE)
            decode_mask(IMAGE)
            waiting = other.submit(decode_image, IMAGE)
            assert is_kept_waiting(waiting)
        waiting.result(timeout=60)


def test_reading_a_large_file_takes_a_turn_where_one_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "LARGE_FILE", 10)
    (tmp_path / "a.png").write_bytes(IMAGE)
    with ThreadPoolExecutor(1) as other:
        files.read_file(tmp_path / "a.png")
        other.submit(in_turn, files.read_file, tmp_path / "a.png").result(timeout=60)
        with large_images_in_turn():
            files.read_file(tmp_path / "a.png")
            waiting = other.submit(in_turn, files.read_file, tmp_path / "a.png")
            assert is_kept_waiting(waiting)
        waiting.result(timeout=60)


def in_turn(function, *values):
    with large_images_in_turn():
        return function(*values)


def is_kept_waiting(work: Future) -> bool:
    """Whether work that takes no time has not ended after some."""
    return not wait([work], timeout=0.3).done
