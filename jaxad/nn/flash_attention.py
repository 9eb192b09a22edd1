"""Attention that never holds its logits: kernels of cuDNN on NVIDIA GPUs and of Pallas on TPUs.

What these kernels cannot run is left to XLA, which holds the logits in the compute type, of a few queries at a time
where there are many, and computes those again for the gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxad.nn.activations import softmax
from jaxad.types import Array

LEAST_KEYS = 256
"""Keys from which a TPU's kernel pays: it takes 128 at a time, and for the gradient as many float32 sums of a query."""
LEAST_GPU_KEYS = 64
"""Keys from which cuDNN's kernel pays: as many as it takes at a time, and a text has 77."""
QUERIES = 256
"""Most queries whose logits XLA holds at once, where there are many keys."""
TPU_BLOCK = 128
"""Tokens of a TPU's kernel come in multiples of as many."""
MOST_GPU_WIDTH = 128
"""Channels of a head up to which cuDNN's kernel takes it on every GPU, for gradients too; jax asks the GPU at hand."""
OLDEST_GPU = 8
"""Major compute capability from which cuDNN has such a kernel (Ampere)."""


def with_logits(q: Array, k: Array, v: Array, *, causal: bool) -> jax.Array:
    """XLA's own attention of q, k, v [b n heads d], of many keys some queries at a time.

    Returns:
        [b n heads d] of the same type, in which logits are held, too; the softmax is float32.
    """
    if k.shape[1] < LEAST_KEYS or causal:
        return _plain(q, k, v, causal=causal)
    tokens, again = q.shape[1], jax.checkpoint(functools.partial(_plain, causal=False))
    parts = -(-tokens // QUERIES)
    if parts == 1:
        return again(q, k, v)
    q = jnp.pad(q, ((0, 0), (0, -tokens % parts), (0, 0), (0, 0)))
    blocks = jnp.moveaxis(q.reshape(len(q), parts, -1, *q.shape[2:]), 1, 0)
    y = jnp.moveaxis(jax.lax.map(lambda rows: again(rows, k, v), blocks), 0, 1)
    return y.reshape(len(q), -1, *y.shape[3:])[:, :tokens]


def _plain(q: Array, k: Array, v: Array, *, causal: bool) -> jax.Array:
    """softmax(Q K^T / sqrt(d)) V, logits and weights in the type of q, k and v."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=q.dtype)
    scaled = logits.astype(jnp.float32) * q.shape[-1] ** -0.5
    if causal:
        scaled = jnp.where(jnp.tril(jnp.ones((1, 1, *logits.shape[2:]), bool)), scaled, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", softmax(scaled, v.dtype), v, preferred_element_type=v.dtype)


def on_cuda(q: Array, k: Array, v: Array, *, causal: bool) -> jax.Array:
    """Attention of q, k, v [b n heads d] by cuDNN where it takes such arrays: of 16 bits, d a multiple of 8 to 128.

    Returns:
        [b n heads d] of the same type; elsewhere as `with_logits`.
    """
    by_cudnn = functools.partial(cudnn_attention, causal=causal)
    pays = k.shape[1] >= LEAST_GPU_KEYS and q.dtype.itemsize == 2 and q.shape[-1] <= MOST_GPU_WIDTH
    runs = pays and _divides_evenly(q) and _gpus_are_new_enough() and _takes(by_cudnn, q, k, v)
    return _on_each_device(by_cudnn)(q, k, v) if runs else with_logits(q, k, v, causal=causal)


def cudnn_attention(q: Array, k: Array, v: Array, *, causal: bool) -> jax.Array:
    """cuDNN's kernel, whose gradient takes even numbers of tokens only: one more is added, which no query sees.

    Args:
        q: [b n heads d] of 16 bits, d a multiple of 8 up to 128.
        k, v: [b k heads d] of the same type.
        causal: whether position i sees only the keys 0 to i.

    Returns:
        [b n heads d] of the same type.

    Raises:
        NotImplementedError, RuntimeError, ValueError: cuDNN is not here, or does not take such arrays.
    """
    queries, keys = q.shape[1], k.shape[1]
    lengths: dict[str, Any] = {}
    if queries % 2 or keys % 2:
        numbers = {"query_seq_lengths": queries, "key_value_seq_lengths": keys}
        lengths = {name: jnp.full(len(q), number, jnp.int32) for name, number in numbers.items()}
        q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation="cudnn", **lengths)
    return y[:, :queries]


def on_tpu(q: Array, k: Array, v: Array, *, causal: bool) -> jax.Array:
    """Attention of q, k, v [b n heads d] by Pallas' kernel.

    Returns:
        [b n heads d] of the same type; as `with_logits` where the kernel does not take such arrays, or few keys.
    """
    width = q.shape[-1]
    if k.shape[1] < LEAST_KEYS or (width > TPU_BLOCK and width % TPU_BLOCK) or not _divides_evenly(q):
        return with_logits(q, k, v, causal=causal)
    return _on_each_device(functools.partial(pallas_attention, causal=causal))(q, k, v)


def _divides_evenly(q: Array) -> bool:
    """Whether all devices, which `jaxad.parallel.on_mesh` names, can have as many of the images, the rows of q."""
    return len(q) % max(jax.sharding.get_abstract_mesh().size, 1) == 0


def _on_each_device(kernel: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A kernel of q, k, v, run by each device on its own images.

    The compiler cannot look into a kernel. It would gather all images on every device for Pallas', and for cuDNN's
    divide heads where a matrix product before it is divided by channels, which fails where they are not even.
    """
    devices = jax.sharding.get_abstract_mesh()
    if devices.size <= 1:
        return kernel
    images = PartitionSpec(devices.axis_names)
    return jax.shard_map(kernel, in_specs=(images,) * 3, out_specs=images, check_vma=False)


def _takes(attention: Any, *arrays: Array) -> bool:
    """Whether a kernel takes these arrays; asking runs nothing."""
    try:
        jax.eval_shape(lambda *arrays: jax.vjp(attention, *arrays)[0], *arrays)
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return True


def _gpus_are_new_enough() -> bool:
    """Whether those that a program is made for are: those here of their name, or others that it is compiled for."""
    target: Any = jax.sharding.get_abstract_mesh().abstract_device
    try:
        gpus = jax.local_devices(backend="cuda")
    except RuntimeError:
        return True
    gpus = [gpu for gpu in gpus if target is None or gpu.device_kind == target.device_kind]
    return all(int(str(gpu.compute_capability).split(".")[0]) >= OLDEST_GPU for gpu in gpus)


def pallas_attention(q: Array, k: Array, v: Array, *, causal: bool) -> jax.Array:
    """Pallas' kernel on the arrays of one device, whose tokens are filled up to whole blocks that no real query sees.

    Args:
        q: [b n heads d] of floats, any d; `on_tpu` says which it is asked for.
        k, v: [b k heads d] of the same type.
        causal: whether position i sees only the keys 0 to i.

    Returns:
        [b n heads d] of the same type.
    """
    # Takes half a second to import, which programs for CPUs without large images need not pay.
    from jax.experimental.pallas.ops.tpu.flash_attention import BlockSizes, SegmentIds, flash_attention

    queries, keys = q.shape[1], k.shape[1]
    q, k, v = (jnp.pad(x, ((0, 0), (0, -x.shape[1] % TPU_BLOCK), (0, 0), (0, 0))).swapaxes(1, 2) for x in (q, k, v))
    real = [jnp.arange(x.shape[2]) < length for x, length in ((q, queries), (k, keys))]
    segments = SegmentIds(*(jnp.broadcast_to(each.astype(jnp.int32)[None], (len(q), len(each))) for each in real))
    rows, columns = _block(q.shape[2]), _block(k.shape[2])
    sizes = BlockSizes(rows, columns, columns, 1, rows, columns, columns, rows, columns, columns, rows)
    scale = q.shape[3] ** -0.5
    y = flash_attention(q, k, v, segment_ids=segments, causal=causal, sm_scale=scale, block_sizes=sizes)
    return y[:, :, :queries].swapaxes(1, 2)


def _block(tokens: int) -> int:
    """The largest block of at most 512 that divides a number of tokens, itself a multiple of 128."""
    return next(size for size in (512, 384, 256, 128) if tokens % size == 0)
