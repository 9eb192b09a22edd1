"""One optimizer step of a detector: jitted over the mesh, with donated state."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.config import TrainConfig
from jaxad.detector import Detector
from jaxad.features import abstract_features
from jaxad.nn import module_state
from jaxad.nn.loops import in_order, in_parts
from jaxad.nn.precision import with_rounded_parameters
from jaxad.nn.variables import Frozen
from jaxad.training.micro_batch import UNTOLD
from jaxad.training.optimizer import make_optimizer


@struct.dataclass
class TrainState:
    """All that changes from step to step.

    Attributes:
        params: trained arrays by path.
        opt_state: of the optimizer.
        ema: moving average of `params`, or None.
        step: int32, optimizer steps done.
    """

    params: dict[str, jax.Array]
    opt_state: Any
    ema: dict[str, jax.Array] | None
    step: jax.Array


class DetectorTrainer:
    """Trains the unfrozen parameters of a detector on cached features.

    Puts on the devices what `loss` reads, and nothing else. For `trace` a detector without arrays
    (`Detector.abstract`) will do.
    """

    def __init__(self, detector: Detector, config: TrainConfig, mesh: Mesh):
        self._config, self._mesh = config, mesh
        self._optimizer, self.learning_rate = make_optimizer(config)
        self._graphdef, self._frozen, self._first, self._fixed = module_state.split(detector, Frozen, nnx.Param, ...)
        self._read = parallel.shard_parameters(with_rounded_parameters(detector, self._fixed), mesh)
        # Left to the compiler, the state would come out of a step in another layout than it went in.
        self.abstract_state = parallel.shard_parameters(jax.eval_shape(self._first_state, self._first), mesh)
        self._sharding = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        outputs = (self._sharding, parallel.replicated(mesh))
        self._step = jax.jit(parallel.on_mesh(self._widened_step, mesh), donate_argnums=0, out_shardings=outputs)
        self._loss = jax.jit(parallel.on_mesh(self._evaluated_loss, mesh), out_shardings=parallel.replicated(mesh))

    def init(self) -> TrainState:
        """State before the first step, on the mesh."""
        # Steps donate the state: placed from the device, it would share memory with the detector.
        params = parallel.shard_parameters(parallel.to_host(self._first), self._mesh)
        return jax.jit(self._first_state, donate_argnums=0, out_shardings=self._sharding)(params)

    def step(self, state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Mapping[str, jax.Array]]:
        """One step, which donates `state`.

        Args:
            state: as after the step before.
            batch: Features of host arrays, equal in every process, or on the devices already; float16 is widened there.
            key: of the step.
        """
        return self._step(state, self._read, parallel.shard_batch(batch, self._mesh), key)

    def loss(self, state: TrainState, batch: Any, key: jax.Array) -> jax.Array:
        """The loss of a batch with the parameters to evaluate, a scalar left on the devices; trains nothing.

        Args:
            state, batch, key: as of `step`; the state stays as it is.
        """
        params = state.params if state.ema is None else state.ema
        return self._loss(params, self._read, parallel.shard_batch(batch, self._mesh), key, state.step)

    def trace(self, batch: Any) -> jax.stages.Traced:
        """The step for a batch of such shapes, not yet compiled: for accounts of what it takes, and runs nothing."""
        batch = parallel.shard_batch(batch, self._mesh)
        return self._step.trace(self.abstract_state, self._read, batch, jax.random.key(0))

    def bytes(self, batch: Any) -> int:
        """Bytes that the step for a batch of such shapes takes of each device, as `planned_bytes` has them."""
        return planned_bytes(self.trace(batch))

    def detector(self, state: TrainState) -> Detector:
        """The detector with the parameters to evaluate: the moving average where there is one.

        All that is not trained is where it is in the detector given.
        """
        params = state.params if state.ema is None else state.ema
        trained: Detector = module_state.merge(self._graphdef, {**self._frozen, **self._fixed, **params})
        return trained

    def _first_state(self, params: Mapping[str, jax.Array]) -> TrainState:
        ema = {path: jnp.copy(array) for path, array in params.items()} if self._config.ema else None
        return TrainState(dict(params), self._optimizer.init(params), ema, jnp.int32(0))

    def _widened_step(self, state: TrainState, fixed: Mapping[str, jax.Array], batch: Any, key: jax.Array):
        """The step on features as they are kept: half of what float32 takes on its way to the devices."""
        half = jnp.float16
        batch = jax.tree.map(lambda array: array.astype(jnp.float32) if array.dtype == half else array, batch)
        return self._compiled_step(state, fixed, batch, key)

    def _evaluated_loss(self, params: Any, fixed: Mapping[str, jax.Array], batch: Any, key: jax.Array, step: jax.Array):
        return self._loss_at(params, fixed, batch, key, step)[0]

    def _loss_at(self, params: Any, fixed: Mapping[str, jax.Array], batch: Any, key: jax.Array, step: jax.Array):
        # The loss sees features, never images: what makes them stays out of the step.
        absent = {path: jnp.zeros((0,), jnp.float32) for path in self._frozen}
        return module_state.merge(self._graphdef, {**absent, **fixed, **params}).loss_at(batch, key, step)

    def _compiled_step(self, state: TrainState, fixed: Mapping[str, jax.Array], batch: Any, key: jax.Array):
        def loss(params, batch, key):
            return self._loss_at(params, fixed, batch, key, state.step)

        differentiate = jax.value_and_grad(loss, has_aux=True)
        if self._config.accumulate > 1:
            differentiate = partial(accumulated, differentiate, self._config.accumulate)
        (total, terms), gradients = differentiate(state.params, batch, key)
        updates, opt_state = self._optimizer.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        ema: Any = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1 - (self._config.ema or 0))
        metrics = {"loss": total, **terms, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(params, opt_state, ema, state.step + 1), metrics


def planned_bytes(traced: jax.stages.Traced) -> int:
    """Bytes that a program takes of each device, by the plan of its compiler.

    Returns:
        What the compiler says, also where it refuses the program as too large; `UNTOLD` where it does not say then.

    Raises:
        JaxRuntimeError: the program cannot be compiled for another reason.
    """
    try:
        stats: Any = traced.lower().compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        # A TPU's compiler refuses a program that is too large.
        if (needed := bytes_refused(error)) is None:
            raise
        return needed
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return stats.argument_size_in_bytes + stats.temp_size_in_bytes + results


def bytes_refused(error: Exception) -> int | None:
    """What a program would take by the words of a compiler that found it too large; `UNTOLD` where it does not say.

    None of other errors.
    """
    text = str(error)
    if not text.startswith("RESOURCE_EXHAUSTED"):
        return None
    used = re.search(r"Used ([\d.]+)([KMGT]) of", text)
    return int(float(used[1]) * 2 ** (10 * (1 + "KMGT".index(used[2])))) if used else UNTOLD


def step_bytes(detector: Detector, config: TrainConfig, mesh: Mesh) -> int:
    """Bytes that a step takes of each device, by the plan of the compiled program; places and runs nothing.

    Args:
        detector: to be trained, with or without arrays.
        config: whose `batch_size` is held at once.
        mesh: devices.

    Returns:
        As `DetectorTrainer.bytes`.
    """
    batch = abstract_features(detector, config.batch_size * config.accumulate)
    trainer = DetectorTrainer(module_state.without_arrays(detector), config, mesh)
    return trainer.bytes(batch)


def accumulated(differentiate: Callable[..., Any], parts: int, params: Any, batch: Any, key: jax.Array) -> Any:
    """Mean of `differentiate(params, batch, key)` over `parts` equal parts of the batch, one of which is held.

    Args:
        differentiate: (params, rows [b/parts ...], key) -> a pytree of arrays, such as losses and gradients.
        parts: how many; times the number of devices they divide the rows.
        params: what all parts are given, a pytree of arrays.
        batch: a pytree of rows [b ...], divided as by `jaxad.nn.loops.in_parts`.
        key: of which each part gets one of its own.

    Returns:
        The pytree of means.
    """
    divided = in_parts(batch, parts)
    keys = jax.random.split(key, parts)
    first = jax.tree.map(lambda a: a[0], divided)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(differentiate, params, first, keys[0]))

    def add(total: Any, inputs: Any) -> tuple[Any, None]:
        # Parameters that hang on what changes, in the order of their axes in memory: else the compiler rounds and
        # transposes all kernels before the loop, and keeps these copies beside them until its end.
        held, inputs = jax.lax.optimization_barrier((params, inputs))
        held = jax.tree.map(in_order, held)
        return jax.tree.map(jnp.add, total, differentiate(held, *inputs)), None

    total, _ = jax.lax.scan(add, zeros, (divided, keys))
    return jax.tree.map(lambda a: a / parts, total)
