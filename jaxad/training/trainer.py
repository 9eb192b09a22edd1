"""Training: one jitted step with donated state over the mesh, on features computed once; resumes exactly.

`fit` is for detectors; what else trains has its own, on the same loop (`jaxad.training.loop`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh
from optax import contrib

from jaxad import parallel
from jaxad.config import TrainConfig, to_json
from jaxad.data.sampling import TrainingOrder
from jaxad.detector import Detector, Remembers, Trainable
from jaxad.errors import DataError
from jaxad.features import Encoder, FeatureCache, LiveFeatures, cache_identity, extras_of
from jaxad.inference.calibrate import choose_threshold
from jaxad.inference.checkpoint import CheckpointWriter, restore
from jaxad.inference.threshold import Threshold
from jaxad.io.progress import Reporter
from jaxad.io.signals import held
from jaxad.nn import module_state
from jaxad.nn.variables import Fixed, Frozen
from jaxad.training.log import summary_writer
from jaxad.training.loop import run_steps
from jaxad.training.run_folder import Place, claim, content_hash, in_use, require_room_for_steps
from jaxad.training.stable_adamw import stable_adamw
from jaxad.types import Source

MUON_RATE = 10
"""Learning rate of what Muon trains, matrices, over that of all else, which Adam does."""


@dataclass(frozen=True)
class Run:
    """What `fit` leaves: the model with the parameters to evaluate, its threshold, and where all is kept."""

    model: Detector
    threshold: Threshold | None
    workdir: Path
    seconds: float
    images_per_second: float | None


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


def make_optimizer(config: TrainConfig) -> tuple[optax.GradientTransformation, Callable[[Any], Any]]:
    """The optimizer as configured, and its learning rate as a function of the step."""
    decay_steps = max(config.steps - config.warmup_steps, 1)
    after = {
        "constant": optax.constant_schedule(config.learning_rate),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, decay_steps, config.final_rate),
    }[config.schedule]
    warmup = optax.linear_schedule(0.0, config.learning_rate, max(config.warmup_steps, 1))
    rate = optax.join_schedules([warmup, after], [config.warmup_steps])
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, _optimizer(config, rate)), rate


def _optimizer(config: TrainConfig, rate: Callable[[Any], Any]) -> optax.GradientTransformation:
    decay = config.weight_decay
    if config.optimizer == "stable-adamw":
        return stable_adamw(rate, weight_decay=decay)
    if config.optimizer == "muon":
        return contrib.muon(
            lambda step: MUON_RATE * rate(step),
            weight_decay=decay / MUON_RATE,
            adam_learning_rate=rate,
            adam_weight_decay=decay,
        )
    return optax.adamw(rate, weight_decay=decay) if decay else optax.adam(rate)


class DetectorTrainer:
    """Trains the unfrozen parameters of a detector on cached features.

    Puts on the devices what `loss` reads, and nothing else. For `trace` a detector without arrays
    (`Detector.abstract`) will do.
    """

    def __init__(self, detector: Detector, config: TrainConfig, mesh: Mesh):
        self._config, self._mesh = config, mesh
        self._optimizer, self.learning_rate = make_optimizer(config)
        self._graphdef, self._frozen, self._first, fixed = module_state.split(detector, Frozen, nnx.Param, ...)
        self._fixed = parallel.shard_parameters(fixed, mesh)
        # Left to the compiler, the state would come out of a step in another layout than it went in.
        self.abstract_state = parallel.shard_parameters(jax.eval_shape(self._first_state, self._first), mesh)
        self._sharding = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        outputs = (self._sharding, parallel.replicated(mesh))
        self._step = jax.jit(parallel.on_mesh(self._compiled_step, mesh), donate_argnums=0, out_shardings=outputs)

    def init(self) -> TrainState:
        """State before the first step, on the mesh."""
        # Steps donate the state: placed from the device, it would share memory with the detector.
        params = parallel.shard_parameters(parallel.to_host(self._first), self._mesh)
        return jax.jit(self._first_state, donate_argnums=0, out_shardings=self._sharding)(params)

    def step(self, state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Mapping[str, jax.Array]]:
        """`batch`: Features of host arrays, equal in every process. Donates `state`."""
        return self._step(state, self._fixed, parallel.shard_batch(batch, self._mesh), key)

    def trace(self, batch: Any) -> jax.stages.Traced:
        """The step for a batch of such shapes, not yet compiled: for accounts of what it takes, and runs nothing."""
        batch = parallel.shard_batch(batch, self._mesh)
        return self._step.trace(self.abstract_state, self._fixed, batch, jax.random.key(0))

    def detector(self, state: TrainState) -> Detector:
        """The detector with the parameters to evaluate: the moving average where there is one.

        Its frozen networks are where those of the detector given are, and all else on the mesh.
        """
        params = state.params if state.ema is None else state.ema
        trained: Detector = module_state.merge(self._graphdef, {**self._frozen, **self._fixed, **params})
        return trained

    def _first_state(self, params: Mapping[str, jax.Array]) -> TrainState:
        ema = {path: jnp.copy(array) for path, array in params.items()} if self._config.ema else None
        return TrainState(dict(params), self._optimizer.init(params), ema, jnp.int32(0))

    def _compiled_step(self, state: TrainState, fixed: Mapping[str, jax.Array], batch: Any, key: jax.Array):
        # The loss sees features, never images: what makes them stays out of the step.
        absent = {path: jnp.zeros((0,), jnp.float32) for path in self._frozen}

        def loss(params, batch, key):
            return module_state.merge(self._graphdef, {**absent, **fixed, **params}).loss_at(batch, key, state.step)

        differentiate = partial(jax.value_and_grad(loss, has_aux=True), state.params)
        if self._config.accumulate > 1:
            differentiate = partial(accumulated, differentiate, self._config.accumulate)
        (total, terms), gradients = differentiate(batch, key)
        updates, opt_state = self._optimizer.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        ema: Any = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1 - (self._config.ema or 0))
        metrics = {"loss": total, **terms, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(params, opt_state, ema, state.step + 1), metrics


def accumulated(differentiate: Callable[..., Any], parts: int, batch: Any, key: jax.Array) -> Any:
    """Mean of `differentiate(batch, key)` over `parts` equal parts of the batch, of which one at a time is held.

    Part i takes every `parts`-th image from i on, so that each stays divided over the devices as the batch was.
    """
    divided = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, parts, *a.shape[1:]), 1, 0), batch)
    keys = jax.random.split(key, parts)
    first = jax.tree.map(lambda a: a[0], divided)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(differentiate, first, keys[0]))

    def add(total: Any, inputs: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, differentiate(*inputs)), None

    total, _ = jax.lax.scan(add, zeros, (divided, keys))
    return jax.tree.map(lambda a: a / parts, total)


def fit(
    detector: Detector,
    source: Source,
    config: TrainConfig | None = None,
    *,
    workdir: Path | str,
    holdout: Source | None = None,
    false_alarm: float = 0.01,
    protocol: str = "exact-256",
    provenance: Mapping[str, Any] | None = None,
    features: FeatureCache | None = None,
    workers: int = 2,
    reporter: Reporter | None = None,
) -> Run:
    """Trains a detector, or lets it remember, chooses its threshold, and keeps all in `workdir`.

    A workdir with checkpoints of the same run, on the same images wherever they lie, is resumed; the result is
    bit-equal to an undisturbed run on the same devices. A workdir of a finished run is only loaded. One process, or
    group of processes, at a time works on it. Within `jaxad.io.signals.listening`, as on the command line, a signal to
    end finishes the step at hand, saves it, and raises `Stopped`.

    Args:
        detector: as created; its parameters are those of step 0. It keeps them, but in the host's memory, so that no
            device holds any array twice; the trained detector is `Run.model`.
        source: normal images to train on.
        config: how to train; None for the published setting.
        workdir: folder of the run: config.json, metrics.csv, checkpoints/, features/ when cached on disk.
        holdout: normal images that are not in `source`, for the threshold; None or empty chooses none.
        false_alarm: rate at which normal images may exceed the threshold.
        protocol: evaluation protocol in which the threshold is measured.
        provenance: JSON values recorded with the run, e.g. where the data came from.
        features: of all images of `source`, where they are computed already; they must be this detector's.
        workers: threads that decode images.
        reporter: shows progress; None is silent.

    Raises:
        DataError: no images, or images that cannot be read.
        CheckpointError: the workdir holds a different run, all settings listed that differ; or a step cannot be saved.
        ConfigError: impossible settings; or the workdir is in use, cannot be written, or has no room for checkpoints.
        TrainingError: the loss, or scores of the hold-out, are not finite.
    """
    config = config or TrainConfig()
    config.check()
    if not len(source) and detector.inputs.needs_images:
        raise DataError(f"{source.name}: no normal training images")
    if features is not None and features.identity != cache_identity(detector, source):
        raise DataError(f"{source.name}: the features given are of other images or another network; build them anew")
    if config.tensorboard:
        summary_writer()
    if reporter is None or not parallel.is_main_process():
        reporter = Reporter(quiet=True)
    run = Place(Path(workdir), parallel.make_mesh(config.fsdp), workers, reporter)
    with in_use(run.workdir):
        return _fit(detector, source, config, run, holdout, false_alarm, protocol, provenance, features)


def _fit(
    detector: Detector,
    source: Source,
    config: TrainConfig,
    run: Place,
    holdout: Source | None,
    false_alarm: float,
    protocol: str,
    provenance: Mapping[str, Any] | None,
    features: FeatureCache | None,
) -> Run:
    """As `fit`, in a workdir that is this process's alone."""
    workers, reporter = run.workers, run.reporter
    trains = isinstance(detector, Trainable) and detector.trains
    if trains:
        parallel.check_batch_size(config.batch_size, run.mesh)
    content = {"images": content_hash(source, extras_of(detector, source.records, training=True), workers=workers)}
    if holdout is not None and len(holdout):
        notes = extras_of(detector, holdout.records, training=False)
        content["holdout"] = content_hash(holdout, notes, workers=workers)
    meta = {
        "train": to_json(config) if trains else None,
        "data": {"source": source.name, "images": len(source), **(provenance or {}), "sha256": content},
        "protocol": protocol,
        "false_alarm": false_alarm,
        "weights": detector.weight_hashes,
    }
    resources = {"train": config.RESOURCES, "config": getattr(detector.config, "RESOURCES", ())}
    settings = {"system": detector.name, "config": to_json(detector.config), **meta}
    reporter.warn(claim(run.workdir, settings, resources))
    detector.learn_names(source)
    began, rate = time.perf_counter(), None
    with CheckpointWriter(run.workdir, config.keep_checkpoints) as writer:
        final = config.steps if trains else 0
        if writer.latest == final:
            restored = restore(run.workdir)
            reporter.warn(restored.notes)
            detector = restored.detector
            if restored.meta["complete"]:
                reporter.say(f"{run.workdir} is complete; nothing to train")
                return Run(detector, restored.threshold, run.workdir, 0.0, None)
        elif isinstance(detector, Trainable) and trains:
            _move_to_host(detector)
            cached = features or _features(detector, source, config, run)
            detector, rate = _train(detector, source, cached, config, run, writer, meta)
        else:
            if isinstance(detector, Remembers):
                with reporter.images("remember", len(source)) as progress:
                    detector.remember(source, features=features, progress=progress)
            require_room_for_steps(run.workdir, writer.size(detector), 0)
            writer.save(final, detector, meta=meta)
        # What can go wrong from here on costs no step.
        threshold = None
        if holdout is not None and len(holdout):
            with reporter.images("threshold", len(holdout)) as progress:
                threshold = choose_threshold(
                    detector, holdout, false_alarm=false_alarm, protocol=protocol, workers=workers, progress=progress
                )
            reporter.warn(threshold.warnings)
        writer.complete(final, threshold)
    return Run(detector, threshold, run.workdir, time.perf_counter() - began, rate)


def _train(
    detector: Any,
    source: Source,
    features: FeatureCache | LiveFeatures,
    config: TrainConfig,
    run: Place,
    writer: CheckpointWriter,
    meta: Mapping[str, Any],
) -> tuple[Detector, float | None]:
    """Statistics, then steps, all saved -> (detector to evaluate, images per second)."""
    resumed = writer.latest or 0
    # Statistics come before step 0, so that a resumed run and a fresh one compute the same.
    detector.prepare(features.stream())
    trainer = DetectorTrainer(detector, config, run.mesh)
    require_room_for_steps(run.workdir, writer.size(detector, trainer.abstract_state), config.keep_checkpoints)
    if resumed:
        state = writer.restore_training(resumed, trainer.abstract_state)
        run.reporter.say(f"resuming {run.workdir} after step {resumed}")
    else:
        state = trainer.init()
    order = TrainingOrder([record.category for record in source.records], config.sampling, config.seed)
    images = config.batch_size * config.accumulate
    # Steps that are done and not saved are lost by a signal.
    with held():
        state, rate = run_steps(
            trainer,
            state,
            lambda step: features[order.batch(step, images)],
            config,
            resumed=resumed,
            steps=config.steps,
            workdir=run.workdir,
            on_save=lambda step, state: writer.save(step, trainer.detector(state), meta=meta, training=state),
            columns=lambda step: {"learning_rate": float(trainer.learning_rate(step - 1))},
            reporter=run.reporter,
        )
        graphdef, arrays = module_state.split(trainer.detector(state))
        trained: Any = module_state.merge(graphdef, parallel.shard_parameters(arrays, run.mesh))
        trained.finish(features.stream())
        writer.save(config.steps, trained, meta=meta, training=state)
    return trained, rate


def _move_to_host(detector: Detector) -> None:
    """Frees the devices of the detector's networks: what training needs of them it places itself."""
    variables = [node for _, node in nnx.iter_graph(detector) if isinstance(node, nnx.Param | Frozen | Fixed)]
    for variable, value in zip(variables, parallel.to_host([v.get_value() for v in variables]), strict=True):
        variable.set_value(value)


def _features(detector: Detector, source: Source, config: TrainConfig, run: Place) -> FeatureCache | LiveFeatures:
    """The features of all images, where `config.cache` wants them."""
    size, where = FeatureCache.size(detector, len(source)), config.cache
    if where == "auto":
        where = "memory" if size <= config.cache_limit_gb * 1e9 else "disk"
    at_once = config.batch_size * config.accumulate if where == "off" else len(source)
    encoder = Encoder(detector, batch_size=min(32, at_once), workers=run.workers, mesh=run.mesh)
    if where == "off":
        run.reporter.say(f"{len(source)} images; features are computed anew at every step (cache = off)")
        return LiveFeatures(encoder, source)
    run.reporter.say(f"{len(source)} images; their features take {size / 1e9:.2f} GB, kept in {where}")
    folder = run.workdir / "features" if where == "disk" else None
    with run.reporter.images("features", len(source)) as progress:
        return FeatureCache.build(
            detector, source, folder=folder, encoder=encoder, progress=progress, warn=run.reporter.warn
        )
