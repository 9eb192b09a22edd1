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
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Var
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.bench.account import CARDS_GB, NOTE, account_of, drawn, held, mesh_of, on_cpu, operations, random_like, speed
from jaxad.config import FirstStageConfig, FirstStageTrainConfig, TrainConfig, VLMDiffConfig, to_json
from jaxad.detectors.vlmdiff.detector import VLMDiff
from jaxad.detectors.vlmdiff.sgn import controlled_noise
from jaxad.inference.predictor import Predictor
from jaxad.models.clip.config import TextConfig
from jaxad.models.convnets.lpips import abstract_lpips
from jaxad.models.convnets.vgg import WIDTHS as VGG_WIDTHS
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.vit.config import ViTConfig
from jaxad.nn import module_state
from jaxad.nn.normalization import IMAGENET
from jaxad.nn.variables import Frozen
from jaxad.training.autoencoder.loss import AUTOENCODER, LPIPS
from jaxad.training.autoencoder.trainer import AutoencoderTrainer
from jaxad.training.trainer import DetectorTrainer
from jaxad.types import Batch, Features

Size = Literal["published", "tiny"]
Program = Literal["prediction", "training", "autoencoder"]
PROTOCOL = "diad"


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
    timed = not count_only and (size == "tiny" or jax.default_backend() != "cpu")
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
    account = account_of(trainer.trace(inputs), mesh, gb)
    account["parameters"] = {name: sum(leaf.size for leaf in part.values()) for name, part in divided.items()}
    account["gradients"] = gb["parameters"]
    account["kept"] = kept(detector, divided["trained"], config.batch_size // mesh.size)
    if timed:
        images = config.batch_size * config.accumulate
        account |= speed(account, lambda: _steps(DetectorTrainer(drawn(detector), config, mesh), inputs), images)
    return account


def autoencoder_account(size: Size, train: FirstStageTrainConfig, mesh: Mesh, timed: bool = False) -> dict[str, Any]:
    """Memory and operations of a step of autoencoder finetuning with LPIPS, before a discriminator joins (SPEC 1.5).

    Args:
        size: as for `vlmdiff_benchmark`.
        train: batch size, accumulation.
        mesh, timed: as for `training_account`.
    """
    shapes = PUBLISHED if size == "published" else TINY
    widths = VGG_WIDTHS if size == "published" else (8,) * len(VGG_WIDTHS)
    networks = {AUTOENCODER: abstract_autoencoder(shapes.autoencoder), LPIPS: abstract_lpips(widths)}
    config = FirstStageConfig(image_size=shapes.image_size)
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
        account |= speed(account, lambda: _steps(AutoencoderTrainer(real, config, train, mesh), images), train.images)
    return account


def _steps(trainer: DetectorTrainer | AutoencoderTrainer, inputs: Any) -> Callable[[], None]:
    """What does an optimizer step on random inputs of such shapes, one after the other."""
    state, batch, key = [trainer.init()], random_like(inputs), jax.random.key(0)

    def step() -> None:
        state[0], metrics = trainer.step(state[0], batch, key)
        jax.block_until_ready((state, metrics))

    return step


def prediction_account(detector: VLMDiff, batch: int, timed: bool = False) -> dict[str, Any]:
    """Memory and operations of the prediction of `batch` images on one device; arguments as for `training_account`."""
    mesh = mesh_of(1)
    arrays, inputs = module_state.split(detector)[1], _inputs(detector, batch)
    gb = {
        "parameters": held(parallel.shard_parameters(arrays, mesh)),
        "batch": held(parallel.shard_batch(inputs, mesh)),
    }
    gb["casts"] = _casts(detector, mesh, gb["parameters"])
    predictor = Predictor(_compilable(detector, mesh), PROTOCOL, batch_size=batch, mesh=mesh)
    account = account_of(predictor.trace(inputs), mesh, gb)
    account["parameters"] = {"all": sum(leaf.size for leaf in arrays.values())}
    account["tflop"] = prediction_operations(detector)
    if timed:

        def prepare() -> Callable[[], Any]:
            real, images = Predictor(drawn(detector), PROTOCOL, batch_size=batch, mesh=mesh), random_like(inputs)
            return lambda: real(images)

        account |= speed(account, prepare, batch)
    return account


def training_operations(detector: VLMDiff) -> float:
    """Operations in 1e12 that training spends on one image, by the compiler's account of the step; runs nothing."""
    trainer = DetectorTrainer(detector, VLMDiffConfig.training(batch_size=1, accumulate=1), mesh_of(1))
    return operations(trainer.trace(features(detector, 1)))


def prediction_operations(detector: VLMDiff) -> float:
    """Operations in 1e12 of the prediction of one image; runs nothing."""
    inputs, steps = _inputs(detector, 1), detector.config.sampling_steps
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


def abstract_vlmdiff(size: Size, dtype: Literal["float32", "bfloat16"], remat: bool = True) -> VLMDiff:
    """The detector without arrays."""
    return _abstract(PUBLISHED if size == "published" else TINY, dtype, remat)


def _abstract(shapes: Shapes, dtype: Literal["float32", "bfloat16"], remat: bool) -> VLMDiff:
    config = VLMDiffConfig(image_size=shapes.image_size, precision=dtype, remat=remat)
    networks = {"unet": shapes.unet, "autoencoder": shapes.autoencoder, "text": shapes.text}
    values = {"network": "vit", "shape": to_json(shapes.backbone), "normalization": to_json(IMAGENET), "dtype": dtype}
    backbone = {**values, "id": config.backbone, "sha256": "", "bytes": 0}
    structure = {name: to_json(shape) for name, shape in networks.items()}
    return VLMDiff.abstract(config, {"backbone": backbone, "networks": {**structure, "identity": []}})


def divide(detector: VLMDiff, trainer: DetectorTrainer) -> dict[str, dict[str, Any]]:
    """The arrays by path that are "trained", those that the loss only reads ("fixed"), and those that it does not."""
    _, frozen, trained, fixed = module_state.split(detector, Frozen, nnx.Param, ...)
    return {"trained": trained, "fixed": fixed, "frozen": frozen}


def _inputs(detector: VLMDiff, batch: int, captions: bool = False) -> Batch:
    shape: Any = jax.ShapeDtypeStruct
    images = {name: shape((batch, v.height, v.width, 3), jnp.uint8) for name, v in detector.inputs.views.items()}
    extras = {"caption": shape((batch, detector.text.config.context), jnp.int32)} if captions else {}
    number, valid = shape((batch,), jnp.uint32), shape((batch,), jnp.bool_)
    return Batch(images, number, valid, category=shape((batch,), jnp.int32), extras=extras)


def features(detector: VLMDiff, batch: int) -> Features:
    """Shapes of what the feature cache gives to the training step for so many images."""
    graphdef, arrays = module_state.split(detector)
    inputs = _inputs(detector, batch, captions=True)
    return jax.eval_shape(lambda arrays, inputs: module_state.merge(graphdef, arrays).encode(inputs), arrays, inputs)


def _compilable(detector: VLMDiff, mesh: Mesh) -> VLMDiff:
    """The detector, or on a CPU, which emulates bfloat16, the same in float32."""
    if not on_cpu(mesh):
        return detector
    config, networks = detector.config, (detector.unet.config, detector.autoencoder.config, detector.text.config)
    shapes = Shapes(*networks, detector.backbone.network.config, config.image_size)
    return _abstract(shapes, "float32", config.remat)


def _casts(detector: VLMDiff, mesh: Mesh, read: float) -> float:
    """What parameters in bfloat16 take beside those in float32, where the compiler's plan does not know of them."""
    return read / 2 if detector.config.precision == "bfloat16" and on_cpu(mesh) else 0.0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    heads = ["program", "devices", "images at once", "remat", "GB per device", "temporaries", "kept"]
    heads += [*(f"fits {card} GB" for card in CARDS_GB), "TFLOP an image", "a step", "images/s"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        gb, kept = row["gb"], row.get("kept")
        line = [row["program"], row["devices"], row["micro_batch"], _yes(row.get("remat"))]
        line += [f"{gb['total']:.1f}", f"{gb['temporaries']:.1f}", "" if kept is None else f"{kept:.1f}"]
        step, rate = row.get("step_tflop"), row.get("images_per_second")
        line += [*map(_yes, row["fits"].values()), f"{row['tflop']:.2f}", "" if step is None else f"{step:.1f}"]
        line += [row.get("not_timed", "") if rate is None else f"{rate:.1f}"]
        lines.append([str(cell) for cell in line])
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
    programs: Sequence[Program],
    batch_size: int,
) -> None:
    """Prints one line of JSON for each row as soon as it is known; at the end, for readers, a table to stderr."""
    # If jax runs already, its devices will have to do.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(devices))
    options: Any = {"dtype": dtype, "size": size, "count_only": count_only}
    options |= {"programs": programs, "batch_size": batch_size}
    rows = []
    try:
        for row in vlmdiff_benchmark(devices, micro_batches, remat, **options):
            print(json.dumps(row), flush=True)
            rows.append(row)
    finally:
        # Also where a row fails or takes too long.
        print(f"{table(rows)}\n{NOTE}", file=sys.stderr)
