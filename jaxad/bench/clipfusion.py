"""What CLIPFusion costs for one image: milliseconds, and operations by part, with random weights (paper, Table 7).

`jaxad bench clipfusion`. Prompts and references were remembered before, as in the paper; what is timed begins with the
resized uint8 images on the host and ends with score and smoothed map there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxad import metrics, parallel
from jaxad.bench import benchmarks
from jaxad.bench._plan import plan, print_plans
from jaxad.bench._topologies import Topology, find_topologies
from jaxad.bench.models import counted_operations, draw, fastest, peak_rate
from jaxad.config import CLIPFusionConfig, CLIPFusionPreset, Precision
from jaxad.detectors.clipfusion.detector import MEMORIES, CLIPFusion
from jaxad.detectors.clipfusion.maps import reference_distance
from jaxad.detectors.clipfusion.networks import FusionNetworks, compute_types
from jaxad.errors import ConfigError
from jaxad.inference.predictor import Predictor
from jaxad.models.clip.config import CLIPConfig, VisionConfig
from jaxad.models.clip.towers import abstract_vision_tower
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import abstract_unet
from jaxad.nn import module_state
from jaxad.nn.variables import Memory
from jaxad.types import Array, Batch

Size = Literal["published", "one-pass", "tiny"]
PROTOCOL = "winclip"
PUBLISHED_MS = {
    "default": {0: 783, 1: 1240, 2: 1269, 4: 1278},
    "winclip": {0: 4782, 1: 9514, 2: 9633, 4: 9710},
}
"""Table 7 by preset and shots: one image at a time on an A100 of 40 GB."""

ONE_PASS: dict[str, Any] = {
    "states": ("damage",),
    "language_timesteps": (201,),
    "diffusion_taps": ((201, 3),),
}
TINY: dict[str, Any] = {
    "states": ("crack", "residue"),
    "clip_blocks": (2, -1),
    "image_size": 16,
    "diffusion_taps": ((201, 1), (801, 0)),
    "language_timesteps": (201, 401),
    "output_size": 20,
}
"""For tests, on networks of a few channels."""


class Shapes(NamedTuple):
    """Of the networks."""

    vision: VisionConfig
    vae: AutoencoderConfig
    unet: UNetConfig


def clipfusion_benchmark(
    shots: Sequence[int] = (0, 1, 2, 4),
    *,
    preset: CLIPFusionPreset = "default",
    size: Size = "published",
    dtype: Precision = "auto",
    batch: int = 1,
    repeats: int = 5,
    count_only: bool = False,
) -> Iterator[dict[str, Any]]:
    """Counts operations of the compiled prediction, and times it, for each number of references.

    Args:
        shots: references of the image's category.
        preset: of CLIPFusionConfig.
        size: "published"; "one-pass", the published networks with one state and one timestep; "tiny", for tests.
        dtype: compute type; "auto" for those that users' runs have on this device.
        batch: images at once.
        repeats: timed runs after the first; the fastest counts.
        count_only: whether nothing is run, so that no array of a network's size is made.

    Yields:
        For each number of shots `preset`, `size`, `dtype`, `types` of the networks, `batch`, `shots`; `gflop` of one
        image and its parts by name ("other" are maps, fusion and post-processing). Unless only counted, also `ms` of
        one image, `share` of the device's peak (see `jaxad.bench.models`), `device`, and `published_ms` where the paper
        has it.
    """
    config = settings(preset, size, dtype)
    types = compute_types(dtype)
    # Of the type that the UNet and CLIP share, which do nearly all of the work.
    peak = None if count_only else peak_rate(types["UNet"])
    used = [name for name in types if ("clip" if name == "CLIP" else "diffusion") in config.models]
    unet: dict[bool, float] = {}
    for k in shots:
        detector = abstract_detector(config, size, k)
        parts = operations(detector, batch, unet)
        row: dict[str, Any] = {"preset": preset, "size": size, "dtype": dtype, "batch": batch, "shots": k}
        row |= {"types": {name: str(types[name]) for name in used}}
        row |= {"gflop": sum(parts.values()), "parts": parts}
        if peak is not None:
            seconds = fastest(compiled_prediction(detector, batch), repeats) / batch
            row |= {"ms": 1e3 * seconds, "share": 1e9 * row["gflop"] / seconds / peak[0], "peak_from": peak[1]}
            row["device"] = jax.devices()[0].device_kind
            if size == "published" and k in PUBLISHED_MS.get(preset, {}):
                row["published_ms"] = PUBLISHED_MS[preset][k]
        yield row


def operations(detector: CLIPFusion, batch: int, unet: dict[bool, float] | None = None) -> dict[str, float]:
    """Operations of one image in 1e9 by part, from the compiler's account of programs that are never run.

    Args:
        detector: with or without arrays.
        batch: images at once.
        unet: keeps what the UNet's passes cost without and with references, which is the same for any number of them.
    """
    # The account counts the body of a loop once, so that there must be none.
    config = dataclasses.replace(detector.config, chunk=1 << 24, memory_gb=1e9)
    detector = _with_config(detector, config)
    graphdef, arrays = module_state.split(detector)
    inputs = _batch(detector, batch)
    features = jax.eval_shape(lambda a, b: module_state.merge(graphdef, a).encode(b), arrays, inputs)
    context = jax.eval_shape(lambda a, b: module_state.merge(graphdef, a).context(b), arrays, inputs)
    few_shot, language = detector.few_shot, "language" in config.modalities

    def count(run: Callable[..., Any], *given: Any) -> float:
        def program(arrays: Any, *given: Any) -> Any:
            return run(module_state.merge(graphdef, arrays), *given)

        return counted_operations(jax.jit(program).trace(arrays, *given)) / batch / 1e9

    def whole(d: CLIPFusion, inputs: Batch) -> Any:
        judgement = d.judge(d.encode(inputs), inputs, jax.random.split(jax.random.key(0), batch))
        return judgement.scores, metrics.protocol(PROTOCOL).postprocess(judgement.maps)[0]

    def passes(d: CLIPFusion, images: dict[str, Array], texts: dict[str, Array]) -> Any:
        assert d.mapdiff is not None
        assert d.backbone.unet is not None
        banks = [bank[...] for bank in d.diffusion_banks] if few_shot else []
        return d.mapdiff.states(d.backbone.unet, images, texts, banks, texts["bank"], language)

    parts: dict[str, float] = {}
    if detector.patchclip:
        parts["CLIP"] = count(lambda d, b: d.patchclip.features(d.backbone.vision, b.images["clip"]), inputs)
    if detector.mapdiff:
        parts["autoencoder"] = count(
            lambda d, b: d.mapdiff.latents(d.backbone.vae, b.images["diffusion"], b.seed), inputs
        )
    searches = {"CLIP": 0.0, "diffusion": 0.0}
    states = len(config.states) if config.vision_prompt == "states" else 1
    if few_shot:
        reference = jax.eval_shape(lambda a, b: module_state.merge(graphdef, a).reference_tokens(b), arrays, inputs)
        banks = [*detector.clip_banks, *detector.diffusion_banks]
        for number, (tokens, bank) in enumerate(zip(reference, banks, strict=True)):
            found = count(
                lambda _, t, e, w: reference_distance(t, e, w, config.chunk), tokens, bank[...], inputs.category
            )
            if number < len(detector.clip_banks):
                searches["CLIP"] += found
            else:
                searches["diffusion"] += found * states
    if detector.mapdiff:
        known = {} if unet is None else unet
        if few_shot not in known:
            known[few_shot] = count(passes, features.extras, context) - searches["diffusion"]
        parts["UNet"] = known[few_shot]
    parts["references"] = sum(searches.values())
    return {**parts, "other": count(whole, inputs) - sum(parts.values())}


def main(
    shots: tuple[int, ...] = (0, 1, 2, 4),
    preset: CLIPFusionPreset = "default",
    size: Size = "published",
    dtype: Precision = "auto",
    batch_size: int = 1,
    count_only: bool = False,
    topology: tuple[str, ...] = (),
) -> None:
    """Time CLIPFusion's prediction of one image and count its operations, with random weights.

    Args:
        shots: Numbers of references.
        preset: The published setting, one of its models alone, or a baseline.
        size: The published networks; the same with one state and one timestep; or networks of a few channels.
        dtype: Compute type; "auto" takes the types that other commands compute in on this device; plans are
            in bfloat16 throughout, though accelerators keep the autoencoder in float32.
        batch_size: Images at once.
        count_only: Count operations, run nothing.
        topology: Plan the prediction for these accelerators, which need not be there, instead: h100:1, v5e, a100:1.

    Raises:
        ConfigError: impossible numbers, all of them; an unknown topology, or one whose compiler is not installed.
    """
    problems = [f"batch_size = {batch_size}: must be at least 1"] if batch_size < 1 else []
    if not shots or min(shots) < 0:
        problems.append(f"shots = {' '.join(map(str, shots))}: needs numbers of at least 0")
    if problems:
        raise ConfigError("\n  ".join(problems))
    if topology:
        low: Precision = "bfloat16" if dtype == "auto" else dtype
        topologies = find_topologies(topology)
        print_plans(
            topologies, lambda each: clipfusion_plans(each, settings(preset, size, low), size, shots, batch_size)
        )
        return
    rows = clipfusion_benchmark(shots, preset=preset, size=size, dtype=dtype, batch=batch_size, count_only=count_only)
    for row in rows:
        print(json.dumps(row), flush=True)


def clipfusion_plans(
    topology: Topology, config: CLIPFusionConfig, size: Size, shots: Sequence[int], batch: int
) -> Iterator[dict[str, Any]]:
    """Plans of the prediction with each number of references; rows as of `jaxad.bench._plan.plan`."""
    mesh = topology.mesh()
    for k in shots:
        detector = abstract_detector(config, size, k)
        predictor = Predictor(module_state.without_arrays(detector), PROTOCOL, batch_size=batch, mesh=mesh)
        inputs = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), _batch(detector, batch))
        row = {"program": f"prediction, {k} shots", "size": size, "dtype": config.precision, "batch_size": batch}
        prepare = partial(compiled_prediction, detector, batch, mesh)
        yield row | plan(predictor.trace(inputs), topology, images=batch, prepare=prepare, dtype=config.precision)


def settings(preset: CLIPFusionPreset, size: Size, dtype: Precision) -> CLIPFusionConfig:
    """The preset's settings; for a smaller size fewer passes, for "tiny" also smaller images."""
    changes = {"published": {}, "one-pass": ONE_PASS, "tiny": TINY}[size]
    return CLIPFusionConfig.preset(preset, **{**changes, "precision": dtype})


def network_shapes(size: Size) -> Shapes:
    """Shapes of CLIP's image tower, autoencoder and UNet: the published ones but for "tiny"."""
    if size != "tiny":
        return Shapes(CLIPConfig.vit_b_16_plus_240().vision, AutoencoderConfig(), UNetConfig.sd2(inpainting=True))
    return Shapes(
        VisionConfig(width=16, depth=3, heads=2, hidden=32, patch=4, image_size=12, projection=8),
        AutoencoderConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4),
        UNetConfig(
            in_channels=9,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_attention=(True, False),
            up_attention=(False, True),
            heads=(2, 4),
            cross_attention_dim=12,
            norm_num_groups=4,
        ),
    )


def abstract_detector(config: CLIPFusionConfig, size: Size, shots: int) -> CLIPFusion:
    """A detector of one category whose networks have no arrays yet, with random texts and references."""
    shapes, types = network_shapes(size), compute_types(config.precision)
    clip, diffusion = ("clip" in config.models), ("diffusion" in config.models)
    networks = FusionNetworks(
        abstract_vision_tower(shapes.vision, types["CLIP"]) if clip else None,
        jnp.float32(100.0) if clip else None,
        abstract_autoencoder(shapes.vae, types["autoencoder"]) if diffusion else None,
        abstract_unet(shapes.unet, types["UNet"]) if diffusion else None,
        sources=dict.fromkeys(config.models, "random"),
        sha256="",
        bytes=0,
    )
    detector = CLIPFusion(config, networks)
    detector.categories = ("part",)
    noise, states = np.random.default_rng(0), len(config.states)

    def random(*shape: int) -> Memory:
        values = noise.standard_normal(shape, np.float32)
        return Memory(jnp.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True)))

    if clip:
        detector.clip_texts = random(1, 2, shapes.vision.projection or shapes.vision.width)
    if diffusion:
        width = shapes.unet.cross_attention_dim
        detector.queries, detector.reference = random(1, states, 77, width), random(1, 77, width)
        # Two tokens, the most that any of the published states has.
        detector.places = Memory(jnp.tile(jnp.array([12, 13], jnp.int32), (1, states, 1)))
        detector.used = Memory(jnp.ones((1, states, 2), bool))
        detector.weights = Memory(jnp.full((1, states), 1 / states))
    if shots:
        graphdef, arrays = module_state.split(detector)
        tokens = jax.eval_shape(
            lambda a, b: module_state.merge(graphdef, a).reference_tokens(b), arrays, _batch(detector, 1)
        )
        for number, found in enumerate(tokens):
            bank = random(1, shots * found.shape[1], found.shape[2])
            if number < len(detector.clip_banks):
                detector.clip_banks[number] = bank
            else:
                detector.diffusion_banks[number - len(detector.clip_banks)] = bank
    return detector


def _with_config(detector: CLIPFusion, config: CLIPFusionConfig) -> CLIPFusion:
    """The same networks and memories under other settings."""
    changed = CLIPFusion(config, detector.backbone)
    changed.categories = detector.categories
    for name in MEMORIES:
        setattr(changed, name, getattr(detector, name))
    return changed


def compiled_prediction(detector: CLIPFusion, batch: int, mesh: Mesh | None = None) -> Callable[[], Any]:
    """Prediction with random weights, compiled at its first run; waits for scores and maps.

    `mesh` None is one device.
    """
    graphdef, shapes = module_state.split(detector)
    noise = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
    types = compute_types(detector.config.precision)
    # As CLIPFusion holds them: Stable Diffusion in its compute types, CLIP in float32.
    held = {"backbone/vae/": types["autoencoder"], "backbone/unet/": types["UNet"]}

    def filled(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        dtype = next((dtype for part, dtype in held.items() if path.startswith(part)), leaf.dtype)
        return jnp.asarray(draw(path, leaf.shape, noise), dtype)

    arrays = {
        path: filled(path, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf for path, leaf in shapes.items()
    }
    mesh = mesh or parallel.make_mesh(devices=jax.devices()[:1])
    predictor = Predictor(module_state.merge(graphdef, arrays), PROTOCOL, batch_size=batch, mesh=mesh)
    inputs = _batch(detector, batch)
    return lambda: predictor(inputs)


def _batch(detector: CLIPFusion, batch: int) -> Batch:
    noise = np.random.default_rng(0)
    images: dict[str, Array] = {
        name: noise.integers(0, 256, (batch, view.height, view.width, 3), np.uint8)
        for name, view in detector.inputs.views.items()
    }
    return Batch(images, np.arange(batch, dtype=np.uint32), np.ones(batch, bool), category=np.zeros(batch, np.int32))


benchmarks.register("clipfusion", main)
