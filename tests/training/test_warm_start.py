"""Warm starts: a run begins with the parameters of another, and says so."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import jaxad
from jaxad import parallel
from jaxad.config import LinearConfig
from jaxad.errors import CheckpointError, ConfigError
from jaxad.nn import module_state
from jaxad.testing import BACKBONE, toy_model, toy_training
from jaxad.training.run_folder import claim
from jaxad.training.warm_start import WarmStart, begin_from, origin_of
from tests.training.test_run_folder import RESOURCES


def parameters(model):
    return {path: np.asarray(array) for path, array in module_state.split(model, nnx.Param, ...)[1].items()}


def distance(one, other):
    """The largest difference of a parameter."""
    one, other = parameters(one), parameters(other)
    return max(np.abs(one[path] - other[path]).max() for path in one)


def test_the_parameters_are_those_that_the_run_is_evaluated_with_and_nothing_else_is(trained):
    model = toy_model()
    before = module_state.split(model, nnx.Param, ...)[2]
    record = begin_from(model, trained.workdir)
    for path, array in parameters(trained.model).items():
        np.testing.assert_array_equal(parameters(model)[path], array)
    after = module_state.split(model, nnx.Param, ...)[2]
    assert all(np.array_equal(before[path], after[path]) for path in before)
    assert record == {
        "run": str(trained.workdir),
        "step": 12,
        "sha256": jaxad.restore(trained.workdir).sha256,
    }


def test_a_run_begins_there_and_records_it(parts, trained, tmp_path):
    config = toy_training(steps=1)
    call = {"workdir": tmp_path / "run", "warm_start": trained.workdir}
    run = jaxad.fit(toy_model(), parts.train, config, **call)
    # Adam's first step goes as far as its learning rate.
    assert distance(run.model, trained.model) < 1.01 * config.learning_rate
    assert distance(run.model, toy_model()) > 2 * config.learning_rate
    recorded = jaxad.restore(run.workdir).meta["from"]
    assert recorded == json.loads((run.workdir / "config.json").read_text())["from"]
    assert (recorded["run"], recorded["step"]) == (str(trained.workdir), 12)
    # The same parameters from another place are the same run, and it is finished.
    moved = shutil.copytree(trained.workdir, tmp_path / "moved")
    again = jaxad.fit(toy_model(), parts.train, config, workdir=run.workdir, warm_start=moved / "checkpoints/12")
    assert again.seconds == 0
    assert jaxad.fit(toy_model(), parts.train, config, workdir=run.workdir, warm_start=tmp_path / "gone").seconds == 0
    # A run that has steps of its own needs the other no more, wherever that is.
    assert origin_of(run.workdir, tmp_path / "gone") == origin_of(run.workdir, trained.workdir) == recorded
    assert origin_of(run.workdir, trained.workdir / "checkpoints/12") == recorded
    assert origin_of(run.workdir, moved) is origin_of(tmp_path, trained.workdir) is None
    with pytest.raises(CheckpointError, match=r"from\.sha256: '[0-9a-f]{64}' there, None now"):
        jaxad.fit(toy_model(), parts.train, config, workdir=run.workdir)
    settings = json.loads((run.workdir / "config.json").read_text())
    other = {**settings, "from": {**settings["from"], "sha256": "another", "step": 8}}
    with pytest.raises(CheckpointError, match="name its folder where its run has gone on"):
        claim(run.workdir, other, RESOURCES)


def test_another_architecture_is_refused_with_all_that_differs(trained):
    model = toy_model(depth=2, local_prototypes=4)
    before = parameters(model)
    with pytest.raises(CheckpointError) as error:
        begin_from(model, trained.workdir)
    lines = str(error.value).splitlines()[1:]
    assert any("denoiser/blocks/1/" in line and line.endswith("here, not there") for line in lines)
    assert any("there, (4, " in line for line in lines)
    assert all(np.array_equal(before[path], array) for path, array in parameters(model).items())
    with pytest.raises(CheckpointError, match="there, not here"):
        begin_from(toy_model(local_prototypes=0), trained.workdir)


def test_another_detector_and_no_run_are_refused(trained, tmp_path):
    linear = jaxad.LinearDenoiser.create(LinearConfig(backbone=BACKBONE, image_size=56), key=jax.random.key(0))
    with pytest.raises(CheckpointError, match="holds dpdiff, not linear"):
        begin_from(linear, trained.workdir)
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        begin_from(toy_model(), tmp_path)


def test_what_is_not_trained_begins_from_nothing(parts, trained, tmp_path):
    config = jaxad.PatchBankConfig(backbone=BACKBONE, image_size=56)
    bank = jaxad.PatchBank.create(config, key=jax.random.key(0))
    with pytest.raises(ConfigError, match="warm start and profile: patch-bank is not trained"):
        jaxad.fit(bank, parts.train, workdir=tmp_path / "run", warm_start=trained.workdir, profile=(1, 2))


def test_of_two_processes_both_read_it_and_what_they_read_is_compared(trained, tmp_path, monkeypatch):
    """The other one is played by what it says; it never waits for this one while it reads."""
    other, said = ["", ""], []

    def every(text):
        said.append(text)
        return (text, other[len(said) - 1] or text)

    monkeypatch.setattr(parallel.jax, "process_count", lambda: 2)
    monkeypatch.setattr(parallel, "every", every)
    monkeypatch.setattr(ocp.Checkpointer, "restore", lambda *_, **__: pytest.fail("waits for all"))
    model = toy_model()
    begin = WarmStart(model, trained.workdir, tmp_path)
    assert (len(said), begin.record["step"]) == (2, 12)
    assert distance(model, trained.model) == 0
    said.clear()
    assert begin.taken(model) == begin.record
    assert len(said) == 2
    for other[:], message in (
        (["host-b: no checkpoint there", ""], "process 1 of 2 on host-b: no checkpoint there"),
        (["", "another step"], "warm start from .*: the parameters of process 1 are others"),
    ):
        said.clear()
        with pytest.raises(ConfigError, match=message):
            WarmStart(model, trained.workdir, tmp_path)
    # Who cannot read it tells the other one, and says so in its own words.
    said.clear()
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        WarmStart(model, tmp_path, tmp_path)
    assert "no checkpoint there" in said[0]


def test_a_run_whose_own_steps_are_damaged_begins_there_again(parts, trained, tmp_path):
    call = {"workdir": tmp_path / "run", "warm_start": trained.workdir}
    run = jaxad.fit(toy_model(), parts.train, toy_training(steps=1), **call)
    begin = WarmStart(model := toy_model(), trained.workdir, run.workdir)
    assert distance(model, trained.model) > 0
    assert begin.taken(model) == begin.record
    assert distance(model, trained.model) == 0
