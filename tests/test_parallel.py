import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import jaxad
from jaxad import parallel
from jaxad.errors import ConfigError
from jaxad.inference.predictor import Predictor
from jaxad.nn import module_state
from jaxad.testing import MODEL, TRAINING, toy_model
from jaxad.training.log import read_evaluations
from tests.training.test_trainer import rows


def test_half_an_environment_of_several_hosts_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1")
    with pytest.raises(ConfigError) as error:
        parallel.start_processes()
    assert "JAX_PROCESS_ID: missing" in str(error.value)
    assert "JAX_NUM_PROCESSES = two: must be a number" in str(error.value)


WIDE = MODEL | {"backbone": "random:64x1"}
SHORT = TRAINING | {"steps": 6, "batch_size": 8, "ema": None, "checkpoint_every": 3}


def start(folder, data, *, devices, train, model=WIDE, environment=None, program=None):
    """Starts `tests.worker`, or a program, on that many virtual devices."""
    folder.mkdir(exist_ok=True)
    settings = {"data": str(data), "workdir": str(folder / "run"), "model": model, "train": train}
    file = folder / f"settings{(environment or {}).get('JAX_PROCESS_ID', '')}.json"
    file.write_text(json.dumps(settings | {"out": str(folder / "out.npz")}))
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return subprocess.Popen(
        [sys.executable, *(("-c", program) if program else ("-m", "tests.worker")), str(file)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **(environment or {}), "XLA_FLAGS": flags},
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(folder, data, **settings):
    """Starts two of them, of one device each, as one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    for number in range(2):
        environment = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number)}
        yield start(folder, data, devices=1, environment=environment, **settings)


def finish(*processes):
    try:
        errors = [process.communicate(timeout=500)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0] * len(processes), "\n".join(text[-3000:] for text in errors)


@pytest.fixture(scope="module")
def data(parts):
    return parts.train.records[0].file.parents[3]


@pytest.fixture(scope="module")
def one_device(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    finish(start(folder, data, devices=1, train=SHORT))
    return folder


def assert_equivalent(folder, reference):
    results, expected = np.load(folder / "out.npz"), np.load(reference / "out.npz")
    for row, other in zip(rows(folder / "run"), rows(reference / "run"), strict=True):
        for name in ("loss", "diffusion", "local", "global"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4)
    np.testing.assert_allclose(results["scores"], expected["scores"], rtol=1e-4)
    np.testing.assert_allclose(results["maps"], expected["maps"], rtol=1e-4, atol=1e-4 * expected["maps"].max())
    np.testing.assert_allclose(results["limits"], expected["limits"], rtol=1e-4)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 4])
def test_eight_devices_train_and_predict_like_one(data, one_device, tmp_path, fsdp):
    train = SHORT | {"fsdp": fsdp}
    finish(start(tmp_path / "eight", data, devices=8, train=train))
    results = assert_equivalent(tmp_path / "eight", one_device)
    assert results["devices"] == 8
    kernel = "denoiser/blocks/0/mlp_in/kernel"
    shards = json.loads(str(results["shards"]))
    assert results[f"array/{kernel}"].shape == (64, 256)
    assert shards[kernel] == [64, 256 // fsdp]
    assert shards["denoiser/blocks/0/mlp_in/bias"] == [256]
    # A checkpoint of eight devices is read on two.
    restored = jaxad.restore(tmp_path / "eight" / "run").detector
    for path, array in module_state.split(restored)[1].items():
        np.testing.assert_array_equal(array, results[f"array/{path}"])


@pytest.mark.slow
@pytest.mark.parametrize(("fsdp", "cache"), [(1, "memory"), (2, "disk")])
def test_two_processes_train_and_predict_like_one(data, one_device, tmp_path, fsdp, cache):
    train = SHORT | {"fsdp": fsdp, "cache": cache}
    finish(*start_two(tmp_path / "two", data, train=train))
    results = assert_equivalent(tmp_path / "two", one_device)
    assert results["devices"] == 2
    # The first decodes the first half of every batch: 8 of 14 training images in one of 16, 8 of 10 hold-out images in
    # one of 16, half of the 16 test images in two of 8.
    assert (results["decoded"], np.load(one_device / "out.npz")["decoded"]) == (8 + 8 + 8, 14 + 10 + 16)
    # As if killed before the last checkpoint: both resume from the one in the middle.
    shutil.rmtree(tmp_path / "two" / "run" / "checkpoints" / "6")
    # Training images whose features are on the disk are not decoded again.
    before = {name: results[name] for name in results.files} | {"decoded": 24 - (8 if cache == "disk" else 0)}
    finish(*start_two(tmp_path / "two", data, train=train))
    resumed = np.load(tmp_path / "two" / "out.npz")
    assert {name for name in before if not np.array_equal(resumed[name], before[name])} == set()
    assert [int(row["step"]) for row in rows(tmp_path / "two" / "run")] == list(range(1, 7))


@pytest.mark.slow
def test_two_processes_are_watched_as_one_is(data, one_device, tmp_path):
    train = SHORT | {"eval_every": 4, "eval_images": 6}
    finish(start(tmp_path / "one", data, devices=1, train=train))
    finish(*start_two(tmp_path / "two", data, train=train | {"fsdp": 2}))
    watched, expected = (np.load(folder / "out.npz") for folder in (tmp_path / "one", one_device))
    changed = {name for name in expected.files if not np.array_equal(watched[name], expected[name])}
    assert changed <= {"decoded"}
    one, two = (read_evaluations(tmp_path / name / "run", 6)["holdout"] for name in ("one", "two"))
    assert one["steps"] == two["steps"] == [0, 4, 6]
    for name, values in one["values"].items():
        assert two["values"][name] == pytest.approx(values, rel=1e-3)


@pytest.mark.slow
def test_a_process_that_nobody_joins_says_that_it_waits(data, tmp_path):
    first, second = start_two(tmp_path / "two", data, train=SHORT, program=_IMPATIENT)
    second.kill()
    assert (
        "jaxad: waiting for the other processes of this run (coordinator_address = "
        in first.communicate(timeout=400)[1]
    )
    assert first.returncode not in (0, None)
    second.communicate()


_IMPATIENT = """
from jaxad import parallel
parallel.PATIENCE, parallel.ARRIVAL = 0.1, 5
parallel.start_processes()
"""


def disturbed(folder, data, number, who):
    """Two processes of a long run, one of which gets a signal: exit statuses and what they said."""
    processes = list(start_two(folder, data, train=SHORT | {"steps": 5000, "checkpoint_every": 20}, program=_LISTENING))
    table, began = folder / "run/metrics.csv", time.monotonic()
    while not (table.is_file() and table.read_text().count("\n") > 30):
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() - began < 400
        time.sleep(0.05)
    processes[who].send_signal(number)
    # A minute after one has died the others are to be gone too.
    said = [process.communicate(timeout=60 if number == signal.SIGKILL else 400)[1] for process in processes]
    return [process.returncode for process in processes], said


_LISTENING = """
import runpy, sys
from jaxad import cli
class Command:
    run_folder, keeps = None, ""
    def run(self):
        runpy.run_module("tests.worker", run_name="__main__")
cli.parse = lambda words: Command()
cli.run = lambda command: command.run()
cli.main()
"""
"""A worker as a command: signals stop it, and errors are one line."""


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_two_processes_stop_at_the_same_step(data, tmp_path, who):
    statuses, said = disturbed(tmp_path / "two", data, signal.SIGTERM, who)
    assert statuses == [143, 143], said
    steps = sorted(int(path.name) for path in (tmp_path / "two/run/checkpoints").iterdir())
    assert steps[-1] > 30
    assert (tmp_path / "two/run/checkpoints" / str(steps[-1]) / "model").is_dir()


def assert_noticed(status, said, number):
    """A process of two has ended because the other has died, and says so.

    The first has the service by which they know of each other: where it dies, jax may be quicker, and aborts.
    """
    assert "Traceback" not in said
    if number == 1 and status == -signal.SIGABRT:
        assert "another task died" in said
        return
    assert status == 1, said
    assert f"process {number} of 2: the computation with the others failed" in said


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_of_two_processes_one_does_not_outlive_the_other_for_long(data, tmp_path, who):
    statuses, said = disturbed(tmp_path / "two", data, signal.SIGKILL, who)
    assert statuses[who] == -signal.SIGKILL, said
    assert_noticed(statuses[1 - who], said[1 - who], 1 - who)
    assert (tmp_path / "two/run/checkpoints/20/model").is_dir()


@pytest.mark.slow
def test_two_processes_remember_like_one(data, tmp_path):
    """Three references of each of two categories: each process encodes those of one."""
    small = {"clip": "random:8", "output_size": 40}
    finish(start(tmp_path / "one", data, devices=1, train=None, model=small))
    finish(*start_two(tmp_path / "two", data, train=None, model=small))
    one, two = (np.load(tmp_path / name / "out.npz") for name in ("one", "two"))
    assert (one["devices"], two["devices"]) == (1, 2)
    # Half of six references, of ten hold-out images in one batch of 16 and of 16 test images in two of 8.
    assert (one["decoded"], two["decoded"]) == (6 + 10 + 16, 3 + 8 + 8)
    banks = [name for name in one.files if "clip_banks" in name]
    assert [one[name].shape for name in banks] == [(2, 3 * 225, 8)] * 2
    for name in (*banks, "scores", "maps", "limits"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_other_devices_load_a_finished_run_and_predict_the_same(data, one_device):
    before = dict(np.load(one_device / "out.npz"))
    finish(start(one_device, data, devices=8, train=SHORT))
    after = np.load(one_device / "out.npz")
    assert after["devices"] == 8
    np.testing.assert_allclose(after["maps"], before["maps"], rtol=1e-5, atol=1e-5 * before["maps"].max())


def test_mesh_has_two_axes_and_fsdp_must_divide_the_devices():
    assert dict(parallel.make_mesh().shape) == {"data": 2, "fsdp": 1}
    assert dict(parallel.make_mesh(2).shape) == {"data": 1, "fsdp": 2}
    with pytest.raises(ConfigError, match="fsdp = 3"):
        parallel.make_mesh(3)


def test_large_arrays_are_divided_along_their_largest_even_axis():
    mesh = parallel.make_mesh(2)

    def spec(*shape):
        return parallel.parameter_sharding(jax.ShapeDtypeStruct(shape, jnp.float32), mesh).spec

    assert spec(64, 256) == PartitionSpec(None, "fsdp")
    assert spec(300, 257) == PartitionSpec("fsdp")
    assert spec(257, 255) == PartitionSpec()
    assert spec(8, 8) == PartitionSpec()
    assert parallel.parameter_sharding(np.zeros((256, 256)), parallel.make_mesh()).spec == PartitionSpec()


def test_what_is_on_a_device_already_is_not_copied():
    array = jnp.ones((64, 64)) + 1
    placed = parallel.shard_parameters({"a": array}, parallel.make_mesh())["a"]
    pointers = {shard.data.unsafe_buffer_pointer() for shard in placed.addressable_shards}
    assert len(pointers) == 2
    assert array.unsafe_buffer_pointer() in pointers


def test_shapes_are_placed_without_arrays():
    placed = parallel.shard_parameters(jax.ShapeDtypeStruct((64, 256), jnp.float32), parallel.make_mesh(2))
    assert isinstance(placed, jax.ShapeDtypeStruct)
    assert placed.sharding.spec == PartitionSpec(None, "fsdp")


def test_batches_are_divided_over_all_devices():
    mesh = parallel.make_mesh(2)
    batch = parallel.shard_batch({"x": np.arange(8.0)}, mesh)
    assert [shard.data.tolist() for shard in batch["x"].addressable_shards] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    np.testing.assert_array_equal(parallel.to_host(batch)["x"], np.arange(8.0))


def test_sharded_parameters_predict_the_same(parts, monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 1)
    model = toy_model()
    graphdef, arrays = module_state.split(model)
    sharded = module_state.merge(graphdef, parallel.shard_parameters(arrays, parallel.make_mesh(2)))
    one, two = (next(Predictor(m, batch_size=8).stream(parts.test)) for m in (model, sharded))
    np.testing.assert_allclose(one.maps, two.maps, rtol=1e-5, atol=1e-5 * one.maps.max())


def answered(monkeypatch, *texts):
    """Lets two processes, of which this is the first, tell each other these texts."""
    rows = np.stack([np.frombuffer(text.encode().ljust(parallel.TOLD, b"\0"), np.uint8) for text in texts])
    monkeypatch.setattr(parallel.jax, "process_count", lambda: 2)
    sent = []
    monkeypatch.setattr(
        parallel.multihost_utils, "process_allgather", lambda own: sent.append(own.tobytes().rstrip(b"\0")) or rows
    )
    return sent


def test_what_fails_in_one_process_is_said_by_all(monkeypatch):
    sent = answered(monkeypatch, "", "host-b: /data: no such folder")
    with pytest.raises(
        ConfigError, match=r"1 of the 2 processes .*\n  process 1 of 2 on host-b: /data: no such folder"
    ):
        parallel.in_all(lambda: 3)
    assert sent == [b""]
    # Who fails says why, in its own words.
    sent = answered(monkeypatch, "host-a: it", "host-b: it")
    with pytest.raises(ZeroDivisionError):
        parallel.in_all(lambda: 1 // 0)
    assert b"division" in sent[0]
    answered(monkeypatch, "", "")
    assert parallel.in_all(lambda: 3) == 3


def test_a_long_text_is_told_as_far_as_there_is_room(monkeypatch):
    sent = answered(monkeypatch, "", "ö" * (parallel.TOLD // 2))
    assert parallel.every("x" * 5000) == ("", "ö" * (parallel.TOLD // 2))
    assert sent == [b"x" * parallel.TOLD]


def test_processes_with_other_images_are_told(monkeypatch):
    monkeypatch.setattr(parallel, "every", lambda own: (own, own, "f00"))
    with pytest.raises(ConfigError, match="the images of process 2 are others than those of process 0"):
        parallel.check_same("mine", "the images")
    monkeypatch.setattr(parallel, "every", lambda own: (own, own))
    parallel.check_same("mine", "the images")


def test_a_single_host_joins_nobody(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    parallel.start_processes()
    assert not jax.distributed.is_initialized()
