"""Forward pass of every full-size network, jaxad against torch on the same machine in one run.

    python -m tests.parity.models_benchmark [--networks NAME ...] [--repeats 2] [--batch-size 1]

Both have random weights, float32 and the same input sizes; the torch side is that of transformers, diffusers, open_clip
or timm in evaluation mode. The two are timed one right after the other, the fastest of the repeats counts. Prints one
row of a Markdown table for each network.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable

import diffusers
import jax.numpy as jnp
import open_clip
import timm
import torch
import transformers

from jaxad.bench.models import compiled_forward, fastest, peak_rate, select


def build(name: str) -> Callable[..., object]:
    """The network of that name in torch, as a function of (images or ids or latents, ...)."""
    family, _, variant = name.partition(" ")
    if name.startswith("DINOv2"):
        return timm.create_model(f"vit_{_size(name)}_patch14_{_registers(name)}dinov2", img_size=448, num_classes=0)
    if family == "DINO":
        return timm.create_model(f"vit_{_size(variant)}_patch{variant[2:]}_224", img_size=256, num_classes=0)
    if name.startswith("ViT-"):
        return timm.create_model(f"vit_{_size(name[4:])}_patch16_224", num_classes=0)
    if name.startswith("ResNet"):
        return timm.create_model(name.lower().replace("-", ""), num_classes=0)
    if name.startswith("EfficientNet"):
        kind = name.removeprefix("EfficientNet-").lower()
        prefix = "tf_" if kind.startswith("lite") else ""
        return timm.create_model(f"{prefix}efficientnet_{kind}", num_classes=0)
    if name.startswith(("CLIP", "OpenCLIP")):
        published = {"B/32": "ViT-B-32", "B/16": "ViT-B-16", "L/14": "ViT-L-14", "B/16+": "ViT-B-16-plus-240"}
        return open_clip.CLIP(**open_clip.get_model_config(published[name.split("ViT-")[1].split(" ")[0]]))
    return STABLE_DIFFUSION[name]()


STABLE_DIFFUSION = {
    "SD 1.5 UNet": lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768),
    "SD 2 inpainting UNet": lambda: diffusers.UNet2DConditionModel(
        in_channels=9, attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True
    ),
    "SD AutoencoderKL": lambda: diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    ),
    "SD 1.5 text tower": lambda: _text_tower(768, 12, 12, 3072),
    "SD 2 text tower": lambda: _text_tower(1024, 23, 16, 4096),
}


def forward(network, shapes: list[tuple[int, ...]]) -> Callable[[], object]:
    """One forward pass on random inputs of these shapes (images NHWC)."""
    network.eval()
    first = torch.randn(shapes[0][0], shapes[0][-1], *shapes[0][1:-1]) if len(shapes[0]) == 4 else None
    ids = torch.full(shapes[-1], 401)
    if isinstance(network, diffusers.UNet2DConditionModel):
        return lambda: network(first, torch.full((len(first),), 401), torch.randn(*shapes[2])).sample
    if isinstance(network, diffusers.AutoencoderKL):
        return lambda: network.decode(network.encode(first).latent_dist.mode()).sample
    if isinstance(network, open_clip.CLIP):
        return lambda: (network.encode_image(first), network.encode_text(ids))
    if isinstance(network, transformers.CLIPTextModel):
        return lambda: network(ids)
    return lambda: network.forward_features(first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=1)
    options = parser.parse_args()
    peak, peak_from = peak_rate(jnp.dtype("float32"))
    print(f"peak: {peak / 1e9:.0f} GFLOP/s, {peak_from}; torch threads: {torch.get_num_threads()}")
    print("| network | input | million parameters | GFLOP | jaxad s | torch s | jaxad / torch | share of peak |")
    print("|---|---|---|---|---|---|---|---|")
    for network in select(options.networks):
        run, flops = compiled_forward(network, jnp.dtype("float32"), options.batch_size)
        ours = fastest(run, options.repeats)
        del run
        gc.collect()
        shapes = [(options.batch_size, *leaf.shape[1:]) for leaf in network.inputs]
        with torch.inference_mode():
            theirs = fastest(forward(build(network.name), shapes), options.repeats)
        gc.collect()
        size = " x ".join(map(str, network.inputs[0].shape[1:3]))
        numbers = f"{network.parameters / 1e6:.1f} | {flops / options.batch_size / 1e9:.1f} | {ours:.2f} | {theirs:.2f}"
        print(f"| {network.name} | {size} | {numbers} | {ours / theirs:.2f} | {flops / ours / peak:.2f} |", flush=True)


def _size(name: str) -> str:
    letter = name.removeprefix("DINOv2-")[0]
    return {"S": "small", "B": "base", "L": "large", "g": "giant"}[letter]


def _registers(name: str) -> str:
    return "reg4_" if name.endswith("registers") else ""


def _text_tower(width: int, depth: int, heads: int, hidden: int) -> transformers.CLIPTextModel:
    shape = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**shape, intermediate_size=hidden))


if __name__ == "__main__":
    main()
