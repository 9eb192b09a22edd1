"""Files are written whole or not at all."""

import os

import pytest

from jaxad.io.atomic import write_whole


def test_text_and_bytes_and_folders(tmp_path):
    path = write_whole(tmp_path / "a" / "b.txt", "Ä")
    assert path.read_bytes() == "Ä".encode()
    assert write_whole(path, b"\xff").read_bytes() == b"\xff"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_whole(tmp_path / "a.txt", b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
