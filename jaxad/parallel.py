"""One mesh for every machine: axes `data` and `fsdp`, the same program on 1 CPU or many hosts."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxad.errors import ConfigError, JaxadError, MachineError, TrainingError
from jaxad.io.foreign import explained, is_out_of_memory

P = ParamSpec("P")
R = TypeVar("R")

SMALLEST_SHARDED = 2**14
"""Arrays with fewer elements are replicated: sharding them costs more than it saves."""


_NUMBERS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def start_processes() -> None:
    """Joins the other processes of a multi-host run; does nothing on a single host.

    A run is multi-host where a cluster environment is found (TPU pods, Slurm, Open MPI: see jax.distributed) or where
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are set. Call before any other use of jax.

    Raises:
        ConfigError: some of these variables are missing, or are no numbers.
    """
    if jax.distributed.is_initialized():
        return
    given = {name: os.environ[name] for name in ("JAX_COORDINATOR_ADDRESS", *_NUMBERS) if name in os.environ}
    if given:
        problems = [f"{name}: missing" for name in ("JAX_COORDINATOR_ADDRESS", *_NUMBERS) if name not in given]
        problems += [
            f"{name} = {given[name]}: must be a number" for name in _NUMBERS if not given.get(name, "0").isdecimal()
        ]
        if problems:
            known = ", ".join(f"{name}={value}" for name, value in given.items())
            raise ConfigError("\n  ".join([f"environment of a run on several hosts ({known}):", *problems]))
        address, processes, number = given.values()
        jax.distributed.initialize(address, num_processes=int(processes), process_id=int(number))
    elif {"TPU_WORKER_HOSTNAMES", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"} & os.environ.keys():
        several = ("," in os.environ.get("TPU_WORKER_HOSTNAMES", "")) or any(
            int(os.environ.get(name, "1")) > 1 for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
        )
        if several:
            jax.distributed.initialize()


def make_mesh(fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh over devices, `fsdp` of them sharding parameters and the rest data-parallel.

    Args:
        fsdp: how many share the parameters.
        devices: the devices; None for all of all processes.

    Raises:
        ConfigError: `fsdp` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % fsdp:
        raise ConfigError(f"fsdp = {fsdp}: must divide the number of devices, {len(devices)}")
    auto = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((len(devices) // fsdp, fsdp), ("data", "fsdp"), axis_types=auto, devices=devices)


def on_mesh(function: Callable[P, R], mesh: Mesh) -> Callable[P, R]:
    """A function, to be compiled for `mesh`, whose layers may ask for it by `jax.sharding.get_abstract_mesh`.

    Hand-written kernels have to: the compiler divides all else over the devices by itself.
    """

    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return traced


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of the leading axis of a batch over every device."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def parameter_sharding(array: Any, mesh: Mesh) -> NamedSharding:
    """Shards the largest axis that `fsdp` divides; small arrays are replicated.

    Depends on the shape alone, so that optimizer state lies where its parameter lies.
    """
    ways = mesh.shape["fsdp"]
    shape = np.shape(array)
    if ways > 1 and np.prod(shape) >= SMALLEST_SHARDED:
        for axis in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
            if shape[axis] % ways == 0:
                return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "fsdp"))
    return replicated(mesh)


def parameter_shardings(arrays: Any, mesh: Mesh) -> Any:
    """`parameter_sharding` of every array of a pytree."""
    return jax.tree.map(lambda array: parameter_sharding(array, mesh), arrays)


def shard_parameters(arrays: Any, mesh: Mesh) -> Any:
    """Places a pytree of parameters or optimizer state on the mesh, each process holding the same values.

    What is where it belongs already is shared, not copied. Of a `jax.ShapeDtypeStruct` the sharding is noted alone.
    """
    return jax.tree.map(_place, arrays, parameter_shardings(arrays, mesh))


def local_rows(batch_size: int, mesh: Mesh) -> tuple[int, ...] | None:
    """Rows of a batch that lie on this process's devices, so that it need not read the others; None for all."""
    if jax.process_count() == 1:
        return None
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return tuple(sorted({row for index in slices if index for row in range(*index[0].indices(batch_size))}))


def shard_batch(arrays: Any, mesh: Mesh) -> Any:
    """Places a pytree of host arrays [b ...] with b divided over the devices.

    Every process gives all rows, but only its own (`local_rows`) are read.
    """
    return jax.tree.map(lambda array: _place(array, batch_sharding(mesh)), arrays)


def check_batch_size(batch_size: int, mesh: Mesh, name: str = "batch_size") -> None:
    """Raises ConfigError, about the setting `name`, unless the batch divides evenly over the devices."""
    if batch_size % mesh.size:
        raise ConfigError(f"{name} = {batch_size}: must be a multiple of the number of devices, {mesh.size}")


def to_host(arrays: Any) -> Any:
    """A pytree of device arrays as numpy arrays in every process, gathered where they are spread over several."""
    if jax.process_count() == 1:
        return jax.device_get(arrays)

    def gathered(array: Any) -> Any:
        return np.asarray(array) if _is_local(array) else multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(gathered, arrays)


def local(arrays: Any) -> Any:
    """A pytree whose arrays that lie in this process alone are numpy arrays: Orbax takes other jax arrays as global."""
    if jax.process_count() == 1:
        return arrays
    return jax.tree.map(lambda array: np.asarray(array) if _is_local(array) else array, arrays)


def wait_for_others(where: str) -> None:
    """Returns when every process has come here; `where` is the same name in all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def all_agree(holds: bool) -> bool:
    """Whether something holds in every process, so that all of them do the same; all of them must call it."""
    return holds if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(holds)).all())


def least(value: int) -> int:
    """The least of all processes' values, in every process; below 2**31.

    Args:
        value: this process's.
    """
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).min())


def from_main(value: int) -> int:
    """The main process's value, in every process; all of them must call it."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def by_main(do: Callable[[], object], elsewhere: JaxadError) -> None:
    """Runs what may fail in the main process; all must call it, and wait until it is done or has failed.

    Args:
        do: what to run.
        elsewhere: what the other processes raise where it fails, so that none of them goes on or waits for it.

    Raises:
        Exception: in the main process, whatever `do` raised.
    """
    failed: Exception | None = None
    if is_main_process():
        try:
            do()
        except Exception as error:
            failed = error
    if not from_main(failed is None):
        raise failed or elsewhere


class LostProcessError(TrainingError):
    """Another process of a run on several hosts has died; what waits for it would wait for long."""

    abrupt = True


class FullDeviceError(MachineError):
    """A device of this process has too little memory; what the others compute with it would wait for long."""

    abrupt = True


@contextmanager
def with_others() -> Iterator[None]:
    """Computations that all processes take part in.

    Raises:
        FullDeviceError: a device has too little memory, where there are several processes.
        LostProcessError: in place of any other error of jax's, or of waiting in vain, where there are several.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, TimeoutError) as error:
        # The system's own errors of that class have a number: a network drive does not answer.
        if jax.process_count() == 1 or (isinstance(error, TimeoutError) and error.errno is not None):
            raise
        if is_out_of_memory(error):
            raise FullDeviceError(explained(error)) from error
        cause = str(error).partition("\n")[0][:200]
        raise LostProcessError(
            f"process {jax.process_index()} of {jax.process_count()}: the computation with the others failed, as it "
            f"does where one of them has died ({cause}); start all of them again to go on from the last checkpoint"
        ) from error


def agreed_stop(step: int, asked: int | None) -> int | None:
    """The signal at which all processes stop after this step, None to go on; called by all after the same steps.

    With several processes jax's preemption service agrees on the step. It hears of SIGTERM alone, which it takes from
    Python's handlers, and tells the others.

    Args:
        step: steps done.
        asked: number of the signal that this process has noticed (`jaxad.io.signals.asked`).
    """
    if jax.process_count() == 1:
        return asked
    try:
        stops = multihost_utils.reached_preemption_sync_point(step)
    except RuntimeError:
        # The service is switched off; nobody else can be told.
        return None
    if asked is not None and not stops:
        _tell_others()
    return (asked or int(signal.SIGTERM)) if stops else None


@functools.cache
def _tell_others() -> None:
    # Once: the steps until all stop may be many, and to whoever listens a second signal means to end at once.
    os.kill(os.getpid(), signal.SIGTERM)


def _is_local(array: Any) -> bool:
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def _place(array: Any, sharding: NamedSharding) -> Any:
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
    if jax.process_count() == 1 or not _is_local(array):
        return jax.device_put(array, sharding)
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return jax.process_index() == 0


def describe(mesh: Mesh) -> Mapping[str, Any]:
    """Devices and their division, for reports."""
    return {"device": jax.devices()[0].device_kind, "devices": mesh.size, **dict(mesh.shape)}
