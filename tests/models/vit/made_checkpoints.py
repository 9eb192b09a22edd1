"""Small random DINOv2 checkpoints in Hugging Face layout, and what such a network computes, in plain numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.special import erf, expit

WIDTH, DEPTH, HEADS, PATCH, SIDE = 24, 3, 3, 7, 5


def write_dinov2(folder: Path, *, registers: int = 0, swiglu: bool = False, dtype=np.float32) -> dict[str, np.ndarray]:
    """A checkpoint of 3 blocks, 24 wide, patch 7, 5x5 positions; returns its tensors in float64."""
    config = {
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "image_size": SIDE * PATCH,
        "patch_size": PATCH,
        "use_swiglu_ffn": swiglu,
        **({"num_register_tokens": registers} if registers else {}),
    }
    rng = np.random.default_rng(0)
    tensors = {name: value.astype(dtype) for name, value in _draw(rng, registers, swiglu).items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return {name: value.astype(np.float64) for name, value in tensors.items()}


def forward(tensors: dict[str, np.ndarray], images: np.ndarray, positions: np.ndarray) -> list[np.ndarray]:
    """Output of every block and of the final norm for images [b h w 3], given patch positions [h*w c]."""
    b, height, width, _ = images.shape
    kernel = tensors["embeddings.patch_embeddings.projection.weight"]
    tokens = np.zeros((b, height // PATCH, width // PATCH, WIDTH))
    for row in range(height // PATCH):
        for column in range(width // PATCH):
            patch = images[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            tokens[:, row, column] = np.einsum("bhwi,oihw->bo", patch, kernel)
    tokens += tensors["embeddings.patch_embeddings.projection.bias"]
    leading = [tensors["embeddings.cls_token"] + tensors["embeddings.position_embeddings"][:, :1]]
    if "embeddings.register_tokens" in tensors:
        leading.append(tensors["embeddings.register_tokens"])
    leading = np.repeat(np.concatenate(leading, axis=1), b, axis=0)
    x = np.concatenate([leading, tokens.reshape(b, -1, WIDTH) + positions], axis=1)
    outputs = []
    for index in range(DEPTH):
        block = {
            name.removeprefix(f"encoder.layer.{index}."): value
            for name, value in tensors.items()
            if name.startswith(f"encoder.layer.{index}.")
        }
        x = x + _attention(block, _norm(block, "norm1", x)) * block["layer_scale1.lambda1"]
        x = x + _feed_forward(block, _norm(block, "norm2", x)) * block["layer_scale2.lambda1"]
        outputs.append(x)
    return [*outputs, _norm(tensors, "layernorm", x)]


def _draw(rng: np.random.Generator, registers: int, swiglu: bool) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {
        "embeddings.cls_token": rng.normal(size=(1, 1, WIDTH)),
        "embeddings.mask_token": np.zeros((1, WIDTH)),
        "embeddings.position_embeddings": rng.normal(size=(1, 1 + SIDE**2, WIDTH)),
        "embeddings.patch_embeddings.projection.weight": rng.normal(size=(WIDTH, 3, PATCH, PATCH)) / 12,
        "embeddings.patch_embeddings.projection.bias": rng.normal(size=WIDTH),
    }
    if registers:
        tensors["embeddings.register_tokens"] = rng.normal(size=(1, registers, WIDTH))

    def linear(name: str, outputs: int, inputs: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        tensors[f"{name}.bias"] = rng.normal(scale=0.2, size=outputs)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = rng.normal(1, 0.2, size=WIDTH)
        tensors[f"{name}.bias"] = rng.normal(scale=0.2, size=WIDTH)

    for index in range(DEPTH):
        block = f"encoder.layer.{index}"
        for part in ("attention.attention.query", "attention.attention.key", "attention.attention.value"):
            linear(f"{block}.{part}", WIDTH, WIDTH)
        linear(f"{block}.attention.output.dense", WIDTH, WIDTH)
        if swiglu:
            linear(f"{block}.mlp.weights_in", 2 * 64, WIDTH)
            linear(f"{block}.mlp.weights_out", WIDTH, 64)
        else:
            linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
            linear(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
        for branch in (1, 2):
            norm(f"{block}.norm{branch}")
            tensors[f"{block}.layer_scale{branch}.lambda1"] = rng.normal(1, 0.2, size=WIDTH)
    norm("layernorm")
    return tensors


def _linear(tensors: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _norm(tensors: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def _attention(block: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    heads = [
        np.split(_linear(block, f"attention.attention.{part}", x), HEADS, -1) for part in ("query", "key", "value")
    ]
    outputs = []
    for q, k, v in zip(*heads, strict=True):
        weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS))
        outputs.append(weights / weights.sum(-1, keepdims=True) @ v)
    return _linear(block, "attention.output.dense", np.concatenate(outputs, -1))


def _feed_forward(block: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    if "mlp.weights_in.weight" in block:
        gate, value = np.split(_linear(block, "mlp.weights_in", x), 2, -1)
        return _linear(block, "mlp.weights_out", gate * expit(gate) * value)
    x = _linear(block, "mlp.fc1", x)
    return _linear(block, "mlp.fc2", 0.5 * x * (1 + erf(x / np.sqrt(2))))
