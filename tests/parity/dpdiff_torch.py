"""DPDiff-AD in torch on timm's ViT, which jaxad's is compared with in numbers and in time.

It is written from the paper with torch's own layers and attention, and shares no code with jaxad; parameters have
jaxad's names, so that those of a detector can be loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from jaxad.config import DPDiffConfig
from jaxad.models.vit.config import ViTConfig

F = nn.functional
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, SIGMA, POOL = 256, 4, 16
"""Map, Gaussian and pooling of protocol `exact-256`."""

Noise = tuple[torch.Tensor, torch.Tensor]
"""Of the tokens [b n c] and of the prototypes [b k c]."""


class TorchDPDiff(nn.Module):
    """The detector, for the settings of its presets.

    Args:
        config: settings; a DiT with both kinds of prototypes and DDIM.
        shape: of the backbone.
        blocks: of the backbone, whose mean makes the features.
        heads: of all attention but the backbone's.
    """

    def __init__(self, config: DPDiffConfig, shape: ViTConfig, blocks: tuple[int, ...], heads: int):
        super().__init__()
        width, side = shape.width, config.image_size // shape.patch
        self.config, self._blocks = config, blocks
        self.backbone = VisionTransformer(
            img_size=config.image_size,
            patch_size=shape.patch,
            embed_dim=width,
            depth=max(blocks) + 1,
            num_heads=shape.heads,
            mlp_ratio=shape.hidden / width,
            init_values=1.0 if shape.layer_scale else None,
            num_classes=0,
            norm_layer=functools.partial(nn.LayerNorm, eps=shape.norm_eps),
        )
        self.register_buffer("channel_mean", torch.zeros(width))
        self.register_buffer("channel_std", torch.ones(width))
        self.local = Extractor(config.local_prototypes, width, heads, config.prototype_mlp_ratio)
        self.global_ = Extractor(config.global_prototypes, width, heads, config.prototype_mlp_ratio)
        self.denoiser = Denoiser(width, side, heads, config.depth, config.mlp_ratio)
        beta = np.linspace(config.beta_start, config.beta_end, config.timesteps)
        self.register_buffer("alpha_bar", torch.from_numpy(np.cumprod(1 - beta)).float(), persistent=False)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [b h w 3] -> tokens [b n c]."""
        pixels = (images.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        options: Any = {"indices": list(self._blocks), "norm": False, "output_fmt": "NLC", "intermediates_only": True}
        return torch.stack(self.backbone.forward_intermediates(pixels.permute(0, 3, 1, 2), **options)).mean(0)

    def predict(
        self, images: torch.Tensor, noise: Callable[[int], Noise] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [b h w 3] -> smoothed maps [b 256 256] and scores [b]; `noise` gives that of each draw."""
        x = (self.encode(images) - self.channel_mean) / self.channel_std
        prototypes = torch.cat([self.local(x), self.global_(x)], 1)
        noise = noise or (lambda draw: (torch.randn_like(x), torch.randn_like(prototypes)))
        drawn = (self._reconstruct(x, prototypes, noise(draw)) for draw in range(self.config.draws))
        mean = sum(drawn) / self.config.draws
        if self.config.residual == "squared":
            residual = (mean - x).square().sum(-1)
        else:
            mean, x = (tokens * self.channel_std + self.channel_mean for tokens in (mean, x))
            residual = 1 - F.cosine_similarity(mean, x, dim=-1)
        side = round(residual.shape[1] ** 0.5)
        return processed(residual.unflatten(1, (side, side)))

    def loss(self, tokens: torch.Tensor, t: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Of tokens [b n c] at timesteps t [b]."""
        config = self.config
        x = (tokens - self.channel_mean) / self.channel_std
        local, shared = self.local(x), self.global_(x)
        prototypes = self._noisy(torch.cat([local, shared], 1), noise[1], t)
        output = self.denoiser(self._noisy(x, noise[0], t), prototypes, t)
        diffusion = F.mse_loss(output, noise[0] if config.prediction == "epsilon" else self._velocity(x, noise[0], t))
        far = 1 - (F.normalize(x, dim=-1) @ F.normalize(local, dim=-1).mT).amax(-1).mean()
        transport = transport_loss(x, shared, config.sinkhorn_epsilon, config.sinkhorn_iterations)
        return diffusion + config.local_weight * far + config.global_weight * transport

    def _reconstruct(self, x: torch.Tensor, prototypes: torch.Tensor, noise: Noise) -> torch.Tensor:
        config = self.config
        steps = [
            round(config.start_timestep * (config.sampling_steps - i) / config.sampling_steps)
            for i in range(config.sampling_steps)
        ]
        x_t = self._noisy(x, noise[0], torch.tensor(steps[:1]))
        for step, then in zip(steps, [*steps[1:], None], strict=True):
            t, now = torch.full((len(x),), step), self.alpha_bar[step]
            output = self.denoiser(x_t, self._noisy(prototypes, noise[1], t), t)
            epsilon = output if config.prediction == "epsilon" else now.sqrt() * output + (1 - now).sqrt() * x_t
            clean = (x_t - (1 - now).sqrt() * epsilon) / now.sqrt()
            if then is None:
                return clean
            x_t = self.alpha_bar[then].sqrt() * clean + (1 - self.alpha_bar[then]).sqrt() * epsilon
        return x_t

    def _noisy(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha_bar = self.alpha_bar[t][:, None, None]
        return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise

    def _velocity(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha_bar = self.alpha_bar[t][:, None, None]
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x

    def load(self, arrays: Mapping[str, Any]) -> TorchDPDiff:
        """Takes a detector's arrays by path, its positions already those of the images' grid."""
        tensors = {}
        for path, array in arrays.items():
            name = path.replace("/", ".")
            tensor = torch.tensor(np.asarray(array, np.float32))
            if name.endswith("kernel"):
                name, tensor = name.removesuffix("kernel") + "weight", tensor.permute(-1, *range(tensor.ndim - 1))
            tensors[name.removesuffix(".scale") + ".weight" if name.endswith(".scale") else name] = tensor
        backbone = {name: tensors.pop(name) for name in list(tensors) if name.startswith("backbone.")}
        self.load_state_dict({**tensors, **_for_timm(backbone, len(self.backbone.blocks))})
        return self


class Extractor(nn.Module):
    """Learnable queries that attend to the tokens (Eq. 10)."""

    def __init__(self, prototypes: int, width: int, heads: int, ratio: float):
        super().__init__()
        self._heads = heads
        self.queries = nn.Parameter(torch.randn(prototypes, width))
        self.norm, self.mlp_norm = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, round(width * ratio)), nn.Linear(round(width * ratio), width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key, value = self.key_value(self.norm(x)).chunk(2, -1)
        query = self.query(self.norm(self.queries)).expand(len(x), -1, -1)
        y = self.queries + self.attention_out(attention(query, key, value, self._heads))
        return y + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(y))))


class Denoiser(nn.Module):
    """DiT whose blocks attend to prototypes."""

    def __init__(self, width: int, side: int, heads: int, depth: int, ratio: float):
        super().__init__()
        self.time = nn.ModuleDict({"linear_in": nn.Linear(256, width), "linear_out": nn.Linear(width, width)})
        self.project_in, self.project_out = nn.Linear(width, width), nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.register_buffer("positions", _positions(side, width), persistent=False)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        frequency = torch.exp(-np.log(1e4) * torch.arange(128) / 128)
        angle = t[:, None] * frequency
        code = torch.cat([angle.cos(), angle.sin()], -1)
        condition = F.silu(self.time["linear_out"](F.silu(self.time["linear_in"](code))))
        x = self.project_in(x) + self.positions
        for block in self.blocks:
            x = block(x, prototypes, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, -1)
        return self.project_out(_plain_norm(x) * (1 + scale) + shift)


class Block(nn.Module):
    """Self-attention, attention to prototypes, feed-forward, each modulated by the timestep."""

    def __init__(self, width: int, heads: int, ratio: float):
        super().__init__()
        self._heads = heads
        self.modulation = nn.Linear(width, 9 * width)
        self.self_attention = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width)})
        self.prototype_attention = nn.ModuleDict(
            {
                "norm": nn.LayerNorm(width, eps=1e-6),
                "query": nn.Linear(width, width),
                "key_value": nn.Linear(width, 2 * width),
                "out": nn.Linear(width, width),
            }
        )
        self.mlp_in, self.mlp_out = nn.Linear(width, round(width * ratio)), nn.Linear(round(width * ratio), width)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        parts = self.modulation(condition)[:, None].chunk(9, -1)
        own, to = self.self_attention, self.prototype_attention
        y = attention(*own["qkv"](_modulated(x, *parts[:2])).chunk(3, -1), self._heads)
        x = x + parts[2] * own["out"](y)
        key, value = to["key_value"](to["norm"](prototypes)).chunk(2, -1)
        y = attention(to["query"](_modulated(x, *parts[3:5])), key, value, self._heads)
        x = x + parts[5] * to["out"](y)
        y = F.gelu(self.mlp_in(_modulated(x, *parts[6:8])), approximate="tanh")
        return x + parts[8] * self.mlp_out(y)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """[b n c], [b k c], [b k c] -> [b n c] by torch's fused attention."""
    query, key, value = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def transport_loss(x: torch.Tensor, prototypes: torch.Tensor, epsilon: float, most: int) -> torch.Tensor:
    """Mean entropic transport (Eq. 12 and 13) of x [b n c] to prototypes [b k c], times c; the plan is a constant."""
    c, n, k = x.shape[-1], x.shape[1], prototypes.shape[1]
    squares = x.square().sum(-1)[:, :, None] + prototypes.square().sum(-1)[:, None, :]
    cost = (squares - 2 * x @ prototypes.mT).clamp_min(0) / c
    with torch.no_grad():
        scaled, g = -cost / epsilon, torch.zeros(len(x), 1, k)
        for iteration in range(1, most + 1):
            f = -np.log(n) - (scaled + g).logsumexp(2, keepdim=True)
            g = -np.log(k) - (scaled + f).logsumexp(1, keepdim=True)
            if iteration % 10 == 0 and ((scaled + f + g).exp().sum(2) - 1 / n).abs().sum(1).max() < 5e-5:
                break
        plan = (scaled + f + g).exp()
        entropy = (plan * plan.clamp_min(1e-30).log()).sum((1, 2))
    return c * ((plan * cost).sum((1, 2)) + epsilon * entropy).mean()


def processed(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps [b h w] as protocol `exact-256` has them, and its scores."""
    offsets = torch.arange(-4 * SIGMA, 4 * SIGMA + 1)
    kernel = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    kernel = (kernel / kernel.sum()).reshape(1, 1, -1, 1)
    x = F.interpolate(maps[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)
    for axis in (2, 3):
        # Mirrored at the outer edge of the last pixel, which F.pad cannot.
        edges = (x.narrow(axis, 0, 4 * SIGMA).flip(axis), x, x.narrow(axis, SIDE - 4 * SIGMA, 4 * SIGMA).flip(axis))
        x = F.conv2d(torch.cat(edges, axis), kernel if axis == 2 else kernel.mT)
    return x[:, 0], F.avg_pool2d(x, POOL, stride=1).amax((1, 2, 3))


def _modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return _plain_norm(x) * (1 + scale) + shift


def _plain_norm(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _positions(side: int, width: int) -> torch.Tensor:
    """Sine-cosine positions [n c] of a square grid: half columns, half rows."""
    frequency = 1e4 ** -(torch.arange(width // 4).double() / (width // 4))
    rows, columns = torch.meshgrid(*[torch.arange(side).double()] * 2, indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in (columns, rows)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], -1).float()


def _for_timm(tensors: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """jaxad's names of a ViT's parameters -> timm's, of the first `depth` blocks; the final norm is not used."""
    renamed = {
        "patch_embed.": "patch_embed.proj.",
        ".attention.out.": ".attn.proj.",
        ".scale1.gain": ".ls1.gamma",
        ".scale2.gain": ".ls2.gamma",
        ".positions": ".pos_embed",
        "backbone.network.": "backbone.",
    }
    found = {}
    for name, tensor in tensors.items():
        if ".blocks." in name and int(name.split(".")[3]) >= depth:
            continue
        if ".attention.query." in name:
            parts = [tensors[name.replace("query", part)] for part in ("query", "key", "value")]
            name, tensor = name.replace("attention.query", "attn.qkv"), torch.cat(parts)
        if "patch_embed.weight" in name:
            tensor = tensor.permute(0, 3, 1, 2)
        if ".attention.key." not in name and ".attention.value." not in name:
            for old, new in renamed.items():
                name = name.replace(old, new)
            found[name] = tensor
    return found
