"""Evaluations on the way: of which images, what they say, and that they change nothing."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxad
from jaxad import parallel
from jaxad.errors import ConfigError, DamagedError
from jaxad.io.progress import Reporter
from jaxad.io.signals import Stopped, listening
from jaxad.testing import toy_model, toy_training
from jaxad.training import fit, watching
from jaxad.training.log import read_evaluations, read_metrics
from jaxad.training.step import DetectorTrainer, TrainState
from jaxad.training.watching import evenly, watched
from jaxad.types import Record
from tests.training.test_trainer import assert_bit_equal, rows


def record(category, label, number=0):
    return Record(Path(f"{category}/{label}/{number}.png"), category, label)


def test_images_are_evenly_chosen_from_categories_and_kinds():
    few, many = [record("a", 0, i) for i in range(3)], [record("b", 0, i) for i in range(40)]
    defects = [record("b", 1, i) for i in range(20)]
    records = [*few, *many, *defects]
    chosen = evenly(records, 13)
    assert chosen == sorted(set(chosen))
    bounds = ((0, 3), (3, 43), (43, 63))
    assert [sum(lower <= place < upper for place in chosen) for lower, upper in bounds] == [3, 5, 5]
    # From one end to the other.
    assert {3, 42, 43, 62} < set(chosen)
    assert evenly(records, 100) == list(range(63))
    assert evenly(records, 2) == [0, 3]


def test_what_there_is_none_of_cannot_be_watched(parts):
    with pytest.raises(ConfigError, match="no images of a hold-out"):
        watched(toy_training(eval_every=4), None, parts.test)
    with pytest.raises(ConfigError, match="no images with labels"):
        watched(toy_training(eval_every=4, eval_on="test"), parts.holdout, parts.test.select(()))
    assert watched(toy_training(eval_on="test"), None, None) is None
    found = watched(toy_training(eval_every=4, eval_on="test", eval_images=6), None, parts.test)
    assert (len(found.source), found.of) == (6, 16)
    assert {(r.category, r.label) for r in found.source.records} == {(c, n) for c in ("disc", "tile") for n in (0, 1)}


@pytest.fixture(scope="module")
def seen(parts, tmp_path_factory):
    """The run `trained`, watched on the hold-out."""
    config = toy_training(eval_every=5, eval_images=6)
    return jaxad.fit(
        toy_model(), parts.train, config, workdir=tmp_path_factory.mktemp("seen") / "run", holdout=parts.holdout
    )


def test_a_watched_training_ends_with_the_same_bits(trained, seen):
    assert_bit_equal(seen.model, trained.model)
    assert seen.threshold == trained.threshold
    assert rows(seen.workdir) == rows(trained.workdir)
    saved = jaxad.restore(seen.workdir)
    assert_bit_equal(saved.detector, trained.model)
    assert saved.meta["train"]["eval_every"] == 5


def test_a_hold_out_gives_its_loss_and_how_scores_are_distributed(seen):
    table = read_metrics(seen.workdir / "evaluations-holdout.csv")
    assert [int(row["step"]) for row in table] == [0, 5, 10, 12]
    assert {(row["images"], row["of"]) for row in table} == {("6", "10")}
    losses = [float(row["loss"]) for row in table]
    assert losses[-1] < losses[0]
    for row in table:
        assert float(row["score_median"]) <= float(row["score_p95"]) <= float(row["score_max"])
    found = read_evaluations(seen.workdir, 10)["holdout"]
    assert (found["images"], found["of"], found["steps"]) == (6, 10, [0, 5, 10])
    assert found["values"]["loss"] == losses[:3]


def test_the_loss_of_held_out_images_is_summed_on_the_devices_and_fetched_once(monkeypatch):
    """The mean of batches, the last one filled up; nothing waits for the host in between."""
    seen, fetched, to_host = [], [], parallel.to_host

    def loss(state, batch, key):
        seen.append(batch.tolist())
        return jnp.float32(batch.sum())

    monkeypatch.setattr(parallel, "to_host", lambda arrays: fetched.append(len(seen)) or to_host(arrays))
    run = SimpleNamespace(mesh=SimpleNamespace(size=2), workers=None)
    trainer: Any = SimpleNamespace(loss=loss)
    judge = watching._Judge(toy_model(), trainer, None, "exact-256", toy_training(batch_size=4), run)
    judge._learned = np.arange(10)
    assert judge._loss(None, lambda images: None) == (6 + 22 + 18) / 3
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    assert fetched == [3]


def test_the_trainer_leaves_the_loss_on_the_devices():
    """As every metric of a step is."""
    trainer = object.__new__(DetectorTrainer)
    trainer._mesh, trainer._read = parallel.make_mesh(), {}
    trainer._loss = lambda params, fixed, batch, key, step: jnp.float32(3)
    assert isinstance(trainer.loss(TrainState({}, None, None, jnp.int32(0)), {}, jax.random.key(0)), jax.Array)


@pytest.mark.parametrize(
    ("limit", "encoders"), [(4.0, {True: 1, False: 1}), pytest.param(1e-9, {True: 4}, marks=pytest.mark.slow)]
)
def test_images_are_encoded_once_for_all_evaluations_where_there_is_room(
    parts, seen, tmp_path, monkeypatch, limit, encoders
):
    """Four evaluations, each with one network for the loss and one for the scores; where there is no room, anew."""
    made, given, measure = Counter(), [], watching.measure_holdout

    class Counted(watching.Encoder):
        def __init__(self, detector, *, training, **how):
            made[training] += 1
            super().__init__(detector, training=training, **how)

    def measured(*arguments, features, **how):
        given.append(features)
        return measure(*arguments, features=features, **how)

    monkeypatch.setattr(watching, "Encoder", Counted)
    monkeypatch.setattr(watching, "measure_holdout", measured)
    config = toy_training(eval_every=5, eval_images=6, cache_limit_gb=limit)
    run = jaxad.fit(toy_model(), parts.train, config, workdir=tmp_path / "run", holdout=parts.holdout)
    assert made == encoders
    assert [features is given[0] for features in given] == [True] * 4
    assert (given[0] is None) == (limit < 1)
    mine, theirs = (read_evaluations(folder, 12)["holdout"] for folder in (run.workdir, seen.workdir))
    for name, values in theirs["values"].items():
        assert mine["values"][name] == pytest.approx(values, rel=1e-5)


def test_the_last_scores_are_those_of_the_trained_detector(parts, seen):
    """And so not those of the parameters before their average, or of an earlier step."""
    chosen = watched(toy_training(eval_every=5, eval_images=6), parts.holdout, None)
    scores = watching.measure_holdout(seen.model, chosen.source, protocol="exact-256").scores
    last = read_metrics(seen.workdir / "evaluations-holdout.csv")[-1]
    assert float(last["score_max"]) == pytest.approx(scores.max(), rel=1e-4)
    assert float(last["score_median"]) == pytest.approx(np.median(scores), rel=1e-4)


@pytest.mark.slow
def test_a_resumed_run_has_every_evaluation_once(parts, seen, tmp_path):
    run = shutil.copytree(seen.workdir, tmp_path / "run")
    shutil.rmtree(run / "checkpoints/12")
    config = toy_training(eval_every=5, eval_images=6)
    jaxad.fit(toy_model(), parts.train, config, workdir=run, holdout=parts.holdout)
    mine, theirs = (read_evaluations(folder, 12) for folder in (run, seen.workdir))
    assert mine == theirs


def test_a_table_that_is_not_what_was_written_is_no_curve(tmp_path):
    assert read_evaluations(tmp_path, 9) == {}
    head, good = "step,seconds,images,of,image_auroc,aupro", "0,1.5,4,8,0.5,"
    for row, expected in (("2,2.5,4,8,0.75,", [0.5, 0.75]), ("12,2.5,4,8,0.75,", [0.5]), ("2,2.5,4", [0.5])):
        (tmp_path / "evaluations-test.csv").write_text("\n".join([head, good, row, ""]))
        found = read_evaluations(tmp_path, 9)["test"]
        assert found["values"] == {"image_auroc": expected}
        assert (found["images"], found["of"]) == (4, 8)
    for row in ("2,2.5,4,8,nan,", "-1,2.5,4,8,0.5,", "x,2.5,4,8,0.5,", "2,2.5,inf,8,0.5,", "2,2.5,4,8,0.5,,,"):
        (tmp_path / "evaluations-test.csv").write_text("\n".join([head, good, row, ""]))
        with pytest.raises(DamagedError, match=r"evaluations-test\.csv: \w"):
            read_evaluations(tmp_path, 9)


def test_tables_that_cannot_be_read_are_named_and_never_waited_for(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"step,seconds\n\xff,1\n")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("gone", "No such file"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("binary", "UnicodeDecodeError"),
    ):
        with pytest.raises(DamagedError, match=f"{tmp_path / name}: {said}"):
            read_metrics(tmp_path / name)


@pytest.mark.slow
def test_test_images_give_the_metrics_and_change_nothing_either(parts, trained, tmp_path):
    config = toy_training(eval_every=6, eval_on="test", eval_images=100)
    run = jaxad.fit(toy_model(), parts.train, config, workdir=tmp_path / "run", holdout=parts.holdout, test=parts.test)
    assert_bit_equal(run.model, trained.model)
    found = read_evaluations(run.workdir, 12)["test"]
    assert (found["steps"], found["images"], found["of"]) == ([0, 6, 12], 16, 16)
    mean = jaxad.evaluate(run.model, parts.test)["mean"]
    for name in ("image_auroc", "pixel_ap", "mad"):
        assert found["values"][name][-1] == pytest.approx(mean[name], abs=1e-4)
    assert jaxad.restore(run.workdir).meta["train"]["eval_on"] == "test"


class Told(Reporter):
    """Keeps its warnings."""

    def __init__(self):
        super().__init__(quiet=True)
        self.warned = []

    def warn(self, texts):
        self.warned += texts


@pytest.mark.slow
def test_an_evaluation_that_fails_on_the_way_costs_no_step(parts, trained, tmp_path, monkeypatch):
    calls = []
    original = watching.measure_holdout

    def failing(*arguments, **how):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return original(*arguments, **how)

    monkeypatch.setattr(watching, "measure_holdout", failing)
    config = toy_training(eval_every=5, eval_images=6)
    reporter = Told()
    how = {"workdir": tmp_path / "run", "holdout": parts.holdout, "reporter": reporter}
    run = jaxad.fit(toy_model(), parts.train, config, **how)
    assert_bit_equal(run.model, trained.model)
    assert read_evaluations(run.workdir, 12)["holdout"]["steps"] == [0, 10, 12]
    assert [line for line in reporter.warned if "step 5" in line and "Input/output error" in line]


@pytest.mark.parametrize(("changes", "named"), [({"levels": (300, 100)}, "dpdiff"), ({}, "promptad")])
def test_what_is_judged_by_after_its_last_step_alone_is_not_watched(changes, named):
    model = toy_model(**changes)
    if named == "promptad":
        model = object.__new__(jaxad.PromptAD)
    with pytest.raises(ConfigError, match=f"eval_every = 5: {named} needs"):
        fit._check_asked(model, toy_training(eval_every=5), None, None)
    fit._check_asked(toy_model(), toy_training(eval_every=5), None, None)


def test_one_that_fails_before_the_first_step_is_an_error(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "measure_holdout", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        jaxad.fit(toy_model(), parts.train, toy_training(eval_every=5), workdir=tmp_path / "run", holdout=parts.holdout)


@pytest.mark.slow
def test_a_signal_cuts_an_evaluation_short_and_the_resumed_run_makes_up_for_it(parts, seen, tmp_path, monkeypatch):
    calls, original = [], watching.measure_holdout

    def killed(*arguments, progress, **how):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, progress=progress, **how)

    config = toy_training(eval_every=5, eval_images=6)
    again = {"workdir": tmp_path / "run", "holdout": parts.holdout}
    with monkeypatch.context() as patch:
        patch.setattr(watching, "measure_holdout", killed)
        with pytest.raises(Stopped), listening():
            jaxad.fit(toy_model(), parts.train, config, **again)
    assert max(int(folder.name) for folder in (tmp_path / "run/checkpoints").iterdir()) == 5
    assert read_evaluations(tmp_path / "run", 12)["holdout"]["steps"] == [0]
    run = jaxad.fit(toy_model(), parts.train, config, **again)
    assert read_evaluations(run.workdir, 12) == read_evaluations(seen.workdir, 12)
    assert_bit_equal(run.model, seen.model)
