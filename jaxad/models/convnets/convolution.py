"""What convolutional backbones have in common: convolution with batch norm in inference form, stages, their grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.errors import ConfigError
from jaxad.nn.positions import patch_grid
from jaxad.nn.resize import resize_bilinear
from jaxad.types import Array

Padding = Literal["symmetric", "same", "trailing"]
"""Zeros around images. "symmetric": half a kernel on every side, as in torch. "same": as many as TensorFlow takes, for
even sides and stride 2 one less above and left. "trailing": one less above and left for any side and stride 2, as in
transformers' EfficientNet."""

PATCH = 16
"""Stride of the token grid that a convolutional backbone gives: that of a ViT-B/16, between its stages' own."""

_TAPPED_STRIDES = (4, 8, 16)
"""Strides of the stages that make the features unless others are asked for."""


class BatchNorm(nnx.Module):
    """Batch norm with running statistics: a gain and a shift for each channel, to be loaded.

    Args:
        width: channels.
        eps: added to the variance.
    """

    def __init__(self, width: int, eps: float):
        self.eps = eps
        self.scale, self.var = nnx.Param(jnp.ones(width, jnp.float32)), nnx.Param(jnp.ones(width, jnp.float32))
        self.bias, self.mean = nnx.Param(jnp.zeros(width, jnp.float32)), nnx.Param(jnp.zeros(width, jnp.float32))

    def affine(self) -> tuple[jax.Array, jax.Array]:
        """Gain and shift, both float32 [c]."""
        gain = self.scale[...] * jax.lax.rsqrt(self.var[...].astype(jnp.float32) + self.eps)
        return gain, self.bias[...] - self.mean[...] * gain


class ConvNorm(nnx.Module):
    """Convolution without bias, batch norm, activation; the norm's gain is multiplied into the kernel.

    The kernel is zero until it is loaded: these networks are never trained here.

    Args:
        inputs, outputs: channels; equal for a depthwise convolution.
        size: side of the kernel, odd.
        stride: step between outputs.
        depthwise: each channel has a kernel of its own.
        activation: applied in float32, as shift and gain are.
        padding: see `Padding`.
        eps: of the norm.
        dtype: compute type.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        activation: Callable[[jax.Array], jax.Array] | None = None,
        padding: Padding = "symmetric",
        eps: float,
        dtype: Any,
    ):
        self.size, self.stride, self.dtype = size, stride, dtype
        self.padding: Padding = padding
        self.groups = inputs if depthwise else 1
        self.activation = activation
        self.kernel = nnx.Param(jnp.zeros((size, size, inputs // self.groups, outputs), jnp.float32))
        self.norm = BatchNorm(outputs, eps)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w inputs] -> [b h' w' outputs]."""
        gain, shift = self.norm.affine()
        kernel = (self.kernel[...] * gain.reshape(1, 1, 1, -1)).astype(self.dtype)
        zeros = [_zeros(self.padding, side, self.size, self.stride) for side in x.shape[1:3]]
        convolve = functools.partial(_convolve, stride=self.stride, zeros=zeros, groups=self.groups)
        if self.groups > 1:
            on_cpu = functools.partial(_convolve_depthwise, stride=self.stride, zeros=zeros)
            y = jax.lax.platform_dependent(x.astype(self.dtype), kernel, cpu=on_cpu, default=convolve)
        else:
            y = convolve(x.astype(self.dtype), kernel)
        y = y.astype(jnp.float32) + shift.reshape(1, 1, 1, -1)
        return (self.activation(y) if self.activation else y).astype(self.dtype)


class ConvNet(nnx.Module):
    """A convolutional network in stages. Abstract; ResNet and EfficientNet are final.

    Attributes:
        config: its shape.
        stages: its stages.
        widths: channels of each stage's output.
        strides: pixels of the image per output pixel of each stage.
    """

    config: Any
    stages: nnx.List
    widths: tuple[int, ...]
    strides: tuple[int, ...]

    def stem(self, images: Array) -> jax.Array:
        """What comes before the first stage, [b h w 3] -> [b h' w' c]."""
        raise TypeError(f"{type(self).__name__} does not define its stem")

    def taps(self, images: Array, stages: Collection[int]) -> dict[int, jax.Array]:
        """Outputs [b h' w' c] of `stages`, from 0, for normalized `images` [b h w 3]; deeper stages do not run.

        Raises:
            ConfigError: a stage that this network does not have.
        """
        chex.assert_shape(images, (None, None, None, 3), custom_message="images must be [b h w 3]")
        if not stages or not set(stages) <= set(range(len(self.stages))):
            raise ConfigError(f"stages = {sorted(stages)}: needs one or more of 0 to {len(self.stages) - 1}")
        x, tapped = self.stem(images), {}
        for index in range(max(stages) + 1):
            for block in self.stages[index]:
                x = block(x)
            if index in stages:
                tapped[index] = x
        return tapped

    def features(self, images: Array, stages: Collection[int]) -> jax.Array:
        """Outputs of `stages` on the grid of stride 16, by averages or bilinearly, side by side: float32 [b n c].

        A mean over stages, as over a ViT's blocks, would need equal widths; anomaly detectors on convolutional networks
        concatenate (PatchCore, PaDiM, RD4AD).
        """
        grid = self.grid((images.shape[1], images.shape[2]))
        tapped = self.taps(images, stages).values()
        joined = jnp.concatenate([to_grid(stage.astype(jnp.float32), grid) for stage in tapped], axis=-1)
        return joined.reshape(len(images), -1, joined.shape[-1])

    def features_width(self, stages: Collection[int]) -> int:
        """Channels c of the features of `stages`."""
        return sum(self.widths[stage] for stage in stages)

    def usual_blocks(self, part: Literal["middle"] | None = None) -> tuple[int, ...]:
        """Numbers of the stages that end at strides 4, 8 and 16, each the last of its stride."""
        last = {stride: index for index, stride in enumerate(self.strides)}
        return tuple(last[stride] for stride in _TAPPED_STRIDES)

    def maps(self, images: Array, stages: Collection[int] | None = None) -> list[jax.Array]:
        """Outputs of `stages`, or of those that end at strides 4, 8 and 16, for `images` [b h w 3].

        Returns:
            float32 [b h' w' c] of each.

        Raises:
            ConfigError: a stage that this network does not have.
        """
        tapped = self.taps(images, self.usual_blocks() if stages is None else stages)
        return [stage.astype(jnp.float32) for stage in tapped.values()]

    @property
    def depth(self) -> int:
        """Number of stages."""
        return len(self.stages)

    @property
    def patch(self) -> int:
        """Pixels of the image per feature."""
        return PATCH

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns (h, w) of the token grid of an image of `size` (height, width) in pixels.

        Raises:
            ConfigError: a side that is no multiple of 16.
        """
        return patch_grid(size, PATCH)


def to_grid(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Features [b h w c] on another grid: averages of cells when shrinking, bilinear when growing."""
    chex.assert_rank(x, 4, custom_message="x must be [b h w c]")
    b, height, width, c = x.shape
    rows, columns = grid
    if height % rows == 0 and width % columns == 0:
        return x.reshape(b, rows, height // rows, columns, width // columns, c).mean((2, 4))
    return resize_bilinear(x, grid)


def max_pool(x: jax.Array, size: int, stride: int) -> jax.Array:
    """Maximum of windows of an odd size around every output, [b h w c] -> [b h' w' c]."""
    chex.assert_rank(x, 4, custom_message="x must be [b h w c]")
    margin = (size // 2, size // 2)
    x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)), constant_values=-jnp.inf)
    return functools.reduce(jnp.maximum, (shifted for _, _, shifted in _shifts(x, size, stride)))


def _convolve(x: jax.Array, kernel: jax.Array, *, stride: int, zeros: list[tuple[int, int]], groups: int) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), zeros, dimension_numbers=numbers, feature_group_count=groups
    )


def _convolve_depthwise(x: jax.Array, kernel: jax.Array, *, stride: int, zeros: list[tuple[int, int]]) -> jax.Array:
    """A sum of shifted images, which CPUs run as one loop, up to 50 times faster than their grouped convolution."""
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), *zeros, (0, 0)))
    shifts = _shifts(x, kernel.shape[0], stride)
    terms = (shifted * kernel[row, column].reshape(1, 1, 1, -1) for row, column, shifted in shifts)
    return functools.reduce(jnp.add, terms).astype(kernel.dtype)


def _shifts(x: jax.Array, size: int, stride: int) -> Iterator[tuple[int, int, jax.Array]]:
    """For every row and column of a window: what lies there, for all windows that fit into x [b h w c]."""
    rows, columns = ((side - size) // stride for side in x.shape[1:3])
    for row in range(size):
        for column in range(size):
            yield (
                row,
                column,
                jax.lax.slice(
                    x,
                    (0, row, column, 0),
                    (x.shape[0], row + rows * stride + 1, column + columns * stride + 1, x.shape[3]),
                    (1, stride, stride, 1),
                ),
            )


def _zeros(padding: Padding, side: int, size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side of that many pixels."""
    if padding == "same":
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        return total // 2, total - total // 2
    return size // 2 - (padding == "trailing" and stride == 2), size // 2
