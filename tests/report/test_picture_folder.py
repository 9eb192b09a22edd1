"""Pictures of an evaluation: where they lie, what they never replace, and that failures leave earlier ones."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxad.data import Region, Tiling
from jaxad.errors import ConfigError
from jaxad.inference.evaluation import score
from jaxad.inference.predictor import Predictor
from jaxad.inference.threshold import Limits, Threshold
from jaxad.io.locks import LOCK
from jaxad.report import picture_folder
from jaxad.report.picture_folder import LIST, PictureFolder
from tests.inference.test_method import Redrawing

RULE = Threshold(0.1, "exact-256", {"": Limits(150.0, 150.0, 20.0, 9)})


@pytest.fixture
def few(parts):
    return parts.test.select([0, 4, 9])


def draw(out, source, save=("mask",), detector=None, explain=(), threshold=RULE):
    with PictureFolder(out, source, save=save, threshold=threshold, model={"run": "a"}) as pictures:
        return score(
            detector or Redrawing(),
            source,
            threshold=threshold,
            batch_size=2,
            explain=explain,
            passing=pictures.passing,
        )


def content(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["whole", "region", "tiles"])
def test_pictures_are_those_of_predictions(few, tmp_path, kind):
    detector = Redrawing()
    if kind == "region":
        detector.regions = (("", Region.from_json({"box": [0, 0, 40, 40]})),)
    detector.tiling = Tiling(32) if kind == "tiles" else None
    words = () if kind == "tiles" else ("reconstruction",)
    scored = draw(tmp_path, few, ("mask", "map", *words), detector, words)
    assert [decision.index for decision in scored.decisions] == [0, 1, 2]
    assert scored.images == 0, "no speed"
    for record, flagged in zip(few.records, (d.flagged for d in scored.decisions), strict=True):
        name = record.identity.removesuffix(".png")
        assert np.load(tmp_path / f"pictures/map/{name}.npy").shape == (56, 56)
        with Image.open(tmp_path / f"pictures/mask/{name}.png") as mask:
            marked = (np.asarray(mask) > 0).mean()
        assert marked == pytest.approx(flagged, abs=0.05)
        for word in words:
            with Image.open(tmp_path / f"pictures/explained/{word}/{name}.png") as picture:
                assert picture.size == (8, 8)
    assert any(decision.flagged for decision in scored.decisions)
    listed = json.loads((tmp_path / "pictures" / LIST).read_text())
    assert listed == {"save": ["mask", "map", *words], "model": {"run": "a"}}


def test_few_batches_are_read_ahead_of_those_that_are_written(parts, tmp_path):
    """And they come back in their order, with all their pictures written."""
    read, written = [], []

    def counted():
        for output in Predictor(Redrawing(), batch_size=4).stream(parts.test, originals=True):
            read.append(output)
            yield output

    with PictureFolder(tmp_path, parts.test, save=("map",), threshold=RULE) as pictures:
        for output in pictures.passing(counted()):
            written.append(output)
            assert len(read) - len(written) <= 1
            assert len(list(tmp_path.rglob("*.npy"))) >= 4 * len(written)
    assert len(written) == 4
    assert all(one is other for one, other in zip(read, written, strict=True))


def test_what_jaxad_did_not_write_is_never_replaced(few, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/mine.png").write_text("")
    with pytest.raises(ConfigError, match="its pictures did not come from jaxad"):
        draw(tmp_path, few)
    assert content(tmp_path) == {"pictures/mine.png"}


def test_earlier_pictures_give_way_as_a_whole_and_only_to_whole_ones(few, tmp_path, monkeypatch):
    draw(tmp_path, few, ("map",))
    before, written = content(tmp_path), []

    def fail(folder, name, *_):
        written.append(name)
        if len(written) == 3:
            raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(picture_folder, "write_pictures", fail)
        with pytest.raises(OSError, match="the disk is full"):
            draw(tmp_path, few, ("mask",))
    assert content(tmp_path) == before
    draw(tmp_path, few, ("mask",))
    assert {path.split("/")[1] for path in content(tmp_path)} == {"mask", LIST}


class Killed(BaseException):
    """As if the process had ended: nothing is cleaned up."""


@pytest.mark.parametrize("until", [0, 1, 2])
def test_a_killed_process_leaves_whole_pictures_to_the_next(few, tmp_path, monkeypatch, until):
    draw(tmp_path, few, ("map",))
    done, move = [], picture_folder.os.replace

    def replace(source, target):
        if Path(source).is_dir():
            if len(done) == until:
                raise Killed
            done.append(target)
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("jaxad.io.scratch.shutil.rmtree", lambda *_, **__: None)
        patch.setattr(picture_folder.os, "replace", replace)
        with suppress(Killed):
            draw(tmp_path, few, ("mask",))
    (left,) = tmp_path.glob(".pictures-*")
    # Which a killed process leaves.
    (left / LOCK).write_text('{"pid": 1, "host": "here", "since": "then"}')
    with pytest.raises(ZeroDivisionError), PictureFolder(tmp_path, few, save=("map",)):
        raise ZeroDivisionError
    assert {path.split("/")[1] for path in content(tmp_path)} == {"mask", LIST}
    assert not left.exists()
