import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxad.errors import CheckpointError, ConfigError
from jaxad.io.locks import locked
from tests.cli.shell import jaxad
from tests.training.damage import biggest, flip


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained.workdir, tmp_path / "run")


def test_a_whole_run_is_said_to_be_so(run, capsys):
    jaxad("verify", run)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0].removeprefix(f"{run}/") for line in lines[:4]] == [
        "checkpoints/12",
        "checkpoints/8",
        "config.json",
        "metrics.csv",
    ]
    assert lines[-1] == "nothing is damaged"
    jaxad("verify", run / "checkpoints" / "8")
    assert "checkpoints/8" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["", "checkpoints/8", "features"])
def test_a_run_that_is_going_on_is_not_called_damaged(run, part):
    with locked(run / ".lock", "run"), ThreadPoolExecutor(1) as pool, pytest.raises(ConfigError, match="run"):
        pool.submit(jaxad, "verify", run / part).result()
    jaxad("verify", run)


def test_evaluations_are_looked_at_too(run, capsys):
    (run / "evaluations-test.csv").write_text("step,seconds,image_auroc\n0,0.5,0.5\n")
    jaxad("verify", run)
    assert f"{run / 'evaluations-test.csv'}: 1 rows can be read" in capsys.readouterr().out
    (run / "evaluations-test.csv").write_text("no table")
    with pytest.raises(CheckpointError, match="1 of 5"):
        jaxad("verify", run)


def test_every_damaged_file_is_named_and_the_command_fails(run, capsys):
    before = sorted(run.rglob("*"))
    training, model = (biggest(run / "checkpoints" / step) for step in ("8/training", "12/model"))
    flip(training, keep_date=True)
    model.unlink()
    (run / "metrics.csv").write_text("no table")
    (run / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="4 of 4"):
        jaxad("verify", run)
    out = capsys.readouterr().out
    for file in (training, model, run / "metrics.csv", run / "config.json"):
        assert f"{file}: " in out
    assert sorted(run.rglob("*")) == [path for path in before if path != model]


def test_a_run_without_a_step_is_one(run, capsys):
    shutil.rmtree(run / "checkpoints")
    jaxad("verify", run)
    assert f"{run / 'checkpoints'}: no step" in capsys.readouterr().out
    (run / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="1 of 3"):
        jaxad("verify", run)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        jaxad("verify", tmp_path)
