"""What the forward pass of every pretrained network costs at its published size, with random weights."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.bench import benchmarks
from jaxad.bench._topologies import CHIPS
from jaxad.errors import ConfigError
from jaxad.models.catalog import Network, networks
from jaxad.nn import module_state
from jaxad.types import Array

PUBLISHED_PEAKS = {r"H100 PCIe": 756e12, r"A100\b": 312e12, r"L4$": 121e12}
"""Dense bfloat16 operations per second from the makers' data sheets, of devices that are none of `CHIPS`, by a pattern
of their names, which has to tell variants apart: an L40S is no L4."""


def models_benchmark(
    names: Sequence[str] | None = None,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    batch: int = 1,
    repeats: int = 3,
) -> Iterator[dict[str, Any]]:
    """Times compiled forward passes, one network after the other.

    Args:
        names: of the networks, as `jaxad models` lists them; None for all.
        dtype: compute type; parameters are kept in it too.
        batch: images, or texts, at once.
        repeats: timed runs after the first; the fastest counts.

    Yields:
        For each network `name`, `parameters`, `input` (size of an image or length of a text), `seconds` of a batch,
        `per_second` (images or texts), `gflop` of one image, `share` of the peak, which is that of the device's data
        sheet where it is known (`peak_from` says so), else the rate of a large matrix product measured here.

    Raises:
        ConfigError: a name that is not in the list.
    """
    chosen = select(names)
    peak, peak_from = peak_rate(jnp.dtype(dtype))
    for network in chosen:
        run, flops = compiled_forward(network, jnp.dtype(dtype), batch)
        seconds = fastest(run, repeats)
        yield {
            "name": network.name,
            "parameters": network.parameters,
            "input": list(network.inputs[0].shape[1:3]),
            "dtype": dtype,
            "batch": batch,
            "seconds": seconds,
            "per_second": batch / seconds,
            "gflop": flops / batch / 1e9,
            "share": flops / seconds / peak,
            "peak_from": peak_from,
            "device": jax.devices()[0].device_kind,
        }


def select(names: Sequence[str] | None) -> list[Network]:
    """The networks of these names, all for None.

    Raises:
        ConfigError: names that are not in the list.
    """
    known = {network.name: network for network in networks()}
    if strangers := [name for name in names or () if name not in known]:
        raise ConfigError(f"no networks {strangers}; `jaxad models` lists them: {', '.join(known)}")
    return [known[name] for name in (known if names is None else names)]


def compiled_forward(network: Network, dtype: Any, batch: int) -> tuple[Callable[[], Any], float]:
    """A compiled forward pass with random weights and inputs, which waits for its end, and its operations."""
    graphdef, shapes = module_state.split(network.abstract(dtype))
    noise = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
    arrays = {path: jnp.asarray(draw(path, leaf.shape, noise), dtype) for path, leaf in shapes.items()}
    inputs = [_input(leaf, batch, noise) for leaf in network.inputs]

    def forward(arrays: dict[str, Array], *inputs: Array) -> Any:
        return network.forward(module_state.merge(graphdef, arrays), *inputs)

    traced = jax.jit(forward).trace(arrays, *inputs)
    compiled = traced.lower().compile()
    return lambda: jax.block_until_ready(compiled(arrays, *inputs)), counted_operations(traced)


def counted_operations(traced: jax.stages.Traced) -> float:
    """Operations of a program by the compiler's account, which counts the body of a loop once.

    It is that of the program for a platform without kernels of its own: attention has no loop there, and hides nothing.
    """
    costs: Any = traced.lower(lowering_platforms=("rocm",)).cost_analysis()
    return float(costs["flops"])


def fastest(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_rate(dtype: Any) -> tuple[float, str]:
    """Operations per second that the device can reach, and where that is known from."""
    kind = jax.devices()[0].device_kind
    published = published_peak(kind)
    if published is not None and dtype == jnp.bfloat16:
        return published, f"data sheet of {kind}"
    side = 2048 if jax.devices()[0].platform == "cpu" else 8192
    matrix = jnp.asarray(np.random.default_rng(0).standard_normal((side, side)), dtype)
    product = jax.jit(lambda a: a @ a)
    return 2 * side**3 / fastest(lambda: product(matrix).block_until_ready(), 5), f"matrix product of side {side}"


def published_peak(kind: str) -> float | None:
    """Dense bfloat16 operations per second of a device of that name, None where no data sheet is known."""
    planned = {rf"{re.escape(chip.name)}$": 1e12 * chip.peak_tflops for chip in CHIPS.values()}
    known = {**planned, **PUBLISHED_PEAKS}
    return next((rate for name, rate in known.items() if re.search(rf"\b{name}", kind)), None)


def main(
    networks: tuple[str, ...] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    batch_size: int = 1,
) -> None:
    """Time the forward pass of every pretrained network at its published size, with random weights.

    Args:
        networks: Only these, named as `jaxad models` names them; all if not given.
        dtype: Compute type; parameters are kept in it too.
        batch_size: Images, or texts, at once.

    Raises:
        ConfigError: a network that is not in the list, or a batch without images.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: must be at least 1")
    for row in models_benchmark(networks, dtype=dtype, batch=batch_size):
        print(json.dumps(row), flush=True)


benchmarks.register("models", main)


def draw(path: str, shape: tuple[int, ...], noise: np.ndarray) -> np.ndarray:
    """Values that keep activations near unit size: a published size takes too long to draw one by one."""
    values = np.resize(noise, shape)
    if path.endswith(("/scale", "/gain", "/var")):
        return 1 + 0.01 * np.abs(values)
    fan_in = float(np.prod(shape[:-1])) if len(shape) > 1 else 1e4
    return values * fan_in**-0.5


def _input(leaf: jax.ShapeDtypeStruct, batch: int, noise: np.ndarray) -> jax.Array:
    shape = (batch, *leaf.shape[1:])
    if leaf.dtype == jnp.int32:
        return jnp.full(shape, 401, jnp.int32)
    return jnp.asarray(np.resize(noise, shape), leaf.dtype)
