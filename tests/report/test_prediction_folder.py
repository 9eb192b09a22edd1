"""The folder of predictions: its names, its files, and what it never replaces."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from jaxad.errors import ConfigError, JaxadError, Problem
from jaxad.inference.answer import Answer
from jaxad.inference.threshold import Limits, Threshold
from jaxad.io.locks import LOCK, occupied
from jaxad.report import prediction_folder
from jaxad.report.prediction_folder import KINDS, PredictionFolder, picture_names

IMAGE = np.full((20, 30, 3), 90, np.uint8)
RULE = Threshold(0.01, "exact-256", {"": Limits(0.5, 0.5, 0.1, 9)})


PAGES = {"predictions.jsonl", "predictions.csv", "index.html"}


def answer(file: Path, score: float = 1.0) -> Answer:
    heat = np.zeros((20, 30), np.float32)
    heat[5:9, 5:9] = 1
    return Answer(str(file), "", score, IMAGE, RULE, "abc", heat)


def write(folder: Path, *files: Path, **options) -> None:
    with PredictionFolder(folder, files, **options) as results:
        list(results.add(answer(file) for file in files))


def content(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_names_are_paths_below_the_shared_folder():
    assert picture_names([Path("x/a.png")]) == ["a"]
    assert picture_names([Path("x/a.png"), Path("y/a.png"), Path("y/b/a.jpg")]) == ["x/a", "y/a", "y/b/a"]
    assert picture_names([Path("x/a.png"), Path("x/a.jpg"), Path("x/b.jpg")]) == ["a.png", "a.jpg", "b"]
    assert picture_names([Path("x/a.png"), Path("x/../x/a.png")]) == ["a", "a"]


@pytest.mark.parametrize("map_format", ["npy", "tiff"])
def test_every_kind_of_file_is_written(tmp_path, map_format):
    files = [tmp_path / "in/a.png", tmp_path / "in/b.png"]
    write(tmp_path / "out", *files, save=KINDS, map_format=map_format)
    pictures = {f"overlay/{n}.jpg" for n in "ab"} | {f"map/{n}.{map_format}" for n in "ab"}
    assert content(tmp_path / "out") == pictures | {f"mask/{n}.png" for n in "ab"} | PAGES
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert lines == [answer(file).to_json() for file in files]


def test_earlier_results_are_replaced_as_a_whole(tmp_path):
    write(tmp_path / "out", tmp_path / "in/a.png", save=KINDS)
    write(tmp_path / "out", tmp_path / "in/b.png", save=("mask",))
    assert content(tmp_path / "out") == {"mask/b.png"} | PAGES


def test_an_error_leaves_earlier_results_as_they_are(tmp_path):
    write(tmp_path / "out", tmp_path / "in/a.png", save=KINDS)
    before = content(tmp_path / "out")
    with pytest.raises(JaxadError, match="bmp"):
        write(tmp_path / "out", tmp_path / "in/b.png", save=KINDS, map_format="bmp")
    assert content(tmp_path / "out") == before


def test_what_jaxad_did_not_write_and_the_images_themselves_are_never_replaced(tmp_path):
    (tmp_path / "parts/mask").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"folder = .*did not come from jaxad"):
        write(tmp_path / "parts", tmp_path / "in/a.png")
    (tmp_path / "parts/predictions.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"folder = .*mask/a\.png first"):
        write(tmp_path / "parts", tmp_path / "parts/mask/a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"folder = .*is a file"):
        write(tmp_path / "file", tmp_path / "in/a.png")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/problems.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=r"problems\.jsonl would be replaced"):
        write(tmp_path / "other", tmp_path / "in/a.png")


def test_images_that_are_left_out_are_listed_and_the_others_keep_their_names(tmp_path):
    files = [tmp_path / "in/a.png", tmp_path / "in/b.png", tmp_path / "in/c.png"]
    with PredictionFolder(tmp_path / "out", files) as results:
        list(results.add([answer(files[0])]))
        results.leave_out([Problem("truncated image", str(files[1]), "ends early")])
        list(results.add([answer(files[2])]))
    assert content(tmp_path / "out") == {"overlay/a.jpg", "overlay/c.jpg", "problems.jsonl"} | PAGES
    (line,) = (tmp_path / "out/problems.jsonl").read_text().splitlines()
    assert json.loads(line) == {"file": str(files[1]), "kind": "truncated image", "detail": "ends early"}
    # A run without problems says so by the file's absence.
    write(tmp_path / "out", files[0])
    assert content(tmp_path / "out") == {"overlay/a.jpg"} | PAGES


class Killed(BaseException):
    """As if the process had ended: nothing is cleaned up."""


def moves(monkeypatch, until: int) -> list[str]:
    """Lets results be put in place up to a number of moves."""
    done: list[str] = []

    def replace(source, target):
        if len(done) == until:
            raise Killed
        done.append(str(target))
        os.rename(source, target)

    monkeypatch.setattr(prediction_folder.os, "replace", replace)
    return done


@pytest.mark.parametrize("earlier", [(), ("overlay", "map"), KINDS])
@pytest.mark.parametrize("until", range(14))
def test_a_process_killed_while_it_puts_results_in_place_leaves_them_to_the_next(tmp_path, monkeypatch, until, earlier):
    """The next one fails before it has results of its own: what is there is whole all the same."""
    out = tmp_path / "out"
    if earlier:
        write(out, tmp_path / "in/old.png", save=earlier)
    before = content(out)
    new = {"overlay/new.jpg", "mask/new.png"} | PAGES
    with monkeypatch.context() as patch:
        patch.setattr("jaxad.io.scratch.shutil.rmtree", lambda *_, **__: None)
        moves(patch, until)
        with suppress(Killed):
            write(out, tmp_path / "in/new.png", save=("overlay", "mask"))
    begun = any(path.name == "old" for path in out.glob(".predict-*/*"))
    (left,) = out.glob(".predict-*")
    # Which a killed process leaves.
    (left / LOCK).write_text('{"pid": 1, "host": "here", "since": "then"}')
    with pytest.raises(ZeroDivisionError), PredictionFolder(out, [tmp_path / "in/next.png"]):
        raise ZeroDivisionError
    assert content(out) == (new if begun else before)
    assert not left.exists()


def test_a_folder_that_another_process_fills_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("jaxad.io.locks.try_lock", lambda _: False)
    (tmp_path / "out/.predict-live").mkdir()
    with pytest.raises(ConfigError, match="another process"):
        write(tmp_path / "out", tmp_path / "in/a.png")
    assert (tmp_path / "out/.predict-live").is_dir()
    monkeypatch.undo()
    with occupied(tmp_path / "out", "out"):
        write(tmp_path / "out", tmp_path / "in/a.png")


def test_names_of_pictures_are_text_that_every_file_system_takes(tmp_path):
    long = "n" * 250
    files = [Path(f"x/{name}.png") for name in ("caf\udce9", "new\nline", "瓶子", long, f"{long}m")]
    names = picture_names(files)
    assert names[:3] == [r"caf\xe9", r"new\x0aline", "瓶子"]
    assert len(set(names)) == len(names)
    assert all(len(f"{name}.tiff".encode()) <= 255 for name in names)
    write(tmp_path / "out", *files, save=("map",), map_format="tiff")
    assert len(content(tmp_path / "out")) == len(files) + len(PAGES)
    lines = [json.loads(line)["file"] for line in (tmp_path / "out/predictions.jsonl").read_text("ascii").splitlines()]
    assert lines[:3] == [r"x/caf\xe9.png", r"x/new\x0aline.png", "x/瓶子.png"]
