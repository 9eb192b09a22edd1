"""What ways to attend take of accelerators, by their compilers' plans: `python -m tests.campaigns.attention_ways`.

Of one layer of Stable Diffusion's UNet, whose heads are 40, 80 and 160 channels wide: by the kernel of the platform, by
the same with heads filled up with zeros, and by XLA, forward and with gradients. Needs the extras `tpu` and `cuda12`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxad.bench._account import markdown
from jaxad.bench._plan import plan
from jaxad.bench._topologies import Topology, find_topologies
from jaxad.nn.flash_attention import cudnn_attention, pallas_attention, with_logits
from jaxad.types import Array

TOPOLOGIES = ("h100:1", "v5e:1x1")
HEADS = 8
CLIPFUSION = ((12, 4096, 40), (12, 1024, 80), (12, 256, 160))
VLMDIFF = ((32, 1024, 40), (32, 256, 80), (32, 64, 160), (4, 256, 80))
"""Images, tokens and width of a head: a pass at 512 pixels; 32 images of 256 pixels, and four of them on a chip."""
WIDTHS = (64, 128, 256)
"""To which heads are filled up."""
Attention = Callable[[Array, Array, Array], jax.Array]


def filled_up(kernel: Attention, width: int) -> Attention:
    """A kernel given heads of `width` channels, zeros behind those that there are."""

    def attend(q: Array, k: Array, v: Array) -> jax.Array:
        there = q.shape[-1]
        q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - there))) for x in (q, k, v))
        # The kernel divides logits by the root of the width it sees.
        return kernel(q * jnp.asarray(math.sqrt(width / there), q.dtype), k, v)[..., :there]

    return attend


def with_gradients(attend: Attention) -> Callable[[Array, Array, Array, Array], tuple[Array, Array, Array]]:
    """Gradients of queries, keys and values, given that of what is attended to."""
    return lambda q, k, v, given: jax.vjp(attend, q, k, v)[1](given)


def ways(platform: str, width: int) -> dict[str, Attention]:
    """Every way by its name; a kernel may refuse the width."""
    kernel = functools.partial(pallas_attention if platform == "tpu" else cudnn_attention, causal=False)
    found: dict[str, Attention] = {"XLA": functools.partial(with_logits, causal=False), "kernel": kernel}
    return found | {f"kernel, filled up to {more}": filled_up(kernel, more) for more in WIDTHS if more > width}


def row(topology: Topology, images: int, tokens: int, width: int, way: str, *, gradients: bool) -> list[object]:
    """GB that a way moves and holds, or that its kernel refuses heads of that width."""
    attend = ways(topology.chip.platform, width)[way]
    inner: Callable[..., object] = with_gradients(attend) if gradients else attend

    def layer(*arrays: Array) -> object:
        # As a network has them, heads side by side.
        outputs = inner(*(x.reshape(images, tokens, HEADS, width) for x in arrays))
        return jax.tree.map(lambda y: y.reshape(images, tokens, HEADS * width), outputs)

    where = NamedSharding(topology.mesh(), PartitionSpec())
    x = jax.ShapeDtypeStruct((images, tokens, HEADS * width), jnp.bfloat16, sharding=where)
    about = [topology.name, images, tokens, width, "with gradients" if gradients else "forward", way]
    try:
        traced = jax.jit(layer).trace(*[x] * (4 if gradients else 3))
    except NotImplementedError:
        return [*about, "refused", "", ""]
    found = plan(traced, topology, images=images, prepare=lambda: lambda: None)
    return [*about, f"{found['traffic_gb']:.3f}", f"{found['gb']['total']:.3f}", found["largest_float32"]]


def main() -> None:
    """Prints a table, a line for each way."""
    rows = [
        row(topology, *layer, way, gradients=gradients)
        for topology in find_topologies(TOPOLOGIES)
        for layer in CLIPFUSION + VLMDIFF
        for gradients in (False, True)
        for way in ways(topology.chip.platform, layer[-1])
    ]
    print(markdown(["topology", "images", "tokens", "head", "", "way", "GB moved", "GB held", "largest float32"], rows))


if __name__ == "__main__":
    main()
