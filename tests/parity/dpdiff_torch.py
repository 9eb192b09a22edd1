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
from tests.parity.denoisers_torch import DiT, UNet, UViT, attention

F = nn.functional
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, SIGMA, POOL = 256, 4, 16
"""Map, Gaussian and pooling of protocol `exact-256`."""

Noise = tuple[torch.Tensor, torch.Tensor]
"""Of the tokens [b n c] and of the prototypes [b k c]."""
StepNoise = Callable[[int, int], torch.Tensor]
"""Of a draw, at the step from a timestep: [b n c]."""


class TorchDPDiff(nn.Module):
    """The detector, for the settings of its presets.

    Args:
        config: settings; with both kinds of prototypes.
        shape: of the backbone.
        blocks: of the backbone, whose mean makes the features.
        heads: of all attention but the backbone's.
        denoiser_width: of the denoiser.
    """

    def __init__(
        self, config: DPDiffConfig, shape: ViTConfig, blocks: tuple[int, ...], heads: int, denoiser_width: int
    ):
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
        shared = width, denoiser_width, side, heads
        self.denoiser = {
            "dit": lambda: DiT(*shared, config.depth, config.mlp_ratio),
            "uvit": lambda: UViT(*shared, config.depth, config.mlp_ratio + 2),
            "unet": lambda: UNet(*shared),
        }[config.denoiser]()
        beta = np.linspace(config.beta_start, config.beta_end, config.timesteps)
        self._alpha_bar = np.cumprod(1 - beta)
        self.register_buffer("alpha_bar", torch.from_numpy(self._alpha_bar).float(), persistent=False)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [b h w 3] -> tokens [b n c]."""
        pixels = (images.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        options: Any = {"indices": list(self._blocks), "norm": False, "output_fmt": "NLC", "intermediates_only": True}
        return torch.stack(self.backbone.forward_intermediates(pixels.permute(0, 3, 1, 2), **options)).mean(0)

    def predict(
        self, images: torch.Tensor, noise: Callable[[int], Noise] | None = None, step_noise: StepNoise | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [b h w 3] -> smoothed maps [b 256 256] and scores [b]; `noise` gives that of each draw.

        DDPM also takes that of each step.
        """
        x = (self.encode(images) - self.channel_mean) / self.channel_std
        prototypes = torch.cat([self.local(x), self.global_(x)], 1)
        noise = noise or (lambda draw: (torch.randn_like(x), torch.randn_like(prototypes)))
        step_noise = step_noise or (lambda draw, step: torch.randn_like(x))
        drawn = (
            self._reconstruct(x, prototypes, noise(draw), functools.partial(step_noise, draw))
            for draw in range(self.config.draws)
        )
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

    def _reconstruct(
        self, x: torch.Tensor, prototypes: torch.Tensor, noise: Noise, step_noise: Callable[[int], torch.Tensor]
    ) -> torch.Tensor:
        config, start = self.config, self.config.start_timestep
        if config.sampler == "ddpm":
            steps = list(range(start, -1, -1))
        else:
            steps = [
                round(start * (config.sampling_steps - i) / config.sampling_steps) for i in range(config.sampling_steps)
            ]
        x_t = self._noisy(x, noise[0], torch.tensor(steps[:1]))
        for step, then in zip(steps, [*steps[1:], None], strict=True):
            t, now = torch.full((len(x),), step), float(self._alpha_bar[step])
            output = self.denoiser(x_t, self._noisy(prototypes, noise[1], t), t)
            epsilon = output if config.prediction == "epsilon" else now**0.5 * output + (1 - now) ** 0.5 * x_t
            clean = (x_t - (1 - now) ** 0.5 * epsilon) / now**0.5
            if then is None:
                return clean
            before = float(self._alpha_bar[then])
            if config.sampler == "ddim":
                x_t = before**0.5 * clean + (1 - before) ** 0.5 * epsilon
                continue
            # The posterior of x_{t-1} given x_t and x_0 (DDPM, Eq. 6 and 7).
            alpha = now / before
            of_clean, of_noisy = before**0.5 * (1 - alpha) / (1 - now), alpha**0.5 * (1 - before) / (1 - now)
            x_t = of_clean * clean + of_noisy * x_t + ((1 - alpha) * (1 - before) / (1 - now)) ** 0.5 * step_noise(step)
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
            tensor = torch.tensor(np.asarray(array, np.float32))
            kernel = path.endswith("kernel")
            tensors[name_of(path)] = (
                tensor.permute(*range(tensor.ndim - 1, -1, -1))
                if kernel and tensor.ndim == 2
                else (tensor.permute(3, 2, 0, 1) if kernel else tensor)
            )
        backbone = {name: tensors.pop(name) for name in list(tensors) if name.startswith("backbone.")}
        self.load_state_dict({**tensors, **_for_timm(backbone, len(self.backbone.blocks))})
        return self

    def gradient(self, path: str) -> torch.Tensor:
        """Of the parameter that jaxad has under that path, its axes in jaxad's order."""
        gradient = self.get_parameter(name_of(path)).grad
        assert gradient is not None, path
        return (
            gradient
            if not path.endswith("kernel")
            else gradient.T
            if gradient.ndim == 2
            else gradient.permute(2, 3, 1, 0)
        )


def name_of(path: str) -> str:
    """jaxad's path of a parameter -> torch's name of it."""
    stem, _, last = path.rpartition("/")
    return f"{stem}/{ {'kernel': 'weight', 'scale': 'weight'}.get(last, last) }".strip("/").replace("/", ".")


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
        if ".attention.key." not in name and ".attention.value." not in name:
            for old, new in renamed.items():
                name = name.replace(old, new)
            found[name] = tensor
    return found
