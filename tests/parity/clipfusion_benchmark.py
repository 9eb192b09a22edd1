"""Prediction of one image by CLIPFusion at its published size, jaxad against torch on the same machine in one run.

    python -m tests.parity.clipfusion_benchmark [--shots 0 2] [--repeats 2]

Both have random weights, float32, and the prompts and references remembered before. What is timed begins with the
resized uint8 images and ends with score and smoothed map: jaxad's compiled `predict`, and the torch implementation that
parity tests compare it with. All states and timesteps are one batch of the UNet on either side. The fastest of the
repeats after a first run counts; one side is held in memory at a time. Prints a row of a Markdown table for each number
of references.
"""

from __future__ import annotations

import argparse
import gc
import resource
from collections.abc import Callable, Sequence

import jax
import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from jaxad.bench.clipfusion import Shapes, abstract_detector, compiled_prediction, network_shapes, settings
from jaxad.bench.models import fastest
from jaxad.config import CLIPFusionConfig
from tests.parity.clipfusion_torch import Memory, TorchFusion

F = torch.nn.functional
SIGMA, SIDE = 4, 400
"""Gaussian and side of the map of protocol `winclip`."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--size", choices=("published", "one-pass", "tiny"), default="published")
    options = parser.parse_args(arguments)
    config, shapes = settings("default", options.size, "float32"), network_shapes(options.size)
    print(f"{jax.devices()[0].device_kind}; torch threads: {torch.get_num_threads()}")
    print("| shots | jaxad s | torch s | jaxad / torch | largest memory so far, GB |")
    print("|---|---|---|---|---|")
    for shots in options.shots:
        run = compiled_prediction(abstract_detector(config, options.size, shots), 1)
        ours = fastest(run, options.repeats)
        del run
        gc.collect()
        with torch.inference_mode():
            theirs = fastest(torch_prediction(config, shapes, shots), options.repeats)
        gc.collect()
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"| {shots} | {ours:.4g} | {theirs:.4g} | {ours / theirs:.3g} | {most:.1f} |", flush=True)


def torch_prediction(config: CLIPFusionConfig, shapes: Shapes, shots: int) -> Callable[[], object]:
    """The torch side with random weights, on a random image with random references."""
    vision, vae, unet = shapes
    sizes = {"image_size": vision.image_size, "patch_size": vision.patch, "width": vision.width, "layers": vision.depth}
    ratios = {"head_width": vision.width // vision.heads, "mlp_ratio": vision.hidden / vision.width}
    # Texts were embedded before: this tower is never run.
    text = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    network = TorchFusion(
        open_clip.CLIP(vision.projection, {**sizes, **ratios}, text, quick_gelu=vision.activation == "quick_gelu"),
        AutoencoderKL.from_config(vae.to_diffusers()),
        UNet2DConditionModel.from_config(unet.to_diffusers()),
        blocks=[block - 1 if block > 0 else vision.depth + block for block in config.clip_blocks],
        taps=config.diffusion_taps,
        timesteps=config.language_timesteps,
        size=config.output_size,
    )
    noise = np.random.default_rng(0)
    clip_image, image = (
        noise.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (vision.image_size, config.image_size)
    )
    tapped = network.tapped(image, torch.randn(77, unet.cross_attention_dim)) if shots else []
    memory = Memory(
        F.normalize(torch.randn(2, vision.projection), dim=-1),
        torch.randn(len(config.states), 77, unet.cross_attention_dim),
        [slice(12, 14)] * len(config.states),
        [
            torch.randn(shots * (vision.image_size // vision.patch) ** 2, vision.width)
            for _ in config.clip_blocks
            if shots
        ],
        [torch.randn(shots * len(tokens), tokens.shape[1]) for tokens in tapped],
    )

    def predict() -> tuple[torch.Tensor, torch.Tensor]:
        map, score = network.predict(clip_image, image, memory)
        return smoothed(map), score

    return predict


def smoothed(map: torch.Tensor) -> torch.Tensor:
    """The map [s s] as the protocol has it."""
    offsets = torch.arange(-4 * SIGMA, 4 * SIGMA + 1)
    kernel = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    kernel = (kernel / kernel.sum()).reshape(1, 1, -1, 1)
    x = F.interpolate(map[None, None], (SIDE, SIDE), mode="bilinear", align_corners=False)
    x = F.pad(x, [4 * SIGMA] * 4, mode="reflect")
    return F.conv2d(F.conv2d(x, kernel), kernel.transpose(2, 3))[0, 0]


if __name__ == "__main__":
    main()
