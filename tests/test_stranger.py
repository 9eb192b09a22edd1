"""A detector of somebody else's package: found by its entry point, and used by every command from fit to predict."""

from __future__ import annotations

import json
import shutil
from importlib import import_module

import jax
import numpy as np
import pytest

import jaxad
from jaxad import cli
from jaxad.detector import detectors
from jaxad.errors import CheckpointError
from jaxad.nn import module_state
from jaxad.testing import BACKBONE, check_detector, make_parts

MODEL = ("--model.backbone", BACKBONE, "--model.image-size", "56", "--model.rank", "3")
TRAIN = ("--train.steps", "6", "--train.batch-size", "4", "--train.checkpoint-every", "2")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package as pip would leave it: its module is importable, and metadata name its detector."""
    site = tmp_path_factory.mktemp("site")
    (site / "rank-1.0.dist-info").mkdir()
    (site / "rank-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: rank\nVersion: 1.0\n")
    entry = "[jaxad.detectors]\nrank = tests.stranger.rank_detector:Rank\n"
    (site / "rank-1.0.dist-info" / "entry_points.txt").write_text(entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield import_module("tests.stranger.rank_detector")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"folder:{make_parts(tmp_path_factory.mktemp('stranger') / 'parts')}"


def run(*words):
    cli.run(cli.parse([str(word) for word in words]))


@pytest.fixture(scope="module")
def fitted(package, data, tmp_path_factory):
    """Workdirs of the stranger's detector and of a patch bank."""
    folder = tmp_path_factory.mktemp("fitted")
    run("fit", "rank", "--data", data, "--workdir", folder / "rank", *MODEL, *TRAIN)
    bank = ("--preset", "small", "--model.bank-size", "50", *MODEL[:4])
    run("fit", "patch-bank", "--data", data, "--workdir", folder / "bank", *bank)
    return folder


def test_it_has_flags_of_its_own(package, capsys):
    with pytest.raises(SystemExit):
        cli.parse(["fit", "rank", "--help"])
    shown = capsys.readouterr().out
    assert "--model.rank" in shown
    assert "--train.steps" in shown
    assert "rank" in detectors.names()
    command = cli.parse(["fit", "rank", "--data", "demo", "--workdir", "w", "--preset", "narrow"])
    assert command.model.rank == 2


def test_it_keeps_to_the_interface(package, parts):
    config = package.RankConfig(backbone=BACKBONE, image_size=56)
    check_detector(package.Rank.create(config, key=jax.random.key(0)), parts.test)


def test_a_killed_run_ends_as_an_undisturbed_one(fitted, data, tmp_path):
    copy = shutil.copytree(fitted / "rank", tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / "6")
    assert (copy / "checkpoints" / "4").is_dir()
    run("fit", "rank", "--data", data, "--workdir", copy, *MODEL, *TRAIN)
    one, two = (module_state.split(jaxad.restore(place).detector)[1] for place in (fitted / "rank", copy))
    assert [path for path in one if not np.array_equal(one[path], two[path])] == []
    fresh = module_state.split(jaxad.restore(fitted / "rank" / "checkpoints" / "4").detector)[1]
    assert not np.array_equal(one["down/kernel"], fresh["down/kernel"])


@pytest.mark.parametrize(("judged", "baseline"), [("rank", "bank"), ("bank", "rank")])
def test_it_is_evaluated_with_a_baseline_and_as_one(fitted, data, tmp_path, judged, baseline):
    checkpoints = ("--checkpoint", fitted / judged, "--baseline", fitted / baseline)
    run("evaluate", *checkpoints, "--data", data, "--out", tmp_path / "report")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {report["config"]["system"], report["baseline"]["config"]["system"]} == {"rank", "patch-bank"}
    assert 0 <= report["mean"]["image_auroc"] <= 1
    assert "Linear autoencoder" in (tmp_path / "report" / "report.html").read_text()


def test_it_predicts(fitted, data, tmp_path):
    images = data.removeprefix("folder:") + "/disc/test/blot"
    run("predict", images, "--checkpoint", fitted / "rank", "--out", tmp_path, "--category", "disc")
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert all(line["threshold"] is not None for line in lines)


def test_a_checkpoint_of_another_class_of_that_name_is_refused(fitted, package, monkeypatch):
    other = type("Other", (package.Rank,), {"__module__": "elsewhere"})
    monkeypatch.setitem(detectors._entries, "rank", other)
    with pytest.raises(CheckpointError, match=r"tests\.stranger\.rank_detector\.Rank"):
        jaxad.restore(fitted / "rank")
