"""What VLMDiff takes: memory of each device, and operations, of its prediction and of the training steps of its stages.

`jaxad bench vlmdiff`. The account is of the programs that `jaxad fit` and `jaxad predict` run, lowered for a GPU and
compiled, but never run, so that a published size needs no memory for its arrays and any machine can tell what eight
devices would hold. Where there is an accelerator that holds as much, they are timed too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Var
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.bench import benchmarks
from jaxad.bench._account import (
    CARDS_GB,
    NOTE,
    account_of,
    batch_of,
    drawn,
    held,
    markdown,
    mesh_of,
    on_cpu,
    operations,
    speed,
)
from jaxad.bench._plan import print_plans
from jaxad.bench._topologies import find_topologies
from jaxad.bench._vlmdiff_networks import Size, abstract_first_stage, abstract_vlmdiff, compilable, features
from jaxad.bench._vlmdiff_plans import PROTOCOL, Planned, Program, predicting, steps_of, training, vlmdiff_plans
from jaxad.config import FirstStageTrainConfig, TrainConfig, VLMDiffConfig
from jaxad.detectors.vlmdiff.detector import VLMDiff
from jaxad.detectors.vlmdiff.sgn import controlled_noise
from jaxad.errors import ConfigError
from jaxad.inference.predictor import Predictor
from jaxad.nn import module_state
from jaxad.nn.variables import Frozen
from jaxad.training.autoencoder.loss import AUTOENCODER, LPIPS
from jaxad.training.autoencoder.step import AutoencoderTrainer
from jaxad.training.step import DetectorTrainer
from jaxad.types import Features


def vlmdiff_benchmark(
    devices: Sequence[int] = (1, 8),
    micro_batches: Sequence[int] = (1, 4, 12),
    remat: Sequence[bool] = (True,),
    *,
    programs: Sequence[Program] = get_args(Program),
    batch_size: int = 1,
    accumulate: int = 4,
    dtype: Literal["float32", "bfloat16"] = "float32",
    size: Size = "published",
    count_only: bool = False,
) -> Iterator[dict[str, Any]]:
    """Accounts of the prediction and of autoencoder finetuning on one device, and of training on numbers of devices.

    Several devices each hold their share of what is trained (fsdp); without that each holds as much as a single one.

    Args:
        devices: numbers of devices; more than there are become virtual ones of the CPU.
        micro_batches: images that a device holds at once while training.
        remat: whether training computes activations again for the gradient.
        programs: which of them.
        batch_size: images of a prediction.
        accumulate: micro-batches of a step (published: 4 of 12 images).
        dtype: compute type; parameters are float32, and the autoencoder's training is.
        size: "published", or "tiny", for tests.
        count_only: whether nothing is run; on a CPU the published size never is.

    Yields:
        Rows with `program`, `size`, `dtype`, `devices`, `micro_batch`, `accumulate`, `remat`; `parameters` by what
        becomes of them; `gb` of each device in 1e9 bytes by part and in `total`, of which `NOTE` says what they are;
        `arguments`, the same of what the program reads; of the training step also `gradients` and `kept`, which are
        among the temporaries; `fits`, whether the total and 1 GB are at most so many GB; `tflop` of one image, and of
        all images of an optimizer step `step_tflop`; `compiled_by` and `compile_seconds`. What is timed has
        `images_per_second` and `device`; what is too large for the device has `not_timed`, which says so.

    Raises:
        ConfigError: more devices than there are or can be.
    """
    meshes = [mesh_of(number) for number in devices]
    timed = not count_only and (size == "tiny" or not on_cpu(meshes[0]))
    if "prediction" in programs:
        row = {"program": "prediction", "size": size, "dtype": dtype, "devices": 1, "micro_batch": batch_size}
        yield row | prediction_account(abstract_vlmdiff(size, dtype), batch_size, timed)
    if "autoencoder" in programs:
        row = {"program": "autoencoder step", "size": size, "dtype": "float32", "devices": 1}
        yield row | autoencoder_account(size, FirstStageTrainConfig(), mesh_of(1), timed)
    if "training" not in programs:
        return
    costs = {again: training_operations(abstract_vlmdiff(size, dtype, again)) for again in remat}
    for mesh, again, batch in itertools.product(meshes, remat, micro_batches):
        images, tflop = batch * mesh.size, costs[again]
        config = VLMDiffConfig.training("paper", batch_size=images, accumulate=accumulate, fsdp=mesh.size)
        row = {"program": "training step", "size": size, "dtype": dtype, "devices": mesh.size, "micro_batch": batch}
        row |= {"accumulate": accumulate, "remat": again, "tflop": tflop, "step_tflop": tflop * images * accumulate}
        exists = mesh.size <= jax.device_count()
        yield row | training_account(abstract_vlmdiff(size, dtype, again), config, mesh, timed and exists)


def training_account(detector: VLMDiff, config: TrainConfig, mesh: Mesh, timed: bool = False) -> dict[str, Any]:
    """Memory of each device during a training step, from the compiled program of `jaxad.training.trainer`.

    Args:
        detector: without arrays.
        config: batch size over all devices, accumulation, optimizer.
        mesh: devices; need not exist but as virtual ones.
        timed: whether to run it with random weights.

    Returns:
        The part of a row of `vlmdiff_benchmark` that it is about.
    """
    trainer = DetectorTrainer(compilable(detector, mesh), config, mesh)
    inputs = parallel.shard_batch(features(detector, config.batch_size * config.accumulate), mesh)
    divided = divide(detector, trainer)
    gb = {
        "parameters": held(trainer.abstract_state.params),
        "optimizer": held(trainer.abstract_state.opt_state),
        "fixed": held(parallel.shard_parameters(divided["fixed"], mesh)),
        "batch": held(inputs),
    }
    gb["casts"] = _casts(detector, mesh, gb["parameters"] + gb["fixed"])
    account = account_of(trainer.trace(inputs), mesh, gb)
    account["parameters"] = {name: sum(leaf.size for leaf in part.values()) for name, part in divided.items()}
    account["gradients"] = gb["parameters"]
    account["kept"] = kept(detector, divided["trained"], config.batch_size // mesh.size)
    if timed:
        images = config.batch_size * config.accumulate
        account |= speed(account, partial(training, detector, config, mesh, inputs), images)
    return account


def autoencoder_account(size: Size, train: FirstStageTrainConfig, mesh: Mesh, timed: bool = False) -> dict[str, Any]:
    """Memory and operations of a step of autoencoder finetuning with LPIPS, before a discriminator joins.

    Args:
        size: as for `vlmdiff_benchmark`.
        train: batch size, accumulation.
        mesh, timed: as for `training_account`.
    """
    networks, config = abstract_first_stage(size)
    trainer = AutoencoderTrainer(networks, config, train, mesh)
    images: Any = jax.ShapeDtypeStruct((train.images, config.image_size, config.image_size, 3), jnp.uint8)
    counts = {name: sum(leaf.size for leaf in module_state.split(part)[1].values()) for name, part in networks.items()}
    gb = {
        "parameters": held(trainer.abstract_state.params),
        "optimizer": held(trainer.abstract_state.opt_state),
        "fixed": 4 * counts[LPIPS] / 1e9,
        "batch": held(parallel.shard_batch(images, mesh)),
    }
    traced = trainer.trace(images)
    tflop = operations(traced) / train.batch_size
    account = {"micro_batch": train.batch_size, "accumulate": train.accumulate, "remat": config.remat, "tflop": tflop}
    account |= {"step_tflop": tflop * train.images, **account_of(traced, mesh, gb)}
    account |= {"parameters": {"trained": counts[AUTOENCODER], "fixed": counts[LPIPS]}, "gradients": gb["parameters"]}
    if timed:
        real = {name: drawn(part) for name, part in networks.items()}
        account |= speed(account, lambda: steps_of(AutoencoderTrainer(real, config, train, mesh), images), train.images)
    return account


def prediction_account(detector: VLMDiff, batch: int, timed: bool = False) -> dict[str, Any]:
    """Memory and operations of the prediction of `batch` images on one device; arguments as for `training_account`."""
    mesh = mesh_of(1)
    arrays, inputs = module_state.split(detector)[1], batch_of(detector, batch)
    gb = {
        "parameters": held(parallel.shard_parameters(arrays, mesh)),
        "batch": held(parallel.shard_batch(inputs, mesh)),
    }
    gb["casts"] = _casts(detector, mesh, gb["parameters"])
    predictor = Predictor(compilable(detector, mesh), PROTOCOL, batch_size=batch, mesh=mesh)
    account = account_of(predictor.trace(inputs), mesh, gb)
    account["parameters"] = {"all": sum(leaf.size for leaf in arrays.values())}
    account["tflop"] = prediction_operations(detector)
    if timed:
        account |= speed(account, partial(predicting, detector, inputs, batch, mesh), batch)
    return account


def training_operations(detector: VLMDiff) -> float:
    """Operations in 1e12 that training spends on one image, by the compiler's account of the step; runs nothing."""
    trainer = DetectorTrainer(detector, VLMDiffConfig.training(batch_size=1, accumulate=1), mesh_of(1))
    return operations(trainer.trace(features(detector, 1)))


def prediction_operations(detector: VLMDiff) -> float:
    """Operations in 1e12 of the prediction of one image; runs nothing."""
    inputs, steps = batch_of(detector, 1), detector.config.sampling_steps
    whole = operations(Predictor(detector, PROTOCOL, batch_size=1, mesh=mesh_of(1)).trace(inputs))
    graphdef, arrays = module_state.split(detector)
    unet = detector.unet.config
    side = features(detector, 1).grid[0]
    latents = jax.ShapeDtypeStruct((1, side, side, unet.in_channels), jnp.float32)
    text = jax.ShapeDtypeStruct((1, detector.text.config.context, unet.cross_attention_dim), jnp.float32)
    hint = jax.ShapeDtypeStruct((1, side, side, unet.block_out_channels[0]), jnp.float32)

    def denoise(arrays: Any, latents: Any, text: Any, hint: Any) -> jax.Array:
        merged = module_state.merge(graphdef, arrays)
        return controlled_noise(merged.unet, merged.sgn, latents, jnp.zeros(1, jnp.int32), text, hint)

    # The account counts the body of a loop once.
    return whole + (steps - 1) * operations(jax.jit(denoise).trace(arrays, latents, text, hint))


def kept(detector: VLMDiff, trained: Collection[str], batch: int) -> float:
    """What differentiating the loss of `batch` images keeps of the forward pass for the backward pass, in 1e9 bytes."""
    graphdef, arrays = module_state.split(detector)
    params = {path: array for path, array in arrays.items() if path in trained}
    others = {path: array for path, array in arrays.items() if path not in trained}

    def forward(params: Any, others: Any, inputs: Features) -> Any:
        def loss(params: Any) -> Any:
            return module_state.merge(graphdef, {**others, **params}).loss(inputs, jax.random.key(0))

        return jax.vjp(loss, params, has_aux=True)[1]

    jaxpr = jax.make_jaxpr(forward)(params, others, features(detector, batch)).jaxpr
    given = set(jaxpr.invars)
    saved = {variable for variable in jaxpr.outvars if isinstance(variable, Var) and variable not in given}
    shapes: list[Any] = [variable.aval for variable in saved]
    return sum(shape.size * shape.dtype.itemsize for shape in shapes) / 1e9


def divide(detector: VLMDiff, trainer: DetectorTrainer) -> dict[str, dict[str, Any]]:
    """The arrays by path that are "trained", those that the loss only reads ("fixed"), and those that it does not."""
    _, frozen, trained, fixed = module_state.split(detector, Frozen, nnx.Param, ...)
    return {"trained": trained, "fixed": fixed, "frozen": frozen}


def _casts(detector: VLMDiff, mesh: Mesh, read: float) -> float:
    """What parameters in bfloat16 take beside those in float32, where the compiler's plan does not know of them."""
    return read / 2 if detector.config.precision == "bfloat16" and on_cpu(mesh) else 0.0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    heads = ["program", "devices", "images at once", "remat", "GB per device", "temporaries", "kept"]
    heads += [*(f"fits {card} GB" for card in CARDS_GB), "TFLOP an image", "a step", "images/s"]
    lines = []
    for row in rows:
        gb, kept = row["gb"], row.get("kept")
        line = [row["program"], row["devices"], row["micro_batch"], _yes(row.get("remat"))]
        line += [f"{gb['total']:.1f}", f"{gb['temporaries']:.1f}", "" if kept is None else f"{kept:.1f}"]
        step, rate = row.get("step_tflop"), row.get("images_per_second")
        line += [*map(_yes, row["fits"].values()), f"{row['tflop']:.2f}", "" if step is None else f"{step:.1f}"]
        lines.append([*line, row.get("not_timed", "") if rate is None else f"{rate:.1f}"])
    return markdown(heads, lines)


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def main(
    devices: tuple[int, ...] = (1, 8),
    micro_batches: tuple[int, ...] = (1, 4, 12),
    remat: tuple[Literal["on", "off"], ...] = ("on",),
    dtype: Literal["float32", "bfloat16"] = "float32",
    size: Size = "published",
    count_only: bool = False,
    programs: tuple[Planned, ...] = get_args(Program),
    batch_size: int = 1,
    topology: tuple[str, ...] = (),
    first_moment: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Count memory and operations of VLMDiff's prediction and of the training steps of its two stages.

    Lines of JSON go to stdout as soon as each is known; at the end, for readers, a table to stderr.

    Args:
        devices: Numbers of devices; the machine needs none of them to tell what they would hold.
        micro_batches: Images that a device holds at once while training.
        remat: Whether training computes activations again instead of keeping them.
        dtype: Compute type; the autoencoder is trained in float32.
        size: The published networks, or networks of a few channels.
        count_only: Count, run nothing; on a CPU the published size is only counted in any case.
        programs: Only these; training is that of the diffusion model, autoencoder that of the first stage; captions, of
            InternVL2-8B, for a topology only.
        batch_size: Images of a prediction, or described, at once.
        topology: Plan for these accelerators, which need not be there, instead: h100:1, v5e:2x4; `devices` is theirs.
        first_moment: Type of Adam's mean of gradients in these plans, as `--train.first-moment` sets it.

    Raises:
        ConfigError: impossible numbers, all of them; more devices than there can be; an unknown topology, or one whose
            compiler is not installed.
    """
    _check(devices, micro_batches, remat, programs, batch_size, topology)
    if topology:
        again = "on" in remat
        plan_options: Any = {"programs": programs, "batch_size": batch_size, "dtype": dtype, "size": size}
        plan_options["first_moment"] = first_moment
        print_plans(
            find_topologies(topology), lambda each: vlmdiff_plans(each, micro_batches, remat=again, **plan_options)
        )
        return
    # If jax runs already, its devices will have to do.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(devices))
    options: Any = {"dtype": dtype, "size": size, "count_only": count_only}
    options |= {"programs": programs, "batch_size": batch_size}
    rows = []
    try:
        for row in vlmdiff_benchmark(devices, micro_batches, [word == "on" for word in remat], **options):
            print(json.dumps(row), flush=True)
            rows.append(row)
    finally:
        # Also where a row fails or takes too long.
        print(f"{table(rows)}\n{NOTE}", file=sys.stderr)


def _check(
    devices: Sequence[int],
    micro_batches: Sequence[int],
    remat: Sequence[str],
    programs: Sequence[str],
    batch_size: int,
    topology: Sequence[str],
) -> None:
    problems = [f"batch_size = {batch_size}: must be at least 1"] if batch_size < 1 else []
    for name, numbers in (("devices", devices), ("micro_batches", micro_batches)):
        if not numbers or min(numbers) < 1:
            problems.append(f"{name} = {' '.join(map(str, numbers))}: needs numbers of at least 1")
    if not programs:
        problems.append(f"programs: needs one or more of {', '.join(get_args(Program))}")
    if "captions" in programs and not topology:
        problems.append("programs = captions: are planned for a topology; give one, e.g. h100:1")
    if not remat:
        problems.append("remat: needs on, off or both")
    if problems:
        raise ConfigError("\n  ".join(problems))


benchmarks.register("vlmdiff", main)
