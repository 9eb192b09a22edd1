"""Starts compiled programs on batches of images."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.io.threads import cpus

Pending = Callable[[], Any]
"""Waits for a result and gives it as numpy arrays."""
LARGE = 1_000_000_000
"""Bytes of a detector's arrays from which on a CPU runs one program at a time: the activations of such networks, which
take gigabytes, are held once."""


class Launcher:
    """Starts programs whose inputs and results are [b ...], and does not wait for them.

    A single CPU of several cores gets either half of a batch from a thread of its own: operations of one thread run one
    after the other, and at the end of each all cores but the last to be done would wait. What cannot be halved, as one
    image, comes from the two threads in turn. `LARGE` networks have one thread. Several threads may use one launcher.
    Context managers of jax that the caller has entered do not hold in the other thread.

    Args:
        mesh: the devices.
        batch_size: images of a batch, a multiple of the number of devices.
        size: bytes of the detector's arrays.
    """

    def __init__(self, mesh: Mesh, batch_size: int, size: int):
        one_cpu = mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
        self._mesh, self._one_cpu, self._two_threads = mesh, one_cpu, one_cpu and cpus() > 1 and size < LARGE
        self._half = batch_size // 2 if self._two_threads and batch_size % 2 == 0 else None
        self._others_turn = False
        # Several devices must get the programs of several threads in one order; and each is compiled once.
        self._lock = threading.Lock()

    def __call__(self, program: Callable[..., Any], arrays: Any, *inputs: Any) -> Pending:
        """Starts a program.

        Args:
            program: compiled by `jax.jit`.
            arrays: its first argument, on the devices already.
            inputs: the others, pytrees of arrays [b ...].

        Returns:
            What waits for the result, and raises what the program or the device does.
        """
        if self._half is None:
            others_turn, self._others_turn = self._others_turn, self._two_threads and not self._others_turn
            if others_turn:
                later = _other_thread().submit(self.whole, program, arrays, *inputs)
                return lambda: parallel.to_host(later.result())
            result = self.whole(program, arrays, *inputs)
            return lambda: parallel.to_host(result)
        first, second = (_rows(inputs, part) for part in (slice(self._half), slice(self._half, None)))
        begun = self.whole(program, arrays, *first)
        other = _other_thread().submit(self.whole, program, arrays, *second)

        def joined() -> Any:
            halves = parallel.to_host(begun), parallel.to_host(other.result())
            return jax.tree.map(lambda *arrays: np.concatenate(arrays), *halves)

        return joined

    def whole(self, program: Callable[..., Any], arrays: Any, *inputs: Any) -> Any:
        """The same for all that is given at once; the result is on the devices."""
        with self._lock:
            # The one CPU takes arrays of the host as they are, which for one image spares a hundredth of the time.
            return program(arrays, *(inputs if self._one_cpu else parallel.shard_batch(inputs, self._mesh)))


def _rows(inputs: Any, part: slice) -> Any:
    return jax.tree.map(lambda array: array[part], inputs)


@cache
def _other_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "jaxad-half")
