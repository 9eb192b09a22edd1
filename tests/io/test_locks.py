"""Folders that one process writes: refusals that name the other, what is left, and what is tried before work."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from jaxad.errors import ConfigError
from jaxad.io import locks
from jaxad.io.atomic import write_whole
from jaxad.io.locks import LOCK, is_free, locked, occupied, require_writable
from jaxad.io.scratch import scratch

HOLDER = """
import sys, time
from jaxad.io.locks import occupied
with occupied(sys.argv[1], "out"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """A folder that another process holds, and that process."""
    folder = tmp_path / "held"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield folder, process
    process.kill()
    process.communicate()


def test_a_folder_in_use_is_refused_and_its_holder_named(held):
    folder, process = held
    for _ in range(2):
        with pytest.raises(ConfigError) as error, occupied(folder, "out"):
            pass
        assert f"out = {folder}: another process" in str(error.value)
        assert f"process {process.pid} on {socket.gethostname()}" in str(error.value)
    assert not is_free(folder / LOCK)


def test_a_lock_goes_with_its_process(held):
    folder, process = held
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / LOCK).exists()
    assert is_free(folder / LOCK)
    with occupied(folder, "out"):
        assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()
    assert not (folder / LOCK).exists()


def test_one_thread_may_hold_a_folder_twice_but_no_other(tmp_path):
    with occupied(tmp_path / "out", "out"):
        (tmp_path / "link").symlink_to(tmp_path / "out")
        with occupied(tmp_path / "link", "out"):
            pass
        assert (tmp_path / "out" / LOCK).exists()

        def enter():
            with occupied(tmp_path / "out", "out"):
                pass

        with ThreadPoolExecutor() as pool, pytest.raises(ConfigError, match="another thread"):
            pool.submit(enter).result()


def test_no_trace_stays_where_nothing_was_written(tmp_path):
    with pytest.raises(ZeroDivisionError), occupied(tmp_path / "a/b", "out"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with occupied(tmp_path / "a/b", "out") as folder:
        (folder / "x").touch()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["x"]


def test_a_lock_whose_file_was_removed_in_the_meantime_is_none(tmp_path, monkeypatch):
    """The last holder removes its file between our opening and our locking it."""
    real, removed = locks.try_lock, []

    def late(descriptor):
        if not removed:
            removed.append(os.unlink(tmp_path / LOCK))
        return real(descriptor)

    monkeypatch.setattr(locks, "try_lock", late)
    with locked(tmp_path / LOCK, "out"):
        assert (tmp_path / LOCK).exists()


def test_file_systems_without_locks_are_used_without(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with occupied(tmp_path / "out", "out"):
        pass


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
        (errno.ENOSPC, "make room, also in number of files"),
        (errno.EDQUOT, "make room, also in number of files"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path, monkeypatch, number, says):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    for place in (tmp_path, tmp_path / "new"):
        with pytest.raises(ConfigError, match=f"out = .*{says}"), occupied(place, "out"):
            pass
        with pytest.raises(ConfigError, match=f"out = .*{says}"):
            require_writable(place, "out")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(ConfigError, match=r"out = .*34 MB needed.* 1 MB free; make room"), occupied(tmp_path, "out"):
        pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"), occupied(tmp_path / "file", "out"):
        pass


def test_parts_that_nobody_writes_any_more_are_removed(tmp_path):
    stale, live, mine = (tmp_path / name for name in (f".{'a' * 32}.part", f".{'b' * 32}.part", ".mine.part"))
    inner = tmp_path / "steps" / "7" / stale.name
    inner.parent.mkdir(parents=True)
    for file in (stale, live, mine, inner):
        file.touch()
    with live.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with occupied(tmp_path, "out", within=("steps/*",)):
            assert set(tmp_path.rglob("*.part")) == {live, mine}


def test_a_file_that_is_being_written_is_not_left_over(tmp_path, monkeypatch):
    found = []

    def look(source, target):
        found.append(is_free(source))
        os.rename(source, target)

    monkeypatch.setattr("jaxad.io.atomic.os.replace", look)
    write_whole(tmp_path / "file", "text")
    assert (found, (tmp_path / "file").read_text()) == ([False], "text")


def left_behind(folder, name="old_0123"):
    """A scratch folder as a killed process leaves it."""
    left = folder / f".work-{name}"
    left.mkdir()
    (left / "result").write_text("x")
    (left / LOCK).write_text(json.dumps({"pid": 1, "host": "here", "since": "then"}))
    return left


def test_scratch_folders_of_killed_processes_are_finished_and_removed(tmp_path):
    left_behind(tmp_path)
    (tmp_path / ".other-old").mkdir()
    finished = []
    with scratch(tmp_path, ".work-") as first:
        # One that is in use stays.
        with scratch(tmp_path, ".work-", lambda left: finished.append(left.name)) as second:
            assert first.is_dir()
            assert first != second
        assert finished == []
        assert [path.name for path in tmp_path.iterdir() if path != first] == [".other-old"]
    left_behind(tmp_path)
    with scratch(tmp_path, ".work-", lambda left: finished.append(left.name)):
        assert finished == [".work-old_0123"]
    assert [path.name for path in tmp_path.iterdir()] == [".other-old"]


def test_folders_that_are_no_scratch_folders_of_jaxad_stay(tmp_path):
    (tmp_path / ".work-backup").mkdir()
    (tmp_path / ".work-original").mkdir()
    (tmp_path / ".work-foreign_").mkdir()
    (tmp_path / ".work-foreign_" / LOCK).touch()
    left_behind(tmp_path, "longer_name")
    elsewhere = left_behind(tmp_path, "far").rename(tmp_path / "elsewhere")
    (tmp_path / ".work-a_link_0").symlink_to(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    finished = []
    with scratch(tmp_path, ".work-", finished.append):
        pass
    assert (finished, sorted(tmp_path.rglob("*"))) == ([], before)
