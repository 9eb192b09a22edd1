"""One mesh for every machine: axes `data` and `fsdp`, the same program on 1 CPU or many hosts."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxad.errors import ConfigError, JaxadError, MachineError, TrainingError
from jaxad.io.foreign import explained, is_out_of_memory
from jaxad.io.launchers import ADDRESS, AUTO, processes_of

P = ParamSpec("P")
R = TypeVar("R")

SMALLEST_SHARDED = 2**14
"""Arrays with fewer elements are replicated: sharding them costs more than it saves."""
TOLD = 2000
"""Bytes of text that a process tells the others at once."""


class LostProcessError(TrainingError):
    """Another process of a run on several hosts has died; what waits for it would wait for long."""

    abrupt = True


class FullDeviceError(MachineError):
    """A device of this process has too little memory; what the others compute with it would wait for long."""

    abrupt = True


@contextmanager
def with_others() -> Iterator[None]:
    """Computations that all processes take part in; also a decorator.

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


SILENCE = 40
"""Seconds after which a process that is not heard of counts as dead."""
ARRIVAL = 300
"""Seconds that processes wait for each other at the start."""
PATIENCE = 20
"""Seconds after which one says that it waits."""


def start_processes() -> None:
    """Joins the other processes of a multi-host run; does nothing on a single host.

    A run is multi-host where Slurm, Open MPI or the runtime of a TPU pod says so, or the three variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are set; the first alone says where the first process
    is, or `auto`, where jax knows. Call before any other use of jax.

    Raises:
        ConfigError: some of these variables are missing, or are no numbers.
        LostProcessError: the others do not come.
    """
    if jax.distributed.is_initialized() or (given := processes_of(os.environ)) is None:
        return
    if os.environ.get(ADDRESS) == AUTO:
        # jax would take the word for an address.
        del os.environ[ADDRESS]
    known = ", ".join(f"{name} = {value}" for name, value in given.items()) or "as jax finds them by itself"
    advice = "start as many as are said, on machines that reach the first one's port"
    # Where some never come jax says nothing of that, and aborts.
    waits = f"waiting for the other processes of this run ({known}), up to {ARRIVAL} s; {advice}"
    patience = threading.Timer(PATIENCE, lambda: print(f"jaxad: {waits}", file=sys.stderr, flush=True))
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(**given, initialization_timeout=ARRIVAL, heartbeat_timeout_seconds=SILENCE)
    except (RuntimeError, ValueError) as error:
        cause = str(error).partition("\n")[0][:200]
        raise LostProcessError(
            f"the processes of this run did not find each other ({known}): {cause}; {advice}"
        ) from error
    finally:
        patience.cancel()


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


@with_others()
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


@with_others()
def wait_for_others(where: str) -> None:
    """Returns when every process has come here; `where` is the same name in all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


@with_others()
def all_agree(holds: bool) -> bool:
    """Whether something holds in every process, so that all of them do the same; all of them must call it."""
    return holds if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(holds)).all())


@with_others()
def every(text: str) -> tuple[str, ...]:
    """A text of each process, in the order of their numbers; all of them must call it.

    Args:
        text: this process's, of which 2,000 bytes are kept.
    """
    if jax.process_count() == 1:
        return (text,)
    own = np.frombuffer(text.encode()[:TOLD].ljust(TOLD, b"\0"), np.uint8)
    return tuple(row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in multihost_utils.process_allgather(own))


def in_all(do: Callable[[], R]) -> R:
    """Runs what may fail in one process alone, such as reading what lies on its machine; all of them must call it.

    Args:
        do: what to run, without the others.

    Returns:
        What `do` returns.

    Raises:
        Exception: what `do` raised here.
        ConfigError: it has failed elsewhere, and why, so that all end at once.
    """
    if jax.process_count() == 1:
        return do()
    result, failed = None, None
    try:
        result = do()
    except Exception as error:
        failed = error
    said = every("" if failed is None else f"{platform.node()}: {failed}")
    if failed is not None:
        raise failed
    if elsewhere := [f"process {number} of {len(said)} on {text}" for number, text in enumerate(said) if text]:
        raise ConfigError("\n  ".join([f"{len(elsewhere)} of the {len(said)} processes cannot go on:", *elsewhere]))
    return result  # type: ignore[return-value]


def check_same(identity: str, what: str) -> None:
    """Raises ConfigError in all processes unless this is the same in all of them; all of them must call it.

    Args:
        identity: this process's.
        what: is identified, in the plural.
    """
    hashes = every(hashlib.sha256(identity.encode()).hexdigest())
    if others := [str(number) for number, one in enumerate(hashes) if one != hashes[0]]:
        raise ConfigError(
            f"{what} of process {', '.join(others)} are others than those of process 0; give all machines the same"
        )


def is_one_of_several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def end_alone() -> NoReturn:
    """Ends this process, one of several, with status 1 and without waiting for the others, who thereby notice."""
    if is_main_process():
        # They lose their connection with it, and may be about to say what they have found themselves.
        time.sleep(2)
    os._exit(1)


@with_others()
def least(value: int) -> int:
    """The least of all processes' values, in every process; below 2**31.

    Args:
        value: this process's.
    """
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).min())


@with_others()
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
