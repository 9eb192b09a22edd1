import dataclasses

import chex
import jax
import numpy as np
import pytest

import jaxad
from jaxad import parallel
from jaxad.config import TrainConfig
from jaxad.errors import ConfigError
from jaxad.io.progress import Reporter
from jaxad.nn import module_state
from jaxad.testing import make_parts, toy_model, toy_training
from jaxad.training import trainer
from jaxad.training.micro_batch import SHARE, UNTOLD, memory_of, resolved
from jaxad.training.run_folder import Place
from jaxad.training.step import bytes_refused, step_bytes
from tests.training.test_trainer import StopAt, Stopped

GB = 10**9


def chosen(config, memory, devices=1, each=GB, rest=2 * GB):
    asked = []

    def needs(candidate):
        asked.append(candidate.batch_size)
        return rest + each * candidate.batch_size // devices

    found = resolved(config, needs, devices=devices, memory=int(memory / SHARE) + 1)
    return (found.batch_size, found.accumulate), asked


def test_as_many_images_as_fit_are_held_at_once():
    config = TrainConfig(batch_size=12, accumulate=4, micro_batch="auto")
    assert chosen(config, 50 * GB) == ((48, 1), [48])
    assert chosen(config, 10 * GB) == ((8, 6), [48, 24, 16, 12, 8])
    assert chosen(config, 3 * GB)[0] == (1, 48)
    assert chosen(config, 4 * GB, devices=8)[0] == (16, 3)


def test_a_number_is_taken_as_it_is_and_none_is_the_batch_size():
    config = TrainConfig(batch_size=12, accumulate=4, micro_batch=6)
    assert chosen(config, 0) == ((6, 8), [])
    assert resolved(config, None, devices=1, memory=0).micro_batch is None
    plain = dataclasses.replace(config, micro_batch=None)
    assert resolved(plain, None, devices=1, memory=0) is plain


def test_what_cannot_be_is_said():
    config = TrainConfig(batch_size=12, accumulate=1, micro_batch="auto")
    with pytest.raises(ConfigError, match=r"micro_batch.*3\.0 GB.*remat"):
        chosen(config, 2.5 * GB)
    with pytest.raises(ConfigError, match="the number of devices"):
        chosen(config, 50 * GB, devices=8)
    for number in (0, 5):
        with pytest.raises(ConfigError, match="micro_batch"):
            dataclasses.replace(config, micro_batch=number).check()


def test_smaller_micro_batches_take_less():
    mesh = parallel.make_mesh(devices=jax.devices()[:1])

    def needed(images):
        return step_bytes(toy_model(), TrainConfig(batch_size=images, accumulate=64 // images), mesh)

    assert needed(16) < needed(64)


def test_what_a_compiler_refuses_for_its_size_says_how_large_it_is():
    refused = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 25.50G of 15.75G hbm."
    assert bytes_refused(jax.errors.JaxRuntimeError(refused)) == 25.5 * 2**30
    assert bytes_refused(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no numbers")) == UNTOLD
    assert bytes_refused(jax.errors.JaxRuntimeError("INTERNAL: Used 3.0G of 2.0G hbm")) is None


def test_the_memory_of_this_machine_is_known():
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    assert memory_of(mesh) > GB


def test_auto_trains_as_the_number_that_it_finds(tmp_path):
    """On this machine all images of a toy fit."""
    source = jaxad.data.load(f"folder:{make_parts(tmp_path / 'parts', train=8)}").train
    runs = []
    for name, micro_batch in (("auto", "auto"), ("number", 8)):
        config = toy_training(steps=2, batch_size=4, accumulate=2, micro_batch=micro_batch)
        run = jaxad.fit(toy_model(), source, config, workdir=tmp_path / name)
        runs.append(module_state.split(run.model)[1])
    chex.assert_trees_all_equal(*runs)


def test_networks_that_make_features_anew_have_their_place(tmp_path, monkeypatch):
    """What a step and they take together must fit, not the step alone."""
    place = Place(tmp_path, parallel.make_mesh(devices=jax.devices()[:1]), None, Reporter(quiet=True))
    each, plans = 100 << 20, []

    def planned(traced):
        plans.append(traced.lower().compile())
        return each

    monkeypatch.setattr(trainer, "step_bytes", lambda detector, config, mesh: config.batch_size * each)
    monkeypatch.setattr(trainer, "planned_bytes", planned)
    monkeypatch.setattr(trainer, "memory_of", lambda mesh: int(8 * each / SHARE) + (1 << 20))
    found = {}
    for cache in ("memory", "off"):
        config = toy_training(batch_size=8, micro_batch="auto", cache=cache)
        found[cache] = trainer._with_micro_batch(toy_model(), config, place, None).batch_size
    assert found == {"memory": 8, "off": 4}
    assert [plan.memory_analysis().argument_size_in_bytes > 0 for plan in plans] == [True]


def test_a_resumed_run_keeps_the_micro_batch_that_was_found(tmp_path, monkeypatch):
    source = jaxad.data.load(f"folder:{make_parts(tmp_path / 'parts', train=8)}").train
    config = toy_training(steps=4, batch_size=4, accumulate=2, micro_batch="auto", checkpoint_every=2)
    whole = jaxad.fit(toy_model(), source, config, workdir=tmp_path / "whole")
    with pytest.raises(Stopped):
        jaxad.fit(toy_model(), source, config, workdir=tmp_path / "cut", reporter=StopAt(3))
    # As on a device with too little memory for all images at once.
    monkeypatch.setattr(trainer, "memory_of", lambda mesh: 1)
    resumed = jaxad.fit(toy_model(), source, config, workdir=tmp_path / "cut")
    chex.assert_trees_all_equal(module_state.split(resumed.model)[1], module_state.split(whole.model)[1])


def test_a_micro_batch_on_record_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    source = jaxad.data.load(f"folder:{make_parts(tmp_path / 'parts', train=8)}").train
    config = toy_training(steps=4, batch_size=8, micro_batch="auto", checkpoint_every=2)
    with pytest.raises(Stopped):
        jaxad.fit(toy_model(), source, config, workdir=tmp_path / "cut", reporter=StopAt(3))
    for recorded, message in ((5, "must divide"), (1, "number of devices")):
        monkeypatch.setattr(trainer, "read_meta", lambda folder, recorded=recorded: {"micro_batch": recorded})
        with pytest.raises(ConfigError, match=f"micro_batch = {recorded}: .*{message}"):
            jaxad.fit(toy_model(), source, config, workdir=tmp_path / "cut")


def test_all_processes_take_what_fits_the_least_memory(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(parallel.multihost_utils, "process_allgather", lambda value: np.array([value, 7], value.dtype))
    assert (parallel.least(9), parallel.least(3)) == (7, 3)


def test_memory_is_agreed_on_once_and_where_it_is_asked_for(tmp_path, monkeypatch):
    """All processes must take part in each agreement."""
    agreed = []
    for name in ("least", "from_main"):
        monkeypatch.setattr(parallel, name, lambda value: agreed.append(value) or value)
    monkeypatch.setattr(trainer, "step_bytes", lambda *given, **how: 1)
    place = Place(tmp_path, parallel.make_mesh(devices=jax.devices()[:1]), None, Reporter(quiet=True))
    for micro_batch, images in ((None, 8), (2, 2)):
        config = TrainConfig(batch_size=8, micro_batch=micro_batch)
        assert trainer._with_micro_batch(toy_model(), config, place, None).batch_size == images
    assert not agreed
    found = trainer._with_micro_batch(toy_model(), TrainConfig(batch_size=8, micro_batch="auto"), place, None)
    assert (found.batch_size, len(agreed)) == (8, 1)
