"""A watched folder: what is complete is judged once, whatever comes, breaks, moves or is interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxad.errors import ConfigError, Problem
from jaxad.inference.inspector import Inspector
from jaxad.io.locks import occupied
from jaxad.report import watched_folder
from jaxad.report.prediction_folder import PredictionFolder
from jaxad.report.watched_folder import WatchedFolder
from tests.data.counting import counted


@pytest.fixture(scope="module")
def inspector(trained) -> Inspector:
    return Inspector(trained.model, trained.threshold)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(watched_folder.time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "drop").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path


def drop(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 50, 3), np.uint8)).save(file)
    return file


def watch(place: Path, inspector: Inspector) -> WatchedFolder:
    return WatchedFolder(place / "drop", place / "out", inspector, interval=1, patience=5)


def rows(place: Path, name: str = "predictions.jsonl") -> list[dict]:
    file = place / "out" / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def judged(watched: WatchedFolder, clock, seconds: float = 1) -> list[str]:
    """Names of what is judged at the next look."""
    clock(seconds)
    return [Path(getattr(found, "file", "")).name for found in watched.look()]


def test_a_file_is_judged_once_it_stays_the_same(place, inspector, clock):
    watched = watch(place, inspector)
    whole = drop(place / "a.png").read_bytes()
    coming = place / "drop/a.png"
    (place / "drop/empty.png").touch()
    for size in (100, 2000, len(whole)):
        coming.write_bytes(whole[:size])
        assert judged(watched, clock) == []
    assert judged(watched, clock, 0.5) == []
    assert judged(watched, clock, 0.5) == ["a.png"]
    assert judged(watched, clock) == []
    (row,) = rows(place)
    assert row["file"] == str(coming)
    assert row["stamp"].startswith(f"{len(whole)}-")
    assert "judged" in row
    assert (place / "out/overlay/a.png.jpg").is_file()


def test_a_file_that_changes_is_judged_again_and_one_that_goes_is_forgotten(place, inspector, clock):
    watched = watch(place, inspector)
    drop(place / "drop/a.png", 1)
    gone = drop(place / "drop/b.png", 2)
    judged(watched, clock)
    gone.rename(place / "elsewhere.png")
    assert judged(watched, clock) == ["a.png"]
    drop(place / "drop/a.png", 3)
    judged(watched, clock)
    assert judged(watched, clock) == ["a.png"]
    assert len({row["score"] for row in rows(place)}) == 2
    assert rows(place, "problems.jsonl") == []


def test_a_file_that_goes_or_grows_while_it_is_judged_is_no_result(place, inspector, clock, monkeypatch):
    watched = watch(place, inspector)
    files = [drop(place / f"drop/{name}.png") for name in "ab"]
    judged(watched, clock)
    real = inspector.outcomes

    def meddle(source, **how):
        found = real(source, **how)
        for record in source.records:
            if record.file == files[0]:
                record.file.unlink()
            elif len(rows(place)) == 0:
                drop(record.file, seed=9)
        return found

    monkeypatch.setattr(inspector, "outcomes", meddle)
    assert judged(watched, clock) == []
    monkeypatch.undo()
    monkeypatch.setattr(watched_folder.time, "monotonic", lambda: 100.0)
    list(watched.look())
    monkeypatch.setattr(watched_folder.time, "monotonic", lambda: 102.0)
    assert [Path(found.file).name for found in watched.look()] == ["b.png"]


def test_a_broken_file_is_told_of_after_a_while_and_judged_once_it_is_mended(place, inspector, clock):
    watched = watch(place, inspector)
    whole = drop(place / "a.png").read_bytes()
    broken = place / "drop/a.png"
    broken.write_bytes(whole[: len(whole) // 2])
    assert [judged(watched, clock) for _ in range(5)] == [[]] * 5
    assert rows(place, "problems.jsonl") == []
    clock(1)
    (problem,) = watched.look()
    assert isinstance(problem, Problem)
    assert problem.kind == "truncated image"
    assert judged(watched, clock, 20) == []
    (row,) = rows(place, "problems.jsonl")
    assert set(row) == {"file", "kind", "detail", "stamp", "judged"}
    broken.write_bytes(whole)
    judged(watched, clock)
    assert judged(watched, clock) == ["a.png"]


def test_who_goes_on_judges_nothing_twice(place, inspector, clock):
    first = watch(place, inspector)
    for name in "abc":
        drop(place / f"drop/{name}.png", ord(name))
    (place / "drop/bad.png").write_bytes(b"none")
    judged(first, clock)
    assert judged(first, clock) == ["a.png", "b.png", "c.png"]
    judged(first, clock, 10)
    drop(place / "drop/d.png")
    second = watch(place, inspector)
    assert second.judged == 4
    judged(second, clock)
    assert judged(second, clock, 20) == ["d.png"]
    assert len(rows(place)) == 4


def test_the_rest_of_a_line_that_a_power_cut_left_is_removed(place, inspector, clock):
    first = watch(place, inspector)
    for name in "ab":
        drop(place / f"drop/{name}.png", ord(name))
    judged(first, clock)
    judged(first, clock)
    lines = place / "out/predictions.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])
    second = watch(place, inspector)
    judged(second, clock)
    assert judged(second, clock) == ["b.png"]
    assert [Path(row["file"]).name for row in rows(place)] == ["a.png", "b.png"]


def test_a_kill_between_pictures_and_line_leaves_the_file_to_the_next(place, inspector, clock, monkeypatch):
    first = watch(place, inspector)
    drop(place / "drop/a.png")
    judged(first, clock)
    monkeypatch.setattr(watched_folder, "_append", lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        judged(first, clock)
    monkeypatch.undo()
    second = WatchedFolder(place / "drop", place / "out", inspector, interval=0)
    assert [Path(found.file).name for found in second.look()] == ["a.png"]
    assert len(rows(place)) == 1


def test_categories_are_those_of_subfolders_and_own_pictures_are_not_judged(place, inspector, clock):
    place = place / "drop"
    (place / "drop").mkdir()
    for name in ("disc", "tile", "line 1"):
        drop(place / f"drop/{name}/a.png")
    (place / "drop/out").mkdir()
    with occupied(place / "drop/out", "out"):
        watched = WatchedFolder(place / "drop", place / "drop/out", inspector, interval=1)
        judged(watched, clock)
        assert len(judged(watched, clock)) == 3
        judged(watched, clock)
        assert judged(watched, clock) == []
    lines = (place / "drop/out/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["category"] for line in lines] == ["disc", "", "tile"]
    # Nor by one who watches from elsewhere.
    os.mkdir(place / "other")
    second = WatchedFolder(place / "drop", place / "other", inspector, interval=0)
    assert len(list(second.look())) == 3


def test_what_is_left_out_is_said_once_and_nothing_is_decoded_twice(place, inspector, clock):
    folder, said = place / "drop", []
    for name in ("a.png", "cap_label.png", "b.png"):
        drop(folder / name, len(name))
    (folder / "cap_mask.png").write_bytes(drop(place / "elsewhere.png").read_bytes())
    mask = Image.fromarray(np.eye(9, dtype=np.uint8) * 255)
    for name in ("a_mask.png", "ground_truth/cut/0_mask.png", "ground_truth/cut/1_mask.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        mask.save(folder / name)
    for name in ("a.txt", "b.txt", "README"):
        (folder / name).write_text("no image")
    drop(folder / "thumbs/a.png")
    watched = WatchedFolder(folder, place / "out", inspector, interval=1, told=said.append)
    with counted(folder) as counts:
        assert judged(watched, clock) == []
        first = sum(counts.decoded.values())
        assert judged(watched, clock) == ["a.png", "b.png", "cap_label.png", "cap_mask.png"]
        assert sum(counts.decoded.values()) == first + 4
        assert judged(watched, clock) == judged(watched, clock) == []
        assert sum(counts.decoded.values()) == first + 4
    assert sorted(said) == [
        f"{folder / 'ground_truth/cut'}: masks are left out (such as 0_mask.png)",
        f"{folder}: files .txt are left out, as no images (such as a.txt)",
        f"{folder}: files without an extension are left out, as no images (such as README)",
        f"{folder}: folders of thumbnails or trash are left out (such as thumbs)",
        f"{folder}: masks are left out (such as a_mask.png)",
    ]


def test_results_of_other_kinds_are_not_mixed(place, inspector, clock):
    (place / "out/predictions.jsonl").write_text('{"file": "a.png"}\n')
    with pytest.raises(ConfigError, match=r"line 1 of predictions\.jsonl is none of a watched folder"):
        watch(place, inspector)
    (place / "out/predictions.jsonl").unlink()
    watched = watch(place, inspector)
    drop(place / "drop/a.png")
    judged(watched, clock)
    judged(watched, clock)
    results = PredictionFolder(place / "out", [place / "drop/a.png"])
    with pytest.raises(ConfigError, match="results of a watched folder"), results:
        pass
    assert len(rows(place)) == 1
