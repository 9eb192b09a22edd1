"""The account of VLMDiff's memory and operations, on networks of a few channels."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import jax
import pytest

from jaxad import bench_vlmdiff, module_state, parallel
from jaxad.config import VLMDiffConfig
from jaxad.errors import ConfigError
from jaxad.train import DetectorTrainer


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
    assert bench_vlmdiff.held(state.params) * 1e9 == pytest.approx(bytes)
    scalars = sum(4 for leaf in jax.tree.leaves(state.opt_state) if not leaf.ndim)
    assert bench_vlmdiff.held(state.opt_state) * 1e9 == pytest.approx(2 * bytes + scalars)


def test_fsdp_divides_the_unet_and_its_optimizer_state_over_the_devices(detector):
    whole, shared = (trainer_of(detector, fsdp).abstract_state for fsdp in (1, 2))
    spread = {path for path, leaf in shared.params.items() if not leaf.sharding.is_fully_replicated}
    kernels = {path for path, leaf in shared.params.items() if leaf.size >= parallel.SMALLEST_SHARDED}
    assert spread == kernels
    assert any(path.startswith("unet/up_blocks/") for path in spread)
    assert any(path.startswith("sgn/trunk/") for path in spread)
    saved = sum(4 * shared.params[path].size / 2 for path in spread) / 1e9
    assert bench_vlmdiff.held(shared.params) == pytest.approx(bench_vlmdiff.held(whole.params) - saved)
    assert bench_vlmdiff.held(shared.opt_state) == pytest.approx(bench_vlmdiff.held(whole.opt_state) - 2 * saved)
    # The step takes and gives the state in these places.
    text = trainer_of(detector, 2).trace(bench_vlmdiff.features(detector, 2)).lower().as_text()
    head = next(line for line in text.splitlines() if "func.func public @main" in line)
    arguments, results = head.split(" -> ")
    for side in (arguments, results):
        assert side.count('{"fsdp"}') >= 3 * len(spread)


@pytest.mark.slow
def test_command_accounts_for_eight_devices_on_any_machine():
    command = ["bench", "vlmdiff", "--size", "tiny", "--devices", "1", "8", "--micro-batches", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", "jaxad", *command], env=environment, capture_output=True, text=True, check=True
    )
    prediction, one, eight = map(json.loads, done.stdout.splitlines())
    assert "| training step | 8 | 1 | yes |" in done.stderr
    for row in (prediction, one, eight):
        assert row["images_per_second"] > 0
        assert sum(row["gb"].values()) == pytest.approx(2 * row["gb"]["total"])
        assert row["fits"] == {"24": True, "80": True}
    # Compiled, a step takes on each device what was counted, but for the empty text, and the step's number and a key.
    for row in (one, eight):
        counted = sum(row["gb"][part] for part in ("parameters", "optimizer", "fixed", "batch"))
        assert row["arguments"] == pytest.approx(counted, abs=1e-5)
        assert row["gb"]["results"] < 1e-5
    # No text is read where there are no captions to judge by.
    assert 0.9 * prediction["gb"]["parameters"] < prediction["arguments"] < prediction["gb"]["parameters"]
    assert one["gb"]["optimizer"] == pytest.approx(2 * one["gb"]["parameters"], rel=1e-3)
    assert one["gb"]["parameters"] * 1e9 == 4 * one["parameters"]["trained"]
    assert one["parameters"] == eight["parameters"]
    assert 3 * eight["gb"]["optimizer"] < one["gb"]["optimizer"]
    assert eight["gb"]["total"] < one["gb"]["total"]


@pytest.mark.slow
def test_recomputing_costs_operations_and_keeps_less():
    again, once = (bench_vlmdiff.abstract_vlmdiff("tiny", "float32", remat) for remat in (True, False))
    assert 1 < bench_vlmdiff.training_operations(again) / bench_vlmdiff.training_operations(once) < 1.5
    trained = bench_vlmdiff.divide(again, trainer_of(again, 1))["trained"]
    assert bench_vlmdiff.kept(again, trained, 1) < 0.5 * bench_vlmdiff.kept(once, trained, 1)


def test_more_devices_than_there_can_be_are_an_error():
    with pytest.raises(ConfigError, match=r"--devices 64: there are 2.*JAX_NUM_CPU_DEVICES=64"):
        next(bench_vlmdiff.vlmdiff_benchmark((1, 64), size="tiny"))
