"""`jaxad threshold`: another decision for a run, and what a hold-out vouches for."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxad.data.captions.writing import write_captions
from jaxad.errors import DataError
from jaxad.inference import checkpoint
from jaxad.inference.card import CARD
from jaxad.inference.holdout_scores import HoldoutScores
from jaxad.inference.rechoose import read_decided, rechoose
from jaxad.testing import make_parts
from tests.cli.shell import BANK, failure, jaxad

END = "checkpoints/0/complete.json"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_parts(tmp_path_factory.mktemp("parts"), ("disc",), train=12)


@pytest.fixture(scope="module")
def bank(parts, tmp_path_factory):
    """A finished run of one category; to be left as it is."""
    workdir = tmp_path_factory.mktemp("bank") / "run"
    jaxad("fit", "patch-bank", "--data", f"folder:{parts}", "--workdir", workdir, *BANK)
    return workdir


@pytest.fixture
def run(bank, tmp_path):
    return shutil.copytree(bank, tmp_path / "run")


def files(run):
    telling = (run / END, run / CARD)
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path not in telling}


def test_the_threshold_of_500_scores_is_chosen_anew_in_seconds_and_nothing_else_changes(run):
    numbers = np.random.default_rng(0).normal(5, 1, (3, 500))
    names = tuple(f"disc/train/good/{i:03}.png" for i in range(500))
    many = HoldoutScores("exact-256", "many", names, ("disc",) * 500, ("00" * 16,) * 500, *numbers)
    rechoose(run, holdout=many)
    before, used = files(run), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "jaxad", "threshold", "--checkpoint", str(run), "--false-alarm", "0.02"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime < 30
    assert files(run) == before
    limit = checkpoint.restore(run).threshold.limits["disc"].image
    assert (numbers[0] > limit).sum() == 10 - 1
    assert f"{limit:.5g}" in result.stdout


def test_no_network_is_built_unless_there_are_other_images(run, parts, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "restore", lambda *a, **k: 1 / 0)
    jaxad("threshold", "--checkpoint", run, "--value", "0.5")
    assert read_decided(run).threshold.value == 0.5
    before = (run / END).read_bytes()
    capsys.readouterr()
    jaxad("threshold", "--checkpoint", run)
    assert (run / END).read_bytes() == before
    assert "set to 0.5" in capsys.readouterr().out
    with pytest.raises(DataError, match="no such folder"):
        jaxad("threshold", "--checkpoint", run, "--data", "folder:x")
    with pytest.raises(ZeroDivisionError):
        jaxad("threshold", "--checkpoint", run, "--data", f"folder:{parts}")


def test_the_bound_shown_falls_with_the_images_that_are_given(run, parts, tmp_path, capsys):
    """In what is printed, in report.json and on the page: 1/25 with 24 images, 1/49 with 48."""
    new = make_parts(tmp_path / "new", ("other", "disc"), train=48, test=0)
    for number in (48, 24):
        for file in sorted((new / "disc/train/good").iterdir())[number:]:
            file.unlink()
        jaxad("threshold", "--checkpoint", run, "--data", f"folder:{new}")
        capsys.readouterr()
        jaxad("threshold", "--checkpoint", run)
        shown = [capsys.readouterr().out]
        out = tmp_path / f"report-{number}"
        jaxad("evaluate", "--checkpoint", run, "--data", f"folder:{parts}", "--out", out)
        shown += [capsys.readouterr().out, (out / "report.html").read_text()]
        assert [f"(1/{number + 1})" in text for text in shown] == [True] * 3
        report = json.loads((out / "report.json").read_text())
        assert report["decisions"]["categories"]["disc"]["supported"] == 1 / (number + 1)
        assert report["config"]["threshold"]["supported"]["disc"] == 1 / (number + 1)
        assert report["decisions"]["categories"]["disc"]["holdout"] == number


def test_fit_prints_what_its_holdout_supports_and_with_another_rate_is_the_same_run(run, parts, capsys):
    fit = ("fit", "patch-bank", "--data", f"folder:{parts}", "--workdir", run, *BANK)
    jaxad(*fit, "--false-alarm", "0.5")
    printed = capsys.readouterr().out
    assert "50%" in printed
    assert "asked for" not in printed
    jaxad("verify", run)
    assert "nothing is damaged" in capsys.readouterr().out
    jaxad(*fit)
    assert "1% asked for, up to 16.7% (1/6)" in capsys.readouterr().out


def test_of_the_data_that_was_fitted_on_the_holdout_alone_is_taken(run, bank, parts, tmp_path):
    # Also where the same images lie elsewhere.
    moved = shutil.copytree(parts, tmp_path / "moved")
    for place in (parts, moved):
        jaxad("threshold", "--checkpoint", run, "--data", f"folder:{place}")
        found, wanted = read_decided(run).holdout, read_decided(bank).holdout
        assert found.digests == wanted.digests
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)


def test_other_data_give_all_their_normal_images(run, tmp_path):
    new = make_parts(tmp_path / "new", ("other", "disc"), train=6, test=2)
    jaxad("threshold", "--checkpoint", run, "--data", f"folder:{new}")
    assert sorted(read_decided(run).holdout.files) == [
        *(f"disc/test/good/{i:03}.png" for i in range(2)),
        *(f"disc/train/good/{i:03}.png" for i in range(6)),
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--false-alarm", "2"], "--false-alarm 2.0: must lie between 0 and 1"),
        (["--value", "nan"], "--value nan: must be a number"),
        (["--value", "1", "--false-alarm", "0.1"], "two ways to choose"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--checkpoint", "nowhere"], "no checkpoint there"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(run, capsys, flags, said):
    before = (run / END).read_bytes()
    assert said in failure(capsys, "threshold", "--checkpoint", run, *flags)
    assert (run / END).read_bytes() == before


def test_evaluate_takes_another_threshold_for_once(run, parts, tmp_path):
    before = (run / END).read_bytes()
    how = ("evaluate", "--checkpoint", run, "--data", f"folder:{parts}")
    jaxad(*how, "--out", tmp_path / "low", "--threshold", "-1")
    report = json.loads((tmp_path / "low/report.json").read_text())
    assert report["decisions"]["total"] == {"found": 4, "missed": 0, "false_alarms": 4, "passed": 0}
    assert report["config"]["threshold"]["value"] == -1
    assert report["decisions"]["categories"]["disc"]["false_alarm"] is None
    with (tmp_path / "low/images.csv").open(newline="") as stream:
        assert {row["threshold"] for row in csv.DictReader(stream)} == {"-1.0"}
    assert (run / END).read_bytes() == before


def test_images_that_were_learned_are_known_under_any_name_and_format(run, parts, tmp_path, capsys):
    """A copy of the data in other files, one of which is new, is still what the run was fitted on."""
    kept = read_decided(run).holdout.digests
    for file in (parts / "disc").rglob("*.png"):
        copy = tmp_path / "copy/disc" / file.relative_to(parts / "disc").with_name(f"x{file.stem}.bmp")
        if "ground_truth" not in file.parts:
            copy.parent.mkdir(parents=True, exist_ok=True)
            Image.open(file).save(copy)
    Image.fromarray(np.full((56, 56), 200, np.uint8)).save(tmp_path / "copy/disc/train/good/new.png")
    jaxad("threshold", "--checkpoint", run, "--data", f"folder:{tmp_path / 'copy'}")
    assert "fitted on 7 of its images" in capsys.readouterr().err
    now = read_decided(run).holdout.digests
    assert (len(now), set(kept) < set(now)) == (5 + 1, True)


def test_evaluate_refuses_a_threshold_without_measured_limits(parts, tmp_path, capsys):
    how = ("--data", f"folder:{parts}", "--workdir", tmp_path / "run", *BANK, "--holdout", "0")
    jaxad("fit", "patch-bank", *how)
    evaluate = ("evaluate", "--checkpoint", tmp_path / "run", "--data", f"folder:{parts}", "--out", tmp_path / "out")
    assert "jaxad threshold --checkpoint RUN --data SRC" in failure(capsys, *evaluate, "--threshold", "0.5")
    choose = ("threshold", "--checkpoint", tmp_path / "run")
    assert "run `jaxad threshold --checkpoint" in failure(capsys, *choose, "--false-alarm", "0.1")
    # All of its images were fitted on.
    assert "was not fitted on" in failure(capsys, *choose, "--data", f"folder:{parts}")


def test_captions_are_looked_at_before_networks_are_loaded(run, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxad.inference.checkpoint.restore", lambda *_, **__: pytest.fail("networks are loaded"))
    words = ("threshold", "--checkpoint", run, "--data", f"folder:{parts}", "--captions", tmp_path)
    said = failure(capsys, *words)
    assert "takes no captions at test time" in said
    assert "no file train_captions_" in said, "both at once"
    monkeypatch.setattr("jaxad.cli._captions.are_taken", lambda config: True)
    folder = write_captions(tmp_path, "parts", "vlm", "pd", "train", ["screw/0.png"], lambda images: ["a screw"])
    assert "has a caption there" in failure(capsys, *words[:-1], folder)
