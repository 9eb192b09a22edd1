"""Files are written whole or not at all."""

import os

import pytest

from jaxad.io import atomic
from jaxad.io.atomic import set_aside, write_whole
from jaxad.io.locks import occupied


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


def test_what_is_set_aside_takes_nobodys_place(tmp_path):
    for number, name in enumerate(("a-damaged.csv", "a-damaged-2.csv", "a-damaged-3.csv")):
        file = tmp_path / "a.csv"
        file.write_text(str(number))
        assert set_aside(file, "a-damaged.csv").name == name
    assert [file.read_text() for file in sorted(tmp_path.glob("*-[23].csv"))] == ["1", "2"]
    (tmp_path / "8").mkdir()
    (tmp_path / "damaged-8").symlink_to("nowhere")
    assert set_aside(tmp_path / "8", "damaged-8").name == "damaged-8-2"


def test_a_file_that_others_take_for_left_over_before_it_is_locked(tmp_path, monkeypatch):
    real, removed = atomic.try_lock, []

    def late(descriptor):
        if not removed:
            with occupied(tmp_path, "out"):
                removed.append(not list(tmp_path.glob("*.part")))
        return real(descriptor)

    monkeypatch.setattr(atomic, "try_lock", late)
    assert write_whole(tmp_path / "a.txt", b"whole").read_bytes() == b"whole"
    assert removed == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
