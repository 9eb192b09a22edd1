"""Runs on tiles: what `fit` records, `evaluate` and `predict` follow."""

from __future__ import annotations

import json

import numpy as np
import pytest

import jaxad as library
from jaxad.data import Tiling
from jaxad.errors import ConfigError
from jaxad.io.progress import Reporter
from jaxad.testing import make_parts
from tests.cli.shell import BANK, jaxad

TILES = ("--tile", "56", "--overlap", "0.3")


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiled")
    data = f"folder:{make_parts(root / 'parts', ('disc',), train=12, test=2, size=130)}"
    jaxad("fit", "patch-bank", "--data", data, "--workdir", root / "run", *BANK, *TILES, "--tiles-per-image", "4")
    return root, data


def test_the_run_records_its_tiles_and_evaluation_follows_them(tiled):
    root, data = tiled
    restored = library.restore(root / "run")
    assert restored.detector.tiling == Tiling(56, 0.3)
    assert restored.meta["data"]["tiles"] == {"side": 56, "overlap": 0.3, "per_image": 4}
    assert restored.meta["data"]["images"] == 7 * 4
    found = {}
    for resolution in ("image", "tile"):
        out = root / resolution
        jaxad("evaluate", "--checkpoint", root / "run", "--data", data, "--out", out, "--resolution", resolution)
        found[resolution] = json.loads((out / "report.json").read_text())
        assert found[resolution]["config"]["tiles"] == {"side": 56, "overlap": 0.3, "resolution": resolution}
    image, tile = (found[name]["classes"]["disc"] for name in ("image", "tile"))
    assert image["image_auroc"] == tile["image_auroc"]
    assert image["pixel_ap"] != tile["pixel_ap"]


def test_predictions_are_those_of_the_threshold(tiled):
    root, data = tiled
    folder = data.removeprefix("folder:") + "/disc/test"
    jaxad("predict", folder, "--checkpoint", root / "run", "--out", root / "out", "--category", "disc", "--save", "map")
    lines = [json.loads(line) for line in (root / "out/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    maps = [np.load(file) for file in sorted((root / "out").rglob("*.npy"))]
    assert {map.shape for map in maps} == {(130, 130)}
    run = library.restore(root / "run")
    again = library.predict(run.detector, [line["file"] for line in lines], threshold=run.threshold, category="disc")
    np.testing.assert_allclose([line["score"] for line in lines], [p.score for p in again], rtol=1e-5)


def test_other_tiles_are_another_run(tiled):
    root, data = tiled
    words = ("fit", "patch-bank", "--data", data, "--workdir", root / "run", *BANK)
    jaxad(*words, *TILES, "--tiles-per-image", "4")
    with pytest.raises(library.errors.CheckpointError, match="another run"):
        jaxad(*words, *TILES)


def test_a_trained_detector_learns_from_tiles_and_resumes(tmp_path, capsys):
    from jaxad.testing import toy_model, toy_training

    parts = library.data.load(f"folder:{make_parts(tmp_path / 'p', ('disc',), train=6, test=1, size=90)}")
    how = {"workdir": tmp_path / "run", "holdout": parts.holdout, "tiling": Tiling(56)}
    run = library.fit(toy_model(), parts.train, toy_training(epochs=2), **how, reporter=Reporter())
    # An epoch is one of tiles: four of each image, four at once.
    assert library.restore(tmp_path / "run").meta["step"] == 2 * len(parts.train)
    said = f"{2 * len(parts.train)} steps of 4 tiles, 2 epochs of {4 * len(parts.train)} tiles"
    assert capsys.readouterr().err.count(said) == 1
    again = library.fit(toy_model(), parts.train, toy_training(epochs=2), **how)
    assert run.model.tiling == again.model.tiling == Tiling(56)
    assert run.threshold == again.threshold
    assert run.threshold.limits["disc"].normals == len(parts.holdout)


def test_impossible_tiles_are_all_named(tmp_path):
    words = ("fit", "patch-bank", "--data", "folder:none", "--workdir", tmp_path / "run", *BANK)
    with pytest.raises(ConfigError, match=r"tile 8(.|\n)*overlap 0.9(.|\n)*tiles-per-image 0"):
        jaxad(*words, "--tile", "8", "--overlap", "0.9", "--tiles-per-image", "0")
