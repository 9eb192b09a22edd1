"""What VLMDiff takes: memory of each device, and operations, of its training step and its prediction.

`jaxad bench vlmdiff`. The account is of the programs that `jaxad fit` and `jaxad predict` run, lowered for a GPU and
compiled, but never run, so that a published size needs no memory for its arrays and any machine can tell what eight
devices would hold. Where there is an accelerator both programs are timed too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jax.sharding import AxisType, Mesh

from jaxad import module_state, parallel
from jaxad.bench_models import counted_operations, draw, fastest
from jaxad.config import TrainConfig, VLMDiffConfig, to_json
from jaxad.diffusion.sgn import controlled_noise
from jaxad.errors import ConfigError
from jaxad.models.backbone import backbone_from_config
from jaxad.models.clip_config import TextConfig
from jaxad.models.normalisation import IMAGENET
from jaxad.models.sd_config import AutoencoderConfig, UNetConfig
from jaxad.models.vit_config import ViTConfig
from jaxad.predict import Predictor
from jaxad.systems.vlmdiff import VLMDiff
from jaxad.train import DetectorTrainer
from jaxad.types import Batch, Features

Size = Literal["published", "tiny"]
PROTOCOL = "diad"
CARDS_GB = (24, 80)
RESERVED_GB = 1.0
"""Of a card, for the CUDA context and the workspaces of its libraries."""

NOTE = (
    "Exact but for the temporaries (activations and gradients), which are what XLA's compiler plans, ordering "
    "operations for little memory; without a GPU it is that for CPUs, given the program that a GPU would get. A GPU's "
    "fuses more, but takes workspaces and other layouts for convolutions. As CPUs emulate bfloat16 in float32, the "
    "temporaries are then those of the float32 program, and the casts of all parameters come on top: the total is "
    "rather too large. So it is for several devices, where a CPU's compiler sums gradients before it divides them, and "
    "for remat, from which it gains little: what remat should spare is the difference in what is kept from the forward "
    "pass for the gradient (kept)."
)
COMPILER_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
"""For CPUs: machine code is of no use here; and operations are ordered as on GPUs, where memory is what is scarce."""


class Shapes(NamedTuple):
    """Of the networks, and the side of an image."""

    unet: UNetConfig
    autoencoder: AutoencoderConfig
    text: TextConfig
    backbone: ViTConfig
    image_size: int


PUBLISHED = Shapes(
    UNetConfig.sd15(), AutoencoderConfig(), TextConfig.stable_diffusion(1), ViTConfig.dino("small", 8), 256
)
TINY = Shapes(
    UNetConfig(
        block_out_channels=(8, 64),
        layers_per_block=1,
        down_attention=(False, False),
        up_attention=(False, False),
        heads=(2, 2),
        cross_attention_dim=16,
        norm_num_groups=4,
    ),
    AutoencoderConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4),
    TextConfig(16, depth=1, heads=2, hidden=32, vocabulary=300, projection=None),
    ViTConfig(16, 1, 2, 8, image_size=16, hidden=32),
    16,
)
"""For tests: few layers, a factor of 2, and some kernels that are large enough to be sharded."""


def vlmdiff_benchmark(
    devices: Sequence[int] = (1, 8),
    micro_batches: Sequence[int] = (1, 4, 12),
    remat: Sequence[bool] = (True,),
    *,
    accumulate: int = 4,
    dtype: Literal["float32", "bfloat16"] = "float32",
    size: Size = "published",
    count_only: bool = False,
) -> Iterator[dict[str, Any]]:
    """Accounts of the prediction on one device, and of the training step on each number of devices.

    Several devices each hold their share of what is trained (fsdp); without that each holds as much as a single one.

    Args:
        devices: numbers of devices; more than there are become virtual ones of the CPU.
        micro_batches: images that a device holds at once; the prediction is judged at the largest.
        remat: whether activations are computed again for the gradient.
        accumulate: micro-batches of a step (published: 4 of 12 images).
        dtype: compute type; parameters are float32.
        size: "published", or "tiny", for tests.
        count_only: whether nothing is run; on a CPU the published size never is.

    Yields:
        Rows with `program`, `size`, `dtype`, `devices`, `micro_batch`, `accumulate`, `remat`; `parameters` by what
        becomes of them; `gb` of each device in 1e9 bytes by part and in `total`, of which `NOTE` says what they are;
        `arguments`, the same of what the program reads; of the training step also `gradients` and `kept`, which are
        among the temporaries; `fits`, whether the total and 1 GB are at most so many GB; `tflop` of one
        image; `compiled_by` and `compile_seconds`. What is timed has `images_per_second` and `device`.

    Raises:
        ConfigError: more devices than there are or can be.
    """
    meshes = [_mesh(number) for number in devices]
    timed = not count_only and (size == "tiny" or jax.default_backend() != "cpu")
    common = {"size": size, "dtype": dtype}
    batch = max(micro_batches)
    row = common | {"program": "prediction", "devices": 1, "micro_batch": batch}
    yield row | prediction_account(abstract_vlmdiff(size, dtype), batch, timed)
    operations: dict[bool, float] = {}
    for mesh, again, batch in itertools.product(meshes, remat, micro_batches):
        detector = abstract_vlmdiff(size, dtype, again)
        changes: dict[str, Any] = {"batch_size": batch * mesh.size, "accumulate": accumulate, "fsdp": mesh.size}
        if again not in operations:
            operations[again] = training_operations(detector)
        row = common | {"program": "training step", "devices": mesh.size, "micro_batch": batch}
        row |= {"accumulate": accumulate, "remat": again, "tflop": operations[again]}
        exists = mesh.size <= jax.device_count()
        yield row | training_account(detector, VLMDiffConfig.training("paper", **changes), mesh, timed and exists)


def training_account(detector: VLMDiff, config: TrainConfig, mesh: Mesh, timed: bool = False) -> dict[str, Any]:
    """Memory of each device during a training step, from the compiled program of `jaxad.train`.

    Args:
        detector: without arrays.
        config: batch size over all devices, accumulation, optimizer.
        mesh: devices; need not exist but as virtual ones.
        timed: whether to run it with random weights.

    Returns:
        The part of a row of `vlmdiff_benchmark` that it is about.
    """
    trainer = DetectorTrainer(_compilable(detector, mesh), config, mesh)
    inputs = parallel.shard_batch(features(detector, config.batch_size * config.accumulate), mesh)
    divided = divide(detector, trainer)
    gb = {
        "parameters": held(trainer.abstract_state.params),
        "optimizer": held(trainer.abstract_state.opt_state),
        "fixed": held(parallel.shard_parameters(divided["fixed"], mesh)),
        "batch": held(inputs),
    }
    gb["casts"] = _casts(detector, mesh, gb["parameters"] + gb["fixed"])
    account = _account(trainer.trace(inputs), mesh, gb)
    account["parameters"] = {name: sum(leaf.size for leaf in part.values()) for name, part in divided.items()}
    account["gradients"] = gb["parameters"]
    account["kept"] = kept(detector, divided["trained"], config.batch_size // mesh.size)
    if timed:
        real = DetectorTrainer(_drawn(detector), config, mesh)
        batch = jax.tree.map(partial(_random, np.random.default_rng(0)), inputs)
        state, key = [real.init()], jax.random.key(0)

        def step() -> None:
            state[0], metrics = real.step(state[0], batch, key)
            jax.block_until_ready((state, metrics))

        account |= _speed(step, config.batch_size * config.accumulate)
    return account


def prediction_account(detector: VLMDiff, batch: int, timed: bool = False) -> dict[str, Any]:
    """Memory and operations of the prediction of `batch` images on one device; arguments as for `training_account`."""
    mesh = _mesh(1)
    arrays, inputs = module_state.split(detector)[1], _inputs(detector, batch)
    gb = {
        "parameters": held(parallel.shard_parameters(arrays, mesh)),
        "batch": held(parallel.shard_batch(inputs, mesh)),
    }
    gb["casts"] = _casts(detector, mesh, gb["parameters"])
    predictor = Predictor(_compilable(detector, mesh), PROTOCOL, batch_size=batch, mesh=mesh)
    account = _account(predictor.trace(inputs), mesh, gb)
    account["parameters"] = {"all": sum(leaf.size for leaf in arrays.values())}
    account["tflop"] = prediction_operations(detector)
    if timed:
        predictor = Predictor(_drawn(detector), PROTOCOL, batch_size=batch, mesh=mesh)
        images = jax.tree.map(partial(_random, np.random.default_rng(0)), inputs)
        account |= _speed(lambda: predictor(images), batch)
    return account


def training_operations(detector: VLMDiff) -> float:
    """Operations in 1e12 that training spends on one image, by the compiler's account of the step; runs nothing."""
    trainer = DetectorTrainer(detector, VLMDiffConfig.training(batch_size=1, accumulate=1), _mesh(1))
    return _operations(trainer.trace(features(detector, 1)))


def prediction_operations(detector: VLMDiff) -> float:
    """Operations in 1e12 of the prediction of one image; runs nothing."""
    inputs, steps = _inputs(detector, 1), detector.config.sampling_steps
    whole = _operations(Predictor(detector, PROTOCOL, batch_size=1, mesh=_mesh(1)).trace(inputs))
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
    return whole + (steps - 1) * _operations(jax.jit(denoise).trace(arrays, latents, text, hint))


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


def abstract_vlmdiff(size: Size, dtype: Literal["float32", "bfloat16"], remat: bool = True) -> VLMDiff:
    """The detector without arrays."""
    return _abstract(PUBLISHED if size == "published" else TINY, dtype, remat)


def _abstract(shapes: Shapes, dtype: Literal["float32", "bfloat16"], remat: bool) -> VLMDiff:
    config = VLMDiffConfig(image_size=shapes.image_size, precision=dtype, remat=remat)
    networks = {"unet": shapes.unet, "autoencoder": shapes.autoencoder, "text": shapes.text}
    values = {"network": "vit", "shape": to_json(shapes.backbone), "normalisation": to_json(IMAGENET), "dtype": dtype}
    backbone = backbone_from_config({**values, "id": config.backbone, "sha256": "", "bytes": 0})
    structure = {name: to_json(shape) for name, shape in networks.items()}
    return VLMDiff.abstract(config, backbone, {**structure, "identity": []})


def divide(detector: VLMDiff, trainer: DetectorTrainer) -> dict[str, dict[str, Any]]:
    """The arrays by path that are "trained", those that the loss only reads ("fixed"), and those that it does not."""
    frozen, rest = module_state.select(module_state.split(detector)[1], detector.frozen)
    trained = {path: leaf for path, leaf in rest.items() if path in trainer.abstract_state.params}
    fixed = {path: leaf for path, leaf in rest.items() if path not in trained}
    return {"trained": trained, "fixed": fixed, "frozen": frozen}


def held(arrays: Any) -> float:
    """What placed arrays, or their shapes, take of one device, in 1e9 bytes."""
    leaves = jax.tree.leaves(arrays)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves) / 1e9


def _inputs(detector: VLMDiff, batch: int, captions: bool = False) -> Batch:
    shape: Any = jax.ShapeDtypeStruct
    images = {name: shape((batch, v.height, v.width, 3), jnp.uint8) for name, v in detector.views.items()}
    extras = {"caption": shape((batch, detector.text.config.context), jnp.int32)} if captions else {}
    number, valid = shape((batch,), jnp.uint32), shape((batch,), jnp.bool_)
    return Batch(images, number, valid, category=shape((batch,), jnp.int32), extras=extras)


def features(detector: VLMDiff, batch: int) -> Features:
    """Shapes of what the feature cache gives to the training step for so many images."""
    graphdef, arrays = module_state.split(detector)
    inputs = _inputs(detector, batch, captions=True)
    return jax.eval_shape(lambda arrays, inputs: module_state.merge(graphdef, arrays).encode(inputs), arrays, inputs)


def _mesh(devices: int) -> Mesh:
    found = jax.devices() if devices <= jax.device_count() else jax.devices("cpu")
    if devices > len(found):
        raise ConfigError(
            f"--devices {devices}: there are {len(found)}; virtual ones need a process of their own that has not used "
            f"jax yet, or JAX_NUM_CPU_DEVICES={devices} in the environment"
        )
    auto = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((1, devices), ("data", "fsdp"), axis_types=auto, devices=found[:devices])


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _compilable(detector: VLMDiff, mesh: Mesh) -> VLMDiff:
    """The detector, or on a CPU, which emulates bfloat16, the same in float32."""
    if not _on_cpu(mesh):
        return detector
    config, networks = detector.config, (detector.unet.config, detector.autoencoder.config, detector.text.config)
    shapes = Shapes(*networks, detector.backbone.network.config, config.image_size)
    return _abstract(shapes, "float32", config.remat)


def _casts(detector: VLMDiff, mesh: Mesh, read: float) -> float:
    """What parameters in bfloat16 take beside those in float32, where the compiler's plan does not know of them."""
    return read / 2 if detector.config.precision == "bfloat16" and _on_cpu(mesh) else 0.0


def _account(traced: jax.stages.Traced, mesh: Mesh, parts: dict[str, float]) -> dict[str, Any]:
    on_cpu, began = _on_cpu(mesh), time.perf_counter()
    lowered = traced.lower(lowering_platforms=("cuda",) if on_cpu else None)
    compiled = lowered.compile(COMPILER_OPTIONS if on_cpu else None)
    seconds = time.perf_counter() - began
    stats: Any = compiled.memory_analysis()
    results = (stats.output_size_in_bytes - stats.alias_size_in_bytes) / 1e9
    gb = {**parts, "results": results, "temporaries": stats.temp_size_in_bytes / 1e9}
    total = sum(gb.values())
    return {
        "gb": {**gb, "total": total},
        "arguments": stats.argument_size_in_bytes / 1e9,
        "fits": {str(card): total + RESERVED_GB <= card for card in CARDS_GB},
        "compiled_by": "XLA for CPU" if on_cpu else mesh.devices.flat[0].device_kind,
        "compile_seconds": seconds,
    }


def _operations(traced: jax.stages.Traced) -> float:
    return counted_operations(traced) / 1e12


def _speed(run: Callable[[], Any], images: int) -> dict[str, Any]:
    rate, device = images / fastest(run, 3), jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    measured = {"images_per_second": rate, "device": device.device_kind}
    return measured if peak is None else {**measured, "peak_gb_so_far": peak / 1e9}


def _drawn(detector: VLMDiff) -> VLMDiff:
    """The detector with random weights."""
    graphdef, shapes = module_state.split(detector)
    noise = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
    arrays = {path: draw(path, leaf.shape, noise).astype(leaf.dtype) for path, leaf in shapes.items()}
    return module_state.merge(graphdef, arrays)


def _random(generator: np.random.Generator, leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return generator.standard_normal(leaf.shape, np.float32).astype(leaf.dtype)
    return generator.integers(0, 2 if leaf.dtype == jnp.bool_ else 256, leaf.shape).astype(leaf.dtype)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    heads = ["program", "devices", "images at once", "remat", "GB per device", "temporaries", "kept"]
    heads += [*(f"fits {card} GB" for card in CARDS_GB), "TFLOP an image", "images/s"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        gb, kept = row["gb"], row.get("kept")
        line = [row["program"], row["devices"], row["micro_batch"], _yes(row.get("remat"))]
        line += [f"{gb['total']:.1f}", f"{gb['temporaries']:.1f}", "" if kept is None else f"{kept:.1f}"]
        line += [*map(_yes, row["fits"].values()), f"{row['tflop']:.2f}"]
        speed = row.get("images_per_second")
        lines.append([str(cell) for cell in line] + ["" if speed is None else f"{speed:.1f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def main(
    devices: Sequence[int],
    micro_batches: Sequence[int],
    remat: Sequence[bool],
    dtype: Literal["float32", "bfloat16"],
    size: Size,
    count_only: bool,
) -> None:
    """Prints one line of JSON for each row as soon as it is known; then, for readers, a table to stderr."""
    # If jax runs already, its devices will have to do.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(devices))
    rows = []
    for row in vlmdiff_benchmark(devices, micro_batches, remat, dtype=dtype, size=size, count_only=count_only):
        print(json.dumps(row), flush=True)
        rows.append(row)
    print(f"{table(rows)}\n{NOTE}", file=sys.stderr)
