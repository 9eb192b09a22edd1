"""DPDiff-AD at the sizes of its preset "small", jaxad against torch on the same machine in one run.

    python -m tests.parity.dpdiff_benchmark [--batch-sizes 1 16] [--rounds 5] [--backbone dinov2-small]
        [--dtype float32]

Both have the same weights, and compute in float32, or in bfloat16 as either does (torch by `torch.autocast`). A
prediction begins with the resized uint8 images and ends with scores and smoothed maps on the host, noise drawn on
either side; a training step begins with cached features on the host and ends with new parameters. The two take turns,
after one run of each that does not count; the medians are compared. Prints a row of a Markdown table for each program.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxad import parallel
from jaxad.bench._account import batch_of, random_like
from jaxad.bench._dpdiff_detectors import PROTOCOL, abstract_dpdiff
from jaxad.config import TrainConfig
from jaxad.detectors.dpdiff.denoiser import denoiser_heads, denoiser_width
from jaxad.detectors.dpdiff.detector import DPDiff
from jaxad.inference.predictor import Predictor
from jaxad.nn import module_state
from jaxad.nn.positions import resize_positions
from jaxad.training.step import DetectorTrainer
from jaxad.types import Features
from tests.parity.dpdiff_torch import TorchDPDiff

TRAINING = TrainConfig.preset("small")
COLUMNS = ["program", "images at once", "jaxad s", "torch s", "jaxad images/s", "torch images/s", "torch / jaxad"]
COLUMNS += ["jaxad CPU s", "torch CPU s", "torch / jaxad, CPU s"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="dinov2-small")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args(arguments)
    detector = small_detector(options.backbone, options.dtype)
    print(f"{jax.devices()[0].device_kind}; torch threads: {torch.get_num_threads()}")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for batch_size in options.batch_sizes:
        images = random_like(batch_of(detector, batch_size))
        ours = Predictor(detector, PROTOCOL, batch_size=batch_size, mesh=parallel.make_mesh(devices=jax.devices()[:1]))
        theirs = in_dtype(torch_prediction(twin(detector), images.images["image"]), options.dtype)
        _print("prediction", batch_size, in_turn(partial(ours, images), theirs, options.rounds))
    tokens = random_like(jax.ShapeDtypeStruct((TRAINING.batch_size, 256, detector.channels), jnp.float32))
    pair = jaxad_training(detector, tokens), in_dtype(torch_training(twin(detector), tokens), options.dtype)
    _print("training step", TRAINING.batch_size, in_turn(*pair, options.rounds))


def small_detector(backbone: str, dtype: Literal["float32", "bfloat16"] = "float32") -> DPDiff:
    """The preset's detector on a backbone of that shape, with random weights whose every branch counts."""
    shaped = abstract_dpdiff(backbone, dtype, preset="small")
    detector = module_state.drawn(shaped, np.random.default_rng(0))
    detector.channel_std[...] = jnp.ones(detector.channels)
    return detector


def twin(detector: DPDiff) -> TorchDPDiff:
    """The torch side with the weights of a detector."""
    network = detector.backbone.network
    sizes = (size(detector.config, detector.channels) for size in (denoiser_heads, denoiser_width))
    _, arrays = module_state.split(detector)
    path = "backbone/network/positions"
    cls, positions = jnp.split(jnp.asarray(arrays[path]), [1], axis=1)
    resized = resize_positions(positions, detector.grid, network.config.interpolation)
    arrays = {**arrays, path: jnp.concatenate([cls, resized], axis=1)}
    return TorchDPDiff(detector.config, network.config, detector.blocks, *sizes).load(arrays).eval()


def torch_prediction(network: TorchDPDiff, images: np.ndarray) -> Callable[[], Any]:
    """What predicts these images once."""
    given = torch.from_numpy(images)

    def run() -> Any:
        with torch.inference_mode():
            return [result.float().numpy() for result in network.predict(given)]

    return run


def in_dtype(run: Callable[[], Any], dtype: str) -> Callable[[], Any]:
    """What torch does, in bfloat16 where that is asked for."""

    def cast() -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            return run()

    return cast


def jaxad_training(detector: DPDiff, tokens: np.ndarray) -> Callable[[], None]:
    """What does an optimizer step on these tokens, one after the other."""
    trainer = DetectorTrainer(detector, TRAINING, parallel.make_mesh(devices=jax.devices()[:1]))
    state, batch = [trainer.init()], Features(tokens, detector.grid)

    def step() -> None:
        state[0], metrics = trainer.step(state[0], batch, jax.random.fold_in(jax.random.key(0), int(state[0].step)))
        jax.block_until_ready((state, metrics))

    return step


def torch_training(network: TorchDPDiff, tokens: np.ndarray) -> Callable[[], None]:
    """The same in torch."""
    config = network.config
    trained = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    optimizer = torch.optim.Adam(trained, TRAINING.learning_rate, fused=True)
    x = torch.from_numpy(tokens)
    prototypes = (len(x), config.local_prototypes + config.global_prototypes, x.shape[-1])

    def step() -> None:
        optimizer.zero_grad()
        t = torch.randint(*config.train_timesteps, (len(x),))
        network.loss(x, t, (torch.randn_like(x), torch.randn(prototypes))).backward()
        torch.nn.utils.clip_grad_norm_(trained, TRAINING.clip_norm or float("inf"))
        optimizer.step()

    return step


def in_turn(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Median seconds, and processor seconds, of the two, run one after the other."""
    taken: tuple[list[Any], list[Any]] = [], []
    for number in range(rounds + 1):
        for run, times in zip((ours, theirs), taken, strict=True):
            began = np.array([time.perf_counter(), time.process_time()])
            run()
            if number:
                times.append(np.array([time.perf_counter(), time.process_time()]) - began)
    ours_median, theirs_median = (np.median(times, axis=0) for times in taken)
    return ours_median, theirs_median


def _print(program: str, images: int, taken: tuple[np.ndarray, np.ndarray]) -> None:
    (ours, our_cpu), (theirs, their_cpu) = taken
    cells = [f"{ours:.3f}", f"{theirs:.3f}", f"{images / ours:.2f}", f"{images / theirs:.2f}", f"{theirs / ours:.2f}"]
    cells += [f"{our_cpu:.3f}", f"{their_cpu:.3f}", f"{their_cpu / our_cpu:.2f}"]
    print(f"| {program} | {images} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
