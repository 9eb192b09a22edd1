"""The denoisers of DPDiff-AD in torch, on torch's own layers and attention, with jaxad's names of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

F = nn.functional


class Denoiser(nn.Module):
    """What the three have in common: codes of timesteps and places, projections of tokens.

    Args:
        channels: of tokens and prototypes.
        width: of the network.
        side: of the square grid of tokens.
    """

    def __init__(self, channels: int, width: int, side: int):
        super().__init__()
        self.side = side
        self.time = nn.ModuleDict({"linear_in": nn.Linear(256, width), "linear_out": nn.Linear(width, width)})
        self.project_in, self.project_out = nn.Linear(channels, width), nn.Linear(width, channels)
        self.register_buffer("positions", positions_of(side, width), persistent=False)

    def code_of(self, t: torch.Tensor) -> torch.Tensor:
        """[b] -> [b d]."""
        frequency = torch.exp(-np.log(1e4) * torch.arange(128) / 128)
        angle = t[:, None] * frequency
        code = torch.cat([angle.cos(), angle.sin()], -1)
        return self.time["linear_out"](F.silu(self.time["linear_in"](code)))


class DiT(Denoiser):
    """Its blocks attend to prototypes, and are modulated by the timestep."""

    def __init__(self, channels: int, width: int, side: int, heads: int, depth: int, ratio: float):
        super().__init__(channels, width, side)
        self.blocks = nn.ModuleList(DiTBlock(channels, width, heads, ratio) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        condition = F.silu(self.code_of(t))
        x = self.project_in(x) + self.positions
        for block in self.blocks:
            x = block(x, prototypes, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, -1)
        return self.project_out(_plain_norm(x) * (1 + scale) + shift)


class DiTBlock(nn.Module):
    """Self-attention, attention to prototypes, feed-forward, each modulated by the timestep."""

    def __init__(self, channels: int, width: int, heads: int, ratio: float):
        super().__init__()
        self.modulation = nn.Linear(width, 9 * width)
        self.self_attention = SelfAttention(width, heads)
        self.prototype_attention = PrototypeAttention(channels, width, heads)
        self.mlp_in, self.mlp_out = nn.Linear(width, round(width * ratio)), nn.Linear(round(width * ratio), width)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        parts = self.modulation(condition)[:, None].chunk(9, -1)
        x = x + parts[2] * self.self_attention(_modulated(x, *parts[:2]))
        x = x + parts[5] * self.prototype_attention(_modulated(x, *parts[3:5]), prototypes)
        y = F.gelu(self.mlp_in(_modulated(x, *parts[6:8])), approximate="tanh")
        return x + parts[8] * self.mlp_out(y)


class UViT(Denoiser):
    """The timestep is a token, and the second half of the blocks sees the outputs of the first half, last in first."""

    def __init__(self, channels: int, width: int, side: int, heads: int, depth: int, ratio: float):
        super().__init__(channels, width, side)
        half = depth // 2
        self.blocks = nn.ModuleList(UViTBlock(channels, width, heads, ratio, i >= depth - half) for i in range(depth))
        self.norm = _layer_norm(width)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.code_of(t)[:, None], self.project_in(x) + self.positions], 1)
        depth, outputs = len(self.blocks), []
        for i, block in enumerate(self.blocks):
            x = block(x, prototypes, outputs[depth - 1 - i] if hasattr(block, "skip") else None)
            outputs.append(x)
        return self.project_out(self.norm(x[:, 1:]))


class UViTBlock(nn.Module):
    """Pre-norm: self-attention, attention to prototypes, feed-forward."""

    def __init__(self, channels: int, width: int, heads: int, ratio: float, skip: bool):
        super().__init__()
        if skip:
            self.skip = nn.Linear(2 * width, width)
        self.norms = nn.ModuleList(_layer_norm(width) for _ in range(3))
        self.self_attention = SelfAttention(width, heads)
        self.prototype_attention = PrototypeAttention(channels, width, heads)
        self.mlp_in, self.mlp_out = nn.Linear(width, round(width * ratio)), nn.Linear(round(width * ratio), width)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor, early: torch.Tensor | None) -> torch.Tensor:
        if early is not None:
            x = self.skip(torch.cat([x, early], -1))
        x = x + self.self_attention(self.norms[0](x))
        x = x + self.prototype_attention(self.norms[1](x), prototypes)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norms[2](x))))


class UNet(Denoiser):
    """Two levels of the grid, the coarse one twice as wide; two layers of each on either way."""

    def __init__(self, channels: int, width: int, side: int, heads: int):
        super().__init__(channels, width, side)
        wide = 2 * width

        def residuals(*sizes: tuple[int, int]) -> nn.ModuleList:
            return nn.ModuleList(Residual(n_in, n_out, width) for n_in, n_out in sizes)

        def attentions(size: int) -> nn.ModuleList:
            return nn.ModuleList(GridAttention(channels, size, heads) for _ in range(2))

        self.down_fine, self.down_fine_attention = residuals((width, width), (width, width)), attentions(width)
        self.shrink = nn.Conv2d(width, width, 3, stride=2)
        self.down_coarse, self.down_coarse_attention = residuals((width, wide), (wide, wide)), attentions(wide)
        self.up_coarse, self.up_coarse_attention = residuals(*[(2 * wide, wide)] * 2), attentions(wide)
        self.grow = nn.Conv2d(wide, width, 3, padding=1)
        self.up_fine, self.up_fine_attention = residuals(*[(wide, width)] * 2), attentions(width)
        self.norm = _group_norm(width)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        condition = F.silu(self.code_of(t))
        y = self.project_in(x).mT.unflatten(-1, (self.side, self.side))
        fine = _layers(y, prototypes, condition, self.down_fine, self.down_fine_attention)
        # "SAME" of an even side: what is missing is at the end.
        y = self.shrink(F.pad(fine[-1], (0, 1, 0, 1)))
        coarse = _layers(y, prototypes, condition, self.down_coarse, self.down_coarse_attention)
        y = _layers(coarse[-1], prototypes, condition, self.up_coarse, self.up_coarse_attention, coarse)[-1]
        y = self.grow(F.interpolate(y, scale_factor=2, mode="nearest"))
        y = _layers(y, prototypes, condition, self.up_fine, self.up_fine_attention, fine)[-1]
        return self.project_out(F.silu(self.norm(y)).flatten(2).mT)


class Residual(nn.Module):
    """Two convolutions, between which the timestep scales and shifts."""

    def __init__(self, n_in: int, n_out: int, time_width: int):
        super().__init__()
        self.norm_in, self.norm_out = _group_norm(n_in), _group_norm(n_out)
        self.conv_in, self.conv_out = nn.Conv2d(n_in, n_out, 3, padding=1), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.time = nn.Linear(time_width, 2 * n_out)
        if n_in != n_out:
            self.shortcut = nn.Linear(n_in, n_out)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.time(condition)[:, :, None, None].chunk(2, 1)
        y = self.norm_out(self.conv_in(F.silu(self.norm_in(x)))) * (1 + scale) + shift
        short = self.shortcut(x.movedim(1, -1)).movedim(-1, 1) if hasattr(self, "shortcut") else x
        return self.conv_out(F.silu(y)) + short


class GridAttention(nn.Module):
    """Attention among cells, then to prototypes."""

    def __init__(self, channels: int, width: int, heads: int):
        super().__init__()
        self.norm, self.prototype_norm = _group_norm(width), _layer_norm(width)
        self.self_attention = SelfAttention(width, heads)
        self.prototype_attention = PrototypeAttention(channels, width, heads)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        cells, normed = (y.flatten(2).mT for y in (x, self.norm(x)))
        cells = cells + self.self_attention(normed)
        cells = cells + self.prototype_attention(self.prototype_norm(cells), prototypes)
        return cells.mT.unflatten(-1, x.shape[2:])


class SelfAttention(nn.Module):
    """Among tokens [b n d]."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self._heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(attention(*self.qkv(x).chunk(3, -1), self._heads))


class PrototypeAttention(nn.Module):
    """Of tokens [b n d] to prototypes [b k c]."""

    def __init__(self, channels: int, width: int, heads: int):
        super().__init__()
        self._heads = heads
        self.norm = _layer_norm(channels)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(channels, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        return self.out(attention(self.query(x), *self.key_value(self.norm(prototypes)).chunk(2, -1), self._heads))


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """[b n c], [b k c], [b k c] -> [b n c] by torch's fused attention."""
    query, key, value = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def positions_of(side: int, width: int) -> torch.Tensor:
    """Sine-cosine positions [n c] of a square grid: half columns, half rows."""
    frequency = 1e4 ** -(torch.arange(width // 4).double() / (width // 4))
    rows, columns = torch.meshgrid(*[torch.arange(side).double()] * 2, indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in (columns, rows)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], -1).float()


def _layers(
    x: torch.Tensor,
    prototypes: torch.Tensor,
    condition: torch.Tensor,
    blocks: nn.ModuleList,
    attentions: nn.ModuleList,
    early: Sequence[torch.Tensor] = (),
) -> list[torch.Tensor]:
    """The output of each layer; on the way up each takes that of its mirror image on the way down."""
    outputs = []
    for i, (block, attend) in enumerate(zip(blocks, attentions, strict=True)):
        x = attend(block(torch.cat([x, early[len(early) - 1 - i]], 1) if early else x, condition), prototypes)
        outputs.append(x)
    return outputs


def _modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return _plain_norm(x) * (1 + scale) + shift


def _plain_norm(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _layer_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(width, 32), width, eps=1e-6)
