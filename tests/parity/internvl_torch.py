"""InternVL with InternLM2 in torch, from what is known of its architecture: an independent twin of small networks.

InternLM2's own code, and that of the tower beside it, comes with the weights and is never run here. Tensors have the
names of OpenGVLab's files.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def tower(weights, config, tiles):
    """Patches of tiles [t 3 h w] after the last block."""
    w = {name.removeprefix("vision_model."): tensor for name, tensor in weights.items()}
    v = config["vision_config"]
    patches = F.conv2d(
        tiles, w["embeddings.patch_embedding.weight"], w["embeddings.patch_embedding.bias"], stride=v["patch_size"]
    )
    x = patches.flatten(2).transpose(1, 2)
    x = (
        torch.cat([w["embeddings.class_embedding"].expand(len(x), 1, -1), x], dim=1)
        + w["embeddings.position_embedding"]
    )
    for number in range(v["num_hidden_layers"]):
        b = {name.removeprefix(f"encoder.layers.{number}."): tensor for name, tensor in w.items()}
        y = _tower_attention(b, v, _tower_norm(b, v, "norm1", x))
        x = x + b["ls1"] * F.linear(y, b["attn.proj.weight"], b["attn.proj.bias"])
        y = F.gelu(F.linear(_tower_norm(b, v, "norm2", x), b["mlp.fc1.weight"], b["mlp.fc1.bias"]))
        x = x + b["ls2"] * F.linear(y, b["mlp.fc2.weight"], b["mlp.fc2.bias"])
    return x[:, 1:]


def _tower_norm(b, v, name, x):
    if v["norm_type"] == "rms_norm":
        return _root_mean_square(x, b[f"{name}.weight"], v["layer_norm_eps"])
    return F.layer_norm(x, x.shape[-1:], b[f"{name}.weight"], b[f"{name}.bias"], v["layer_norm_eps"])


def _tower_attention(b, v, x):
    q, k, value = F.linear(x, b["attn.qkv.weight"], b.get("attn.qkv.bias")).chunk(3, dim=-1)
    if v["qk_normalization"]:
        q = _root_mean_square(q, b["attn.q_norm.weight"], v["layer_norm_eps"])
        k = _root_mean_square(k, b["attn.k_norm.weight"], v["layer_norm_eps"])
    heads = (y.unflatten(-1, (v["num_attention_heads"], -1)).transpose(1, 2) for y in (q, k, value))
    return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


def project(weights, patches):
    """Four patches of a square as one token: row by row, in each row from left to right."""
    side = math.isqrt(patches.shape[1])
    grid = patches.unflatten(1, (side, side))
    corners = [grid[:, row::2, column::2] for row in range(2) for column in range(2)]
    x = torch.cat(corners, dim=-1).flatten(1, 2)
    x = F.layer_norm(x, x.shape[-1:], weights["mlp1.0.weight"], weights["mlp1.0.bias"])
    x = F.gelu(F.linear(x, weights["mlp1.1.weight"], weights["mlp1.1.bias"]))
    return F.linear(x, weights["mlp1.3.weight"], weights["mlp1.3.bias"])


class InternLM2:
    """The language model, which keeps the keys and values of one text."""

    def __init__(self, weights, config):
        self.w = {name.removeprefix("language_model."): tensor for name, tensor in weights.items()}
        self.c = config["llm_config"]
        self.kept = [None] * self.c["num_hidden_layers"]

    def embed(self, ids):
        """Embeddings [n c]."""
        return self.w["model.tok_embeddings.weight"][ids]

    def __call__(self, x):
        """Logits [n v] of what follows each of the embeddings [n c], which follow those of earlier calls."""
        for number in range(self.c["num_hidden_layers"]):
            b = {name.removeprefix(f"model.layers.{number}."): tensor for name, tensor in self.w.items()}
            y = _root_mean_square(x, b["attention_norm.weight"], self.c["rms_norm_eps"])
            x = x + self._attention(b, number, y)
            y = _root_mean_square(x, b["ffn_norm.weight"], self.c["rms_norm_eps"])
            y = F.silu(y @ b["feed_forward.w1.weight"].T) * (y @ b["feed_forward.w3.weight"].T)
            x = x + y @ b["feed_forward.w2.weight"].T
        return _root_mean_square(x, self.w["model.norm.weight"], self.c["rms_norm_eps"]) @ self.w["output.weight"].T

    def _attention(self, b, number, x):
        heads, key_heads = self.c["num_attention_heads"], self.c["num_key_value_heads"]
        group, d = heads // key_heads, self.c["hidden_size"] // heads
        # Of each key head: its queries, then its key, then its value.
        rows = (x @ b["attention.wqkv.weight"].T).reshape(len(x), key_heads, group + 2, d)
        queries = rows[:, :, :group].reshape(len(x), heads, d)
        before = 0 if self.kept[number] is None else len(self.kept[number][0])
        cosine, sine = self._angles(before, len(x), d)
        queries, keys = (_turned(y, cosine, sine) for y in (queries, rows[:, :, group]))
        values = rows[:, :, group + 1]
        if before:
            keys, values = (torch.cat(pair) for pair in zip(self.kept[number], (keys, values), strict=True))
        self.kept[number] = keys, values
        outputs = []
        for head in range(heads):
            logits = queries[:, head] @ keys[:, head // group].T / math.sqrt(d)
            hidden = torch.arange(len(keys))[None] > before + torch.arange(len(x))[:, None]
            outputs.append(logits.masked_fill(hidden, -torch.inf).softmax(-1) @ values[:, head // group])
        return torch.cat(outputs, dim=-1) @ b["attention.wo.weight"].T

    def _angles(self, before, count, d):
        scaling = self.c["rope_scaling"] or {"type": "none", "factor": 1.0}
        base, factor, longest = self.c["rope_theta"], scaling["factor"], self.c["max_position_embeddings"]
        places = torch.arange(before, before + count).double()
        if scaling["type"] == "linear":
            places = places / factor
        if scaling["type"] == "dynamic" and before + count > longest:
            base = base * (factor * (before + count) / longest - (factor - 1)) ** (d / (d - 2))
        frequencies = base ** -(torch.arange(0, d, 2).double() / d)
        angles = torch.outer(places, frequencies)
        return angles.cos().float()[:, None], angles.sin().float()[:, None]


def answer(weights, config, ids, tiles, context, stops, longest):
    """The likeliest ids [<= longest] that follow a question, and the logits of each; ends with what is in `stops`."""
    with torch.no_grad():
        model = InternLM2(weights, config)
        x = model.embed(torch.tensor(ids)).clone()
        x[torch.tensor(ids) == context] = project(weights, tower(weights, config, tiles)).flatten(0, 1)
        found, all_logits = [], []
        while True:
            logits = model(x)[-1]
            all_logits.append(logits.numpy())
            found.append(int(logits.argmax()))
            if found[-1] in stops or len(found) == longest:
                return found, all_logits
            x = model.embed(torch.tensor(found[-1:]))


def _root_mean_square(x, gain, epsilon):
    return gain * x * (x.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()


def _turned(x, cosine, sine):
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
