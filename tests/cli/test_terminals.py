"""Terminals of every width, streams that are closed or know few characters, and names that would control them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from jaxad import cli
from jaxad.cli import _terminal
from jaxad.cli._command import command_line
from jaxad.cli._printing import message, show
from tests.cli.shell import failure
from tests.cli.test_help import HELPS

WIDTHS = ("1", "4", "20", "40", "79", "80", "200")


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_ends_and_fits(shown, monkeypatch, words, columns):
    monkeypatch.setenv("COLUMNS", columns)
    text = shown(*words, "--help")
    assert max(map(len, text.splitlines())) <= max(int(columns), _terminal.NARROWEST)


@pytest.mark.parametrize("columns", ["0", "-7", "10000", "999999999999", "wide", "²", ""])
def test_a_width_that_is_none_has_bounds(shown, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert len(shown("predict", "--help")) < 20_000
    # What tyro and rich read.
    assert _terminal.NARROWEST <= int(os.environ["COLUMNS"] or 80) <= _terminal.WIDEST or columns in ("0", "-7")
    assert _terminal.NARROWEST <= shutil.get_terminal_size().columns <= _terminal.WIDEST


@pytest.mark.parametrize("columns", ["4", "40", "80"])
def test_messages_of_wrong_usage_fit_too(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        cli.parse(["evaluate", "--protocoll", "exact-256"])
    errors = capsys.readouterr().err
    assert "--protocol" in errors
    assert max(map(len, errors.splitlines())) <= max(int(columns), _terminal.NARROWEST)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "jaxad", *words]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["PYTHONIOENCODING", "LC_ALL"],
)
def test_a_stream_of_few_characters(environment, tmp_path):
    ended = run("check", "--data", f"folder:{tmp_path}/prüfteil", **environment)
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr
    assert ended.stderr.isascii()
    assert b"no such folder" in ended.stderr
    assert run("--help", **environment).stdout.isascii()


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams_lead_nowhere(closed, tmp_path):
    """A file that is opened must not get the number of a closed stream, and so what is printed."""
    code = f"""
import os, sys
for number in {closed!r}:
    os.close(number)
for number, name in enumerate(("stdin", "stdout", "stderr")):
    if number in {closed!r}:
        setattr(sys, name, None)
from jaxad import cli
cli.parse = lambda words: None
def run(command):
    with open({str(tmp_path / "kept")!r}, "wb") as file:
        os.write(1, b"")
        os.write(2, b"")
        print("printed"); print("printed", file=sys.stderr)
        assert file.fileno() > 2
        file.write(b"whole")
cli.run = run
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False)
    assert (tmp_path / "kept").read_bytes() == b"whole"


def test_output_that_cannot_be_written_is_told():
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([sys.executable, "-m", "jaxad", "--version"], stdout=full, stderr=-1, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"jaxad: ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_status_stays_what_it_is_though_nobody_reads_why():
    """As behind `tee`, which Ctrl-C ends too."""
    stops = (
        "import os, signal; from jaxad import cli; "
        "cli.parse = lambda _: os.kill(os.getpid(), signal.SIGTERM); cli.main()"
    )
    for words, status in ((["-m", "jaxad", "check", "--data", "folder:/nowhere"], 1), (["-c", stops], 143)):
        with open("/dev/full", "wb") as full:
            ended = subprocess.run([sys.executable, *words], stdout=-1, stderr=full, check=False)
        assert ended.returncode == status


def test_printed_lines_cannot_control_the_terminal(capsys):
    show("a\x1b[31m\x07\r\u202e\nb")
    assert capsys.readouterr().out == "a\\x1b[31m\\x07\\x0d\\u202e\nb\n"


def test_words_of_the_command_line_come_back_as_text(capsys):
    said = failure(capsys, "check", "--data", "folder:/no/su\nch\x1b[31m")
    assert r"/no/su\x0ach\x1b[31m: no such folder" in said
    assert len(said.splitlines()) == 1
    assert message("one\ntwo", ["--flag", "a b"]) == "one\ntwo"


def test_refused_words_come_back_as_text(refused):
    assert r"--worker\x1b[31m" in refused("check", "--data", "x", "--worker\x1b[31m", "1")
    assert r"'che\x1bck'" in refused("che\x1bck")


def test_a_command_to_copy_means_the_same_words():
    words = ["a b", "it's", "caf\udce9", "x\x1b\n'\\y", "\\x41", "瓶子"]
    line = command_line(*words).removeprefix("jaxad ")
    assert line.isprintable()
    said = subprocess.run(["bash", "-c", os.fsencode(f"printf '%s\\0' {line}")], capture_output=True, check=True)
    assert said.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_an_error_that_nobody_foresaw_says_what_to_report(monkeypatch):
    monkeypatch.setattr(cli, "run", lambda command: {}["missing"])
    monkeypatch.setattr(sys, "argv", ["jaxad", "check", "--data", "demo"])
    with pytest.raises(KeyError) as error:
        cli.main()
    (note,) = error.value.__notes__
    assert "bug of jaxad" in note
    assert {"jaxad", "jax", "numpy", "Python"} <= set(note.replace("\n", " ").split())
