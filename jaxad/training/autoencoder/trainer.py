"""Autoencoder finetuning, the first stage of VLMDiff and DiAD: a trainer on the loop that detectors use."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.config import FirstStageConfig, FirstStageTrainConfig, to_json
from jaxad.data.batches import LoadedBatch, batches, training_batches
from jaxad.data.sampling import TrainingOrder
from jaxad.errors import ConfigError, DataError
from jaxad.inference.checkpoint_writer import CheckpointWriter
from jaxad.io.atomic import write_whole
from jaxad.io.pictures import encode_picture
from jaxad.io.progress import Reporter
from jaxad.io.signals import held
from jaxad.io.text import visible
from jaxad.models.convnets.lpips import holds_lpips, load_lpips
from jaxad.models.convnets.patch_discriminator import holds_discriminator, load_discriminator, new_discriminator
from jaxad.models.stable_diffusion.autoencoder_kl import AutoencoderKL, load_autoencoder, save_autoencoder
from jaxad.models.stable_diffusion.checkpoints import find_part
from jaxad.models.stable_diffusion.untrained import is_random, random_autoencoder
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state
from jaxad.training.autoencoder.loss import AUTOENCODER, DISCRIMINATOR, LPIPS
from jaxad.training.autoencoder.step import AutoencoderTrainer, normalization_of, normalized
from jaxad.training.logger import check_loggers
from jaxad.training.loop import Evaluations, Progress, run_steps
from jaxad.training.run_folder import Place, claim, content_hash, in_use, require_room_for_steps
from jaxad.training.step import TrainState
from jaxad.training.trace import check_range, late
from jaxad.types import Source, View

FOLDER, PICTURE = "autoencoder", "reconstructions.png"
"""What a run leaves in its workdir: the weights in diffusers layout; images, and reconstructions before and after."""
VIEW = "image"
SHOWN = 8
"""Images reconstructed before and after."""
MEASURED = 256
"""Most images whose latents the scaling factor is measured on."""


@dataclass(frozen=True)
class AutoencoderRun:
    """What `fit_autoencoder` leaves.

    Attributes:
        autoencoder: finetuned; `autoencoder.config.scaling_factor` is what the next stage multiplies its latents by.
        folder: its weights, as diffusers and `load_autoencoder` read them.
        errors: mean absolute error of reconstructions before and after, in gray levels (0 to 255), over a few images.
        seconds: of training.
        images_per_second: None where nothing was trained, or too short to tell.
    """

    autoencoder: AutoencoderKL
    folder: Path
    errors: tuple[float, float]
    seconds: float
    images_per_second: float | None


def fit_autoencoder(
    source: Source,
    config: FirstStageConfig | None = None,
    train: FirstStageTrainConfig | None = None,
    *,
    workdir: Path | str,
    holdout: Source | None = None,
    provenance: Mapping[str, Any] | None = None,
    profile: tuple[int, int] | None = None,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> AutoencoderRun:
    """Finetunes an autoencoder on the images of `source` and keeps all in `workdir`.

    A workdir with checkpoints of the same run is resumed; the result is bit-equal to an undisturbed run on the same
    devices. With every checkpoint the folder `workdir/autoencoder` is written anew, so that a run that is stopped early
    leaves a usable autoencoder; the next stage takes that folder.

    Args:
        source: normal images to train on.
        config: where to start and the loss; None for the published setting.
        train: how to train; None for the published setting.
        workdir: folder of the run: config.json, metrics.csv, evaluations-holdout.csv, checkpoints/, autoencoder/,
            reconstructions.png.
        holdout: images that are not in `source`, some of which `train.eval_every` has reconstructed on the way.
        provenance: JSON values recorded with the run, e.g. where the data came from.
        profile: first and last step, counted from 1, that jax.profiler traces into the folder `profile` of the workdir.
        workers: threads that decode images; None for one per CPU.
        reporter: shows progress; None is silent.

    Raises:
        DataError: no images, or images that cannot be read.
        WeightsError: no such weights, or weights that do not fit.
        CheckpointError: the workdir holds a different run, all settings listed that differ; or a step cannot be saved.
        ConfigError: impossible settings; or the workdir is in use, cannot be written, or has no room for checkpoints.
        TrainingError: the loss is not finite.
    """
    config, train = config or FirstStageConfig(), train or FirstStageTrainConfig()
    config.check()
    train.check()
    if not len(source):
        raise DataError(f"{source.name}: no normal training images")
    train = train.counted(len(source))
    check_loggers(train.loggers)
    check_range(profile, train.steps or 0)
    if train.eval_every is not None and (holdout is None or not len(holdout)):
        raise ConfigError(f"eval_every = {train.eval_every}: there are no images of the hold-out, give holdout = 0.1")
    if reporter is None or not parallel.is_main_process():
        reporter = Reporter(quiet=True)
    mesh = parallel.make_mesh(train.fsdp)
    parallel.check_batch_size(train.batch_size, mesh)
    place = Place(Path(workdir), mesh, workers, reporter, profile)
    with in_use(place.workdir):
        return _fit(source, config, train, place, holdout, provenance)


def _fit(
    source: Source,
    config: FirstStageConfig,
    train: FirstStageTrainConfig,
    place: Place,
    holdout: Source | None,
    provenance: Mapping[str, Any] | None,
) -> AutoencoderRun:
    """As `fit_autoencoder`, in a workdir that is this process's alone."""
    workdir, mesh, workers, reporter = place.workdir, place.mesh, place.workers, place.reporter
    steps = train.steps_for(len(source))
    adversary = steps > config.discriminator_start
    networks = load_networks(config, train.seed, adversary=adversary)
    start: AutoencoderKL = networks[AUTOENCODER]
    _check_size(config, start)
    content = {"images": content_hash(source, workers=workers)}
    data = {"source": source.name, "images": len(source), **(provenance or {}), "sha256": content}
    weights = dict.fromkeys(("source", "vgg", "lpips"), module_state.digest(*networks.values()))
    parallel.check_same(json.dumps([content, weights]), f"{source.name}: the images, or the weights,")
    meta = {"system": FOLDER, "config": to_json(config), "train": to_json(train), "data": data, "weights": weights}
    meta["adversary"] = adversary and config.discriminator_weight > 0
    reporter.warn(claim(workdir, meta, {"train": train.RESOURCES, "config": config.RESOURCES}))
    began, rate = time.perf_counter(), None
    with CheckpointWriter(workdir, train.keep_checkpoints) as writer:
        resumed = writer.latest or 0
        trainer = AutoencoderTrainer(networks, config, train, mesh)
        size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(trainer.abstract_state))
        require_room_for_steps(workdir, size, train.keep_checkpoints)
        state = trainer.init()
        if resumed:
            state = writer.restore_training(resumed, state)
        if resumed == steps:
            reporter.say(f"{visible(workdir)} is complete; nothing to train")
            reporter.warn(late(place.profile, steps))
        elif resumed:
            reporter.say(f"resuming {visible(workdir)} after step {resumed}")

        def export(state: TrainState) -> AutoencoderKL:
            autoencoder = trainer.autoencoder(state)
            known: dict[str, Any] = {"pixels": config.pixels}
            if config.measures_scale:
                known["scaling_factor"] = measured_scale(autoencoder, source, config, workers)
            autoencoder.config = dataclasses.replace(autoencoder.config, **known)
            _export(autoencoder, workdir / FOLDER)
            return autoencoder

        def save(step: int, state: TrainState) -> None:
            writer.save_training(step, state, meta=meta)
            export(state)

        watched = None
        if train.eval_every is not None and holdout is not None:
            watched = _Reconstructed(trainer, evenly_chosen(holdout, config, SHOWN, workers))
        if resumed < steps:
            stream = _batches(source, config, train, mesh, resumed, steps, workers)
            # Steps that are done and not saved are lost by a signal.
            with held():
                state, rate = run_steps(
                    trainer,
                    state,
                    lambda step: next(stream).batch.images[VIEW],
                    train,
                    resumed=resumed,
                    steps=steps,
                    place=place,
                    settings=meta,
                    on_save=save,
                    evaluations=watched and Evaluations("holdout", train.eval_every or steps, watched),
                )
                # Else it was saved before it was evaluated.
                if watched is None:
                    writer.save_training(steps, state, meta=meta)
        # Also where a run was stopped between its last step and this.
        result = export(state)
    seconds = time.perf_counter() - began
    errors = _compare(source, config, start, result, workdir / PICTURE, workers)
    return AutoencoderRun(result, workdir / FOLDER, errors, seconds, rate)


def load_networks(config: FirstStageConfig, seed: int, *, adversary: bool) -> dict[str, Any]:
    """The networks that take part in training, by name; LPIPS and discriminator from the start where it brings them.

    Args:
        config: which autoencoder, and which terms the loss has.
        seed: of a new discriminator.
        adversary: whether the run is long enough for the discriminator to count.

    Raises:
        WeightsError: no such weights, or weights that do not fit.
        ConfigError: a perceptual loss without weights for it; says how to name them or do without.
    """
    if is_random(config.source):
        found, autoencoder = None, random_autoencoder(config.source, remat=config.remat)
    else:
        found = find_part(config.source, "vae")
        autoencoder = load_autoencoder(found, remat=config.remat)
    networks: dict[str, Any] = {AUTOENCODER: autoencoder}
    if config.perceptual_weight > 0:
        networks[LPIPS] = load_lpips(_vgg(config, found), config.lpips)
    if adversary and config.discriminator_weight > 0:
        networks[DISCRIMINATOR] = (
            load_discriminator(found)
            if found is not None and holds_discriminator(found)
            else new_discriminator(seed, config.discriminator_layers, config.discriminator_width)
        )
    return networks


def measured_scale(
    autoencoder: AutoencoderKL, source: Source, config: FirstStageConfig, workers: int | None = None
) -> float:
    """1 / deviation of the latents drawn for images of `source`, as latent diffusion scales them (arXiv 2112.10752 G).

    Computed without drawing: their variance is that of the means and the mean of the variances.
    """
    images = evenly_chosen(source, config, MEASURED, workers)
    graphdef, arrays = module_state.split(autoencoder)
    arrays = jax.device_put(parallel.to_host(arrays))
    sums = np.array([_sums(graphdef, config, arrays, image[None]) for image in images], np.float64)
    first, second, variance = sums.mean(0)
    return float((second - first**2 + variance) ** -0.5)


@partial(jax.jit, static_argnums=(0, 1))
def _sums(graphdef: Any, config: FirstStageConfig, arrays: Mapping[str, Any], images: jax.Array) -> jax.Array:
    """Mean of the latents' means, of their squares and of the variances: [3]."""
    moments = module_state.merge(graphdef, arrays).encode(normalized(images, config))
    return jnp.stack([moments.mean.mean(), jnp.square(moments.mean).mean(), jnp.exp(moments.logvar).mean()])


def evenly_chosen(source: Source, config: FirstStageConfig, number: int, workers: int | None) -> np.ndarray:
    """At most `number` images of `source`, uint8 [n h w 3], the same ones every time."""
    indices = sorted({round(place) for place in np.linspace(0, len(source) - 1, number)})
    view = {VIEW: View(config.image_size, config.image_size)}
    loaded = next(iter(batches(source, view, len(indices), workers=workers, indices=indices)))
    return np.asarray(loaded.batch.images[VIEW])


def _vgg(config: FirstStageConfig, found: Weights | None) -> str | Weights:
    if config.vgg is not None:
        return config.vgg
    if found is None or not holds_lpips(found):
        raise ConfigError(
            f"vgg = None: LPIPS needs VGG16, which {config.source} does not bring; give torchvision's file with "
            "`vgg` and that of LPIPS (vgg.pth) with `lpips`, or take perceptual_weight = 0 to do without"
        )
    return found


def _check_size(config: FirstStageConfig, autoencoder: AutoencoderKL) -> None:
    stride = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    if config.image_size % stride:
        raise ConfigError(f"image_size = {config.image_size}: must be a multiple of {stride} for {config.source}")


def _batches(
    source: Source,
    config: FirstStageConfig,
    train: FirstStageTrainConfig,
    mesh: Mesh,
    start: int,
    steps: int,
    workers: int | None,
) -> Iterator[LoadedBatch]:
    """The batches of the steps that are left, in their order."""
    order = TrainingOrder([record.category for record in source.records], train.sampling, train.seed)
    return training_batches(
        source,
        {VIEW: View(config.image_size, config.image_size)},
        train.images,
        order,
        start=start,
        steps=steps,
        workers=workers,
        rows=parallel.local_rows(train.images, mesh),
    )


def _export(autoencoder: AutoencoderKL, folder: Path) -> None:
    """Writes the weights beside those that are there, and then takes their place."""
    if parallel.is_main_process():
        new, old = (folder.with_name(f"{folder.name}.{kind}") for kind in ("new", "old"))
        with held():
            for left_over in (new, old):
                shutil.rmtree(left_over, ignore_errors=True)
            save_autoencoder(autoencoder, new)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
    parallel.wait_for_others("autoencoder written")


def _compare(source, config, before, after, picture: Path, workers: int | None) -> tuple[float, float]:
    """Reconstructs a few images, evenly chosen, with both autoencoders; shows them one below the other."""
    images = evenly_chosen(source, config, SHOWN, workers)
    rows, errors = [images], []
    graphdef, _ = module_state.split(before)
    reconstruct = jax.jit(partial(_reconstruct, graphdef, config))
    for autoencoder in (before, after):
        arrays = jax.device_put(parallel.to_host(module_state.split(autoencoder)[1]))
        answers = [np.asarray(reconstruct(arrays, image[None])) for image in images]
        rows.append(np.concatenate(answers))
        errors.append(float(np.abs(rows[-1].astype(float) - images).mean()))
    if parallel.is_main_process():
        shown = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
        write_whole(picture, encode_picture(shown, picture.suffix))
    return errors[0], errors[1]


class _Reconstructed:
    """Reconstructs images uint8 [n h w 3] by a state's autoencoder: the mean absolute error, in gray levels."""

    def __init__(self, trainer: AutoencoderTrainer, images: np.ndarray):
        self._trainer, self._images, self._reconstruct = trainer, images, None

    def __call__(self, state: TrainState, told: Progress) -> Mapping[str, float | None]:
        autoencoder = self._trainer.autoencoder(state)
        graphdef, arrays = module_state.split(autoencoder)
        if self._reconstruct is None:
            self._reconstruct = jax.jit(partial(_reconstruct, graphdef, self._trainer.config))
        arrays, errors = jax.device_put(arrays), []
        for image in self._images:
            told(1)
            errors.append(np.abs(np.asarray(self._reconstruct(arrays, image[None]))[0].astype(float) - image).mean())
        return {"images": len(self._images), "absolute_error": float(np.mean(errors))}


def _reconstruct(graphdef: Any, config: FirstStageConfig, arrays: Mapping[str, Any], images: jax.Array) -> jax.Array:
    """The mode's reconstruction, uint8 [b h w 3]."""
    autoencoder = module_state.merge(graphdef, arrays)
    decoded = autoencoder.decode(autoencoder.encode(normalized(images, config)).mean)
    return jnp.clip(normalization_of(config).inverse(decoded).round(), 0, 255).astype(jnp.uint8)
