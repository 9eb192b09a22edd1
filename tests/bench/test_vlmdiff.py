"""The account of VLMDiff's memory and operations, on networks of a few channels."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from jaxad import parallel
from jaxad.bench import _account as bench_account
from jaxad.bench import _caption_plans, _topologies
from jaxad.bench import vlmdiff as bench_vlmdiff
from jaxad.bench._topologies import Chip
from jaxad.config import VLMDiffConfig
from jaxad.errors import ConfigError
from jaxad.nn import module_state
from jaxad.training.micro_batch import SHARE, resolved, with_micro_batch
from jaxad.training.step import DetectorTrainer


@pytest.fixture(scope="module")
def detector():
    return bench_vlmdiff.abstract_vlmdiff("tiny", "float32")


def trainer_of(detector, fsdp):
    config = VLMDiffConfig.training(batch_size=2, accumulate=1, fsdp=fsdp)
    return DetectorTrainer(detector, config, parallel.make_mesh(fsdp))


def test_every_array_is_counted_once_and_the_optimizer_holds_two_of_each_trained(detector):
    trainer = trainer_of(detector, 1)
    parts = bench_vlmdiff.divide(detector, trainer)
    arrays = module_state.split(detector)[1]
    assert sum(map(len, parts.values())) == len(arrays)
    assert set().union(*parts.values()) == arrays.keys()
    assert {path.split("/")[0] for path in parts["frozen"]} == {"autoencoder", "text", "backbone"}
    bytes = 4 * sum(math.prod(leaf.shape) for leaf in parts["trained"].values())
    state = trainer.abstract_state
    assert bench_account.held(state.params) * 1e9 == pytest.approx(bytes)
    scalars = sum(4 for leaf in jax.tree.leaves(state.opt_state) if not leaf.ndim)
    assert bench_account.held(state.opt_state) * 1e9 == pytest.approx(2 * bytes + scalars)


def test_fsdp_divides_the_unet_and_its_optimizer_state_over_the_devices(detector):
    whole, shared = (trainer_of(detector, fsdp).abstract_state for fsdp in (1, 2))
    spread = {path for path, leaf in shared.params.items() if not leaf.sharding.is_fully_replicated}
    kernels = {path for path, leaf in shared.params.items() if leaf.size >= parallel.SMALLEST_SHARDED}
    assert spread == kernels
    assert any(path.startswith("unet/up_blocks/") for path in spread)
    assert any(path.startswith("sgn/trunk/") for path in spread)
    saved = sum(4 * shared.params[path].size / 2 for path in spread) / 1e9
    assert bench_account.held(shared.params) == pytest.approx(bench_account.held(whole.params) - saved)
    assert bench_account.held(shared.opt_state) == pytest.approx(bench_account.held(whole.opt_state) - 2 * saved)
    # The step takes and gives the state in these places.
    text = trainer_of(detector, 2).trace(bench_vlmdiff.features(detector, 2)).lower().as_text()
    head = next(line for line in text.splitlines() if "func.func public @main" in line)
    arguments, results = head.split(" -> ")
    for side in (arguments, results):
        assert side.count('{"fsdp"}') >= 3 * len(spread)


@pytest.mark.slow
def test_command_accounts_for_eight_devices_on_any_machine():
    command = ["bench", "vlmdiff", "--size", "tiny", "--devices", "1", "8", "--micro-batches", "1", "--batch-size", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", "jaxad", *command], env=environment, capture_output=True, text=True, check=True
    )
    prediction, autoencoder, one, eight = map(json.loads, done.stdout.splitlines())
    assert (prediction["micro_batch"], one["micro_batch"], autoencoder["micro_batch"]) == (2, 1, 1)
    assert "| training step | 8 | 1 | yes |" in done.stderr
    for row in (prediction, autoencoder, one, eight):
        assert row["images_per_second"] > 0
        assert sum(row["gb"].values()) == pytest.approx(2 * row["gb"]["total"])
        assert row["fits"] == {"24": True, "80": True}
    # Compiled, a step takes on each device what was counted, but for the empty text, and the step's number and a key.
    for row in (autoencoder, one, eight):
        counted = sum(row["gb"][part] for part in ("parameters", "optimizer", "fixed", "batch"))
        assert row["arguments"] == pytest.approx(counted, abs=1e-5)
        assert row["gb"]["results"] < 1e-5
    # No text is read where there are no captions to judge by.
    assert 0.9 * prediction["gb"]["parameters"] < prediction["arguments"] < prediction["gb"]["parameters"]
    for row in (autoencoder, one):
        assert row["gb"]["optimizer"] == pytest.approx(2 * row["gb"]["parameters"], rel=1e-3)
        assert round(row["gb"]["parameters"] * 1e9) == 4 * row["parameters"]["trained"]
    # Four micro-batches of one image on each device; eight of the autoencoder.
    for row, images in ((autoencoder, 8), (one, 4), (eight, 32)):
        assert row["step_tflop"] == pytest.approx(images * row["tflop"])
    assert one["parameters"] == eight["parameters"]
    # Each holds an eighth of every kernel that is large enough, and all of the others.
    params = trainer_of(bench_vlmdiff.abstract_vlmdiff("tiny", "float32"), 1).abstract_state.params.values()
    spread = [leaf for leaf in params if leaf.size >= parallel.SMALLEST_SHARDED]
    assert all(any(side % 8 == 0 for side in leaf.shape) for leaf in spread)
    saved = sum(4 * leaf.size * 7 / 8 for leaf in spread) / 1e9
    assert eight["gb"]["parameters"] == pytest.approx(one["gb"]["parameters"] - saved)
    assert eight["gb"]["optimizer"] == pytest.approx(one["gb"]["optimizer"] - 2 * saved)
    assert eight["gb"]["total"] < one["gb"]["total"]


@pytest.mark.slow
def test_recomputing_costs_operations_and_keeps_less():
    again, once = (bench_vlmdiff.abstract_vlmdiff("tiny", "float32", remat) for remat in (True, False))
    assert 1 < bench_vlmdiff.training_operations(again) / bench_vlmdiff.training_operations(once) < 1.5
    trained = bench_vlmdiff.divide(again, trainer_of(again, 1))["trained"]
    assert bench_vlmdiff.kept(again, trained, 1) < 0.5 * bench_vlmdiff.kept(once, trained, 1)


def test_what_a_device_cannot_hold_is_not_timed(monkeypatch):
    """On a card of 24 GB a micro-batch of 12 must not end the benchmark."""
    card = SimpleNamespace(device_kind="Toy 24", memory_stats=lambda: {"bytes_limit": 18e9, "peak_bytes_in_use": 2e9})
    monkeypatch.setattr(jax, "devices", lambda: [card])
    ran = []
    account = {"gb": {"total": 28.5}}
    assert bench_account.speed(account, lambda: ran.append, 1) == {
        "not_timed": "needs 28.5 GB; jax may use 18.0 GB of this Toy 24"
    }
    assert ran == []
    measured = bench_account.speed({"gb": {"total": 17.9}}, lambda: lambda: ran.append(1), 4)
    assert measured["images_per_second"] > 0
    assert (measured["device"], measured["peak_gb_so_far"], len(ran)) == ("Toy 24", 2.0, 4)


def test_table_of_rows_that_were_timed_and_that_were_not():
    row = {"program": "training step", "devices": 1, "micro_batch": 12, "remat": True, "tflop": 0.75, "step_tflop": 36}
    row |= {"gb": {"total": 28.5, "temporaries": 15.4}, "kept": 3.0, "fits": {"24": False, "80": True}}
    prediction = {**row, "program": "prediction", "images_per_second": 2.5}
    del prediction["step_tflop"], prediction["kept"], prediction["remat"]
    lines = bench_vlmdiff.table([row | {"not_timed": "needs 28.5 GB"}, prediction]).splitlines()
    assert lines[2] == "| training step | 1 | 12 | yes | 28.5 | 15.4 | 3.0 | no | yes | 0.75 | 36.0 | needs 28.5 GB |"
    assert lines[3] == "| prediction | 1 | 12 |  | 28.5 | 15.4 |  | no | yes | 0.75 |  | 2.5 |"
    assert len({line.count("|") for line in lines}) == 1


def test_rows_are_shown_although_a_later_one_fails(monkeypatch, capsys):
    row = {"program": "prediction", "devices": 1, "micro_batch": 1, "tflop": 3.3, "images_per_second": 2.5}
    row |= {"gb": {"total": 8.1, "temporaries": 1.0}, "fits": {"24": True, "80": True}}

    def rows(*_, **__):
        yield row
        raise MemoryError

    monkeypatch.setattr(bench_vlmdiff, "vlmdiff_benchmark", rows)
    with pytest.raises(MemoryError):
        bench_vlmdiff.main((1,), (1,), size="tiny", programs=("prediction",))
    assert "| prediction | 1 | 1 |" in capsys.readouterr().err


def test_more_devices_than_there_can_be_are_an_error():
    with pytest.raises(ConfigError, match=r"devices = 64: there are 2.*JAX_NUM_CPU_DEVICES=64"):
        next(bench_vlmdiff.vlmdiff_benchmark((1, 64), size="tiny"))


def test_both_programs_of_captions_are_planned_and_run_where_the_devices_are(monkeypatch):
    """A memory that is written to is donated, so that what is timed places it anew."""
    chip = Chip(jax.devices()[0].device_kind, "cuda", memory_gb=1, peak_tflops=0.01, bandwidth_gbs=100)
    monkeypatch.setitem(_topologies.CHIPS, "h100", chip)
    monkeypatch.setattr("jaxad.bench._plan.SECONDS", 0.01)
    monkeypatch.setattr(_caption_plans, "LONGEST", 2)
    topology = _topologies.find_topology("h100:2")
    questions, answers = _caption_plans.caption_plans(topology, 1, dtype="float32", size="tiny")
    assert (questions["program"], answers["program"]) == ("captions, questions", "captions, answers")
    assert questions["batch_size"] == answers["batch_size"] == 2
    assert all(row["measured"]["runs"] >= 3 for row in (questions, answers))
    # Two tiles and a thumbnail of 2 x 2 / 4 tokens, 128 words, in whole blocks; then the answer.
    memory = 2 * 2 * 2 * 4 * (256 + 2) * 4 / 2 / 1e9
    assert questions["gb"]["results"] > memory
    assert answers["gb"]["results"] < memory < answers["gb"]["arguments"]


def test_captions_are_planned_for_topologies_only():
    with pytest.raises(ConfigError, match=r"captions.*topology"):
        bench_vlmdiff.main(programs=("captions",))


@pytest.mark.slow
def test_as_many_images_of_vlmdiff_are_held_at_once_as_its_compiler_says_fit():
    """The default of its published training, on a device with too little memory for all images of a step."""
    mesh, detector = parallel.make_mesh(devices=jax.devices()[:1]), bench_vlmdiff.abstract_vlmdiff("tiny", "float32")
    config, images = VLMDiffConfig.training("paper", batch_size=16, accumulate=2), 32

    @functools.cache
    def planned(batch_size):
        trainer = DetectorTrainer(detector, with_micro_batch(config, batch_size), mesh)
        return trainer.bytes(bench_vlmdiff.features(detector, images))

    limit = planned(images) - 1
    found = resolved(config, lambda each: planned(each.batch_size), devices=1, memory=int(limit / SHARE) + 1)
    assert found.batch_size < images
    assert planned(found.batch_size) <= limit
