"""A small random CLIP in the layouts of transformers and open_clip, and what it computes, in plain numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.special import expit

PATCH, SIDE, HEADS, CONTEXT, VOCABULARY, SHARED = 4, 3, 2, 12, 50, 8
WIDTH = {"vision": 24, "text": 16}
HIDDEN = {"vision": 40, "text": 24}
DEPTH = {"vision": 3, "text": 2}

HUGGINGFACE_CONFIG = {
    "model_type": "clip",
    "projection_dim": SHARED,
    **{
        f"{tower}_config": {
            "hidden_size": WIDTH[tower],
            "intermediate_size": HIDDEN[tower],
            "num_hidden_layers": DEPTH[tower],
            "num_attention_heads": HEADS,
            **sizes,
        }
        for tower, sizes in (
            ("vision", {"image_size": SIDE * PATCH, "patch_size": PATCH}),
            ("text", {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "eos_token_id": VOCABULARY - 1}),
        )
    },
}

OPEN_CLIP_CONFIG = {
    "embed_dim": SHARED,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": SIDE * PATCH,
        "patch_size": PATCH,
        "width": WIDTH["vision"],
        "head_width": WIDTH["vision"] // HEADS,
        "mlp_ratio": 1.67,
        "layers": DEPTH["vision"],
    },
    "text_cfg": {
        "vocab_size": VOCABULARY,
        "context_length": CONTEXT,
        "width": WIDTH["text"],
        "heads": HEADS,
        "mlp_ratio": 1.5,
        "layers": DEPTH["text"],
    },
}


def draw_clip() -> dict[str, np.ndarray]:
    """Tensors of a CLIPModel under the names of transformers."""
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {"logit_scale": np.array(3.0)}

    def linear(name: str, outputs: int, inputs: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        tensors[f"{name}.bias"] = rng.normal(scale=0.2, size=outputs)

    def norm(name: str, width: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(1, 0.2, size=width)
        tensors[f"{name}.bias"] = rng.normal(scale=0.2, size=width)

    for tower, width in WIDTH.items():
        for index in range(DEPTH[tower]):
            layer = f"{tower}_model.encoder.layers.{index}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(f"{layer}.self_attn.{part}", width, width)
            linear(f"{layer}.mlp.fc1", HIDDEN[tower], width)
            linear(f"{layer}.mlp.fc2", width, HIDDEN[tower])
            norm(f"{layer}.layer_norm1", width)
            norm(f"{layer}.layer_norm2", width)
    vision, text = WIDTH["vision"], WIDTH["text"]
    embeddings = {
        "vision_model.embeddings.class_embedding": (vision,),
        "vision_model.embeddings.patch_embedding.weight": (vision, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": (1 + SIDE**2, vision),
        "text_model.embeddings.token_embedding.weight": (VOCABULARY, text),
        "text_model.embeddings.position_embedding.weight": (CONTEXT, text),
        "visual_projection.weight": (SHARED, vision),
        "text_projection.weight": (SHARED, text),
    }
    tensors |= {name: rng.normal(size=shape) for name, shape in embeddings.items()}
    tensors["vision_model.embeddings.patch_embedding.weight"] /= 3**0.5 * PATCH
    norm("vision_model.pre_layrnorm", vision)
    norm("vision_model.post_layernorm", vision)
    norm("text_model.final_layer_norm", text)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def as_open_clip(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same under the names and in the layouts of open_clip."""
    renamed = {
        "logit_scale": tensors["logit_scale"],
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T,
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "text_projection": tensors["text_projection.weight"].T,
    }
    places = {
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
        "text_model.final_layer_norm": "ln_final",
    }
    for tower, ours in (("vision", "visual."), ("text", "")):
        for index in range(DEPTH[tower]):
            layer, block = f"{tower}_model.encoder.layers.{index}", f"{ours}transformer.resblocks.{index}"
            places |= {
                f"{layer}.layer_norm1": f"{block}.ln_1",
                f"{layer}.layer_norm2": f"{block}.ln_2",
                f"{layer}.self_attn.out_proj": f"{block}.attn.out_proj",
                f"{layer}.mlp.fc1": f"{block}.mlp.c_fc",
                f"{layer}.mlp.fc2": f"{block}.mlp.c_proj",
            }
            for kind in ("weight", "bias"):
                stacked = [tensors[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                renamed[f"{block}.attn.in_proj_{kind}"] = np.concatenate(stacked)
    for theirs, ours in places.items():
        renamed |= {f"{ours}.{kind}": tensors[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return {name: np.array(tensor, order="C") for name, tensor in renamed.items()}


def write(folder: Path, tensors: dict[str, np.ndarray], config: dict, name: str = "config.json") -> Path:
    """A checkpoint folder; `name` is that of the config file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(config))
    save_file({name: np.array(tensor, order="C") for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def vision_forward(
    tensors: dict[str, np.ndarray], images: np.ndarray, positions: np.ndarray, vv_blocks: int
) -> dict[str, np.ndarray]:
    """Tokens, pooled, embedding, patches, the first block's input, "embedded", and every block's outputs along both
    paths, "o0" and "x0" and so on."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    b, height, width, _ = images.shape
    kernel = weights["vision_model.embeddings.patch_embedding.weight"]
    patches = np.zeros((b, height // PATCH, width // PATCH, WIDTH["vision"]))
    for row in range(height // PATCH):
        for column in range(width // PATCH):
            patch = images[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            patches[:, row, column] = np.einsum("bhwi,oihw->bo", patch, kernel)
    learned = weights["vision_model.embeddings.position_embedding.weight"]
    leading = np.tile(weights["vision_model.embeddings.class_embedding"] + learned[0], (b, 1, 1))
    tokens = np.concatenate([leading, patches.reshape(b, -1, WIDTH["vision"]) + positions], axis=1)
    o = x = _norm(weights, "vision_model.pre_layrnorm", tokens)
    outputs = {"embedded": o}
    for index in range(DEPTH["vision"]):
        layer = f"vision_model.encoder.layers.{index}"
        u = _norm(weights, f"{layer}.layer_norm1", o)
        if index >= DEPTH["vision"] - vv_blocks:
            x = x + _attention(weights, layer, u, "vvv")
        o = o + _attention(weights, layer, u, "qkv")
        o = o + _feed_forward(weights, layer, o)
        if index < DEPTH["vision"] - vv_blocks:
            x = o
        outputs |= {f"o{index}": o, f"x{index}": x}
    tokens = np.concatenate([o[:, :1], x[:, 1:]], axis=1)
    final = _norm(weights, "vision_model.post_layernorm", tokens)
    shared = final @ weights["visual_projection.weight"].T
    return {**outputs, "tokens": tokens, "pooled": final[:, 0], "embedding": shared[:, 0], "patches": shared[:, 1:]}


def value_forward(tensors: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Patches in the space shared with texts, by the last block's values in place of its attention, of its input."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    layer = f"vision_model.encoder.layers.{DEPTH['vision'] - 1}"
    own = _linear(weights, f"{layer}.self_attn.v_proj", _norm(weights, f"{layer}.layer_norm1", tokens))
    x = tokens + _linear(weights, f"{layer}.self_attn.out_proj", own)
    x = x + _feed_forward(weights, layer, x)
    return (_norm(weights, "vision_model.post_layernorm", x) @ weights["visual_projection.weight"].T)[:, 1:]


def relevance_forward(tensors: dict[str, np.ndarray], tokens: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Trans-MM's relevance of the patches of one image, [n], from the first block's input [1+n c] and a text [d]: the
    gradient by central differences, one entry of the attention after the other."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    n, heads, depth = len(tokens), HEADS, DEPTH["vision"]

    def forward(changes: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Cosines [b] with changes [b depth heads n n] to the attention, and the attention [b heads n n]."""
        o, found = np.tile(tokens, (len(changes), 1, 1)), []
        for index in range(depth):
            layer = f"vision_model.encoder.layers.{index}"
            u = _norm(weights, f"{layer}.layer_norm1", o)
            q, k, v = (
                _linear(weights, f"{layer}.self_attn.{part}_proj", u).reshape(*u.shape[:2], heads, -1) for part in "qkv"
            )
            logits = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
            shares = np.exp(logits - logits.max(-1, keepdims=True))
            found.append(shares / shares.sum(-1, keepdims=True))
            mixed = np.einsum("bhnm,bmhd->bnhd", found[-1] + changes[:, index], v).reshape(u.shape)
            o = o + _linear(weights, f"{layer}.self_attn.out_proj", mixed)
            o = o + _feed_forward(weights, layer, o)
        pooled = _norm(weights, "vision_model.post_layernorm", o[:, 0]) @ weights["visual_projection.weight"].T
        return pooled @ text / np.linalg.norm(pooled, axis=-1) / np.linalg.norm(text), found

    relevance, attentions = np.eye(n), forward(np.zeros((1, depth, heads, n, n)))[1]
    for index in range(depth):
        changes = np.zeros((heads * n * n, depth, heads, n, n))
        changes[:, index] = 1e-5 * np.eye(heads * n * n).reshape(-1, heads, n, n)
        gradient = ((forward(changes)[0] - forward(-changes)[0]) / 2e-5).reshape(heads, n, n)
        relevance = relevance + np.maximum(gradient * attentions[index][0], 0).mean(0) @ relevance
    return relevance[0, 1:]


def window_forward(tensors: dict[str, np.ndarray], tokens: np.ndarray, patches: list[int]) -> np.ndarray:
    """The class token in the space shared with texts, where the blocks see it and some of the patches alone."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    x = tokens[:, [0, *(1 + patch for patch in patches)]]
    for index in range(DEPTH["vision"]):
        layer = f"vision_model.encoder.layers.{index}"
        x = x + _attention(weights, layer, _norm(weights, f"{layer}.layer_norm1", x), "qkv")
        x = x + _feed_forward(weights, layer, x)
    return _norm(weights, "vision_model.post_layernorm", x[:, 0]) @ weights["visual_projection.weight"].T


def text_forward(tensors: dict[str, np.ndarray], ids: np.ndarray) -> list[np.ndarray]:
    """The final norm of the embedding and of every block's output."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    x = weights["text_model.embeddings.token_embedding.weight"][ids]
    x = x + weights["text_model.embeddings.position_embedding.weight"][: ids.shape[1]]
    outputs = [x]
    for index in range(DEPTH["text"]):
        layer = f"text_model.encoder.layers.{index}"
        x = x + _attention(weights, layer, _norm(weights, f"{layer}.layer_norm1", x), "qkv", causal=True)
        x = x + _feed_forward(weights, layer, x)
        outputs.append(x)
    return [_norm(weights, "text_model.final_layer_norm", x) for x in outputs]


def _linear(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _attention(
    weights: dict[str, np.ndarray], layer: str, u: np.ndarray, parts: str, causal: bool = False
) -> np.ndarray:
    """Attention of u with the projections called `parts` as query, key and value."""
    heads = [np.split(_linear(weights, f"{layer}.self_attn.{part}_proj", u), HEADS, -1) for part in parts]
    outputs = []
    for q, k, v in zip(*heads, strict=True):
        shares = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))
        shares = np.tril(shares) if causal else shares
        outputs.append(shares / shares.sum(-1, keepdims=True) @ v)
    return _linear(weights, f"{layer}.self_attn.out_proj", np.concatenate(outputs, -1))


def _feed_forward(weights: dict[str, np.ndarray], layer: str, o: np.ndarray) -> np.ndarray:
    x = _linear(weights, f"{layer}.mlp.fc1", _norm(weights, f"{layer}.layer_norm2", o))
    return _linear(weights, f"{layer}.mlp.fc2", x * expit(1.702 * x))
