"""`jaxad predict --watch` as a process: stopped by SIGTERM and started again, it judges every file exactly once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from jaxad import cli
from jaxad.testing import make_parts


def test_watch_takes_no_images_besides(refused):
    words = ("predict", "--watch", "in", "--checkpoint", "run", "--out", "out")
    assert cli.parse(list(words)).watch == Path("in")
    assert "takes no images besides" in refused(*words, "a.png")


@pytest.mark.slow
def test_a_watch_that_is_stopped_goes_on(work, tmp_path):
    drop, out = tmp_path / "drop", tmp_path / "drop/out"
    drop.mkdir()
    photos = sorted(make_parts(tmp_path / "parts", train=20, test=5).rglob("test/*/*.png"))
    photos += sorted((tmp_path / "parts").rglob("train/good/*.png"))
    (drop / "broken.png").write_bytes(photos[0].read_bytes()[:500])
    names = []
    for number, photo in enumerate(photos):
        names.append(f"{number:03}.png")
        if number == 30:
            ended = _watch(work, drop, out, until=10)
            assert ended == 128 + signal.SIGTERM
        # As a camera does: under another name until it is whole.
        shutil.copy(photo, drop / f"{names[-1]}.part")
        os.replace(drop / f"{names[-1]}.part", drop / names[-1])
    (drop / "000.png").rename(drop / "moved.png")
    _watch(work, drop, out, until=len(photos) + 1)
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    judged = Counter(Path(line["file"]).name for line in lines)
    assert judged == Counter([*names, "moved.png"]) or judged == Counter([*names[1:], "moved.png"])
    assert sorted(path.name for path in (out / "overlay").iterdir()) == sorted(f"{name}.jpg" for name in judged)
    (problem,) = (out / "problems.jsonl").read_text().splitlines() or [None]
    assert json.loads(problem)["file"].endswith("broken.png")


def _watch(work: Path, drop: Path, out: Path, until: int) -> int:
    """Watches until so many lines are there and SIGTERM; the exit status."""
    words = ("predict", "--watch", drop, "--checkpoint", work / "my run", "--out", out)
    command = [sys.executable, "-m", "jaxad", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 240
            lines = out / "predictions.jsonl"
            while not lines.exists() or len(lines.read_text().splitlines()) < until:
                assert time.monotonic() < deadline
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.1)
            if until > 20:
                # The broken one is told of after a while.
                while not (out / "problems.jsonl").exists():
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            return process.wait(60)
        finally:
            process.kill()
