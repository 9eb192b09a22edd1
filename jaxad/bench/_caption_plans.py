"""Plans of the two programs of `jaxad caption`, that of questions and that of answers, for accelerators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxad import parallel
from jaxad.bench._account import drawn, random_like
from jaxad.bench._plan import plan
from jaxad.bench._topologies import Topology
from jaxad.bench._vlmdiff_networks import Size
from jaxad.detectors.vlmdiff.internvl import BLOCK, programs
from jaxad.models.captioner.config import CaptionerConfig, DecoderConfig, TowerConfig
from jaxad.models.captioner.network import abstract_internvl, filled_up
from jaxad.nn import module_state

WORDS = 128
"""Tokens of a question besides its tiles, at most; that of the prompt `pd` is among them."""
LONGEST = 1024
"""Tokens of an answer, as `jaxad caption` has it."""
TINY = CaptionerConfig(
    tower=TowerConfig(width=16, depth=1, heads=2, hidden=32, patch=7, image_size=28),
    decoder=DecoderConfig(width=16, depth=1, heads=4, key_heads=2, head_width=4, hidden=32, vocabulary=64),
    most_tiles=2,
)


def caption_plans(
    topology: Topology, batch_size: int, *, dtype: Literal["float32", "bfloat16"], size: Size
) -> Iterator[dict[str, Any]]:
    """Plans of reading questions about images of the most tiles and of writing the longest answers.

    Devices share the parameters (`--fsdp`) and divide the images.

    Args:
        topology: chips.
        batch_size: images at once on each device.
        dtype: compute type, of parameters too.
        size: "published" for InternVL2-8B, or "tiny", for tests.

    Yields:
        Rows as of `jaxad.bench._plan.plan`; operations, traffic and time of answers are those of one token of each, and
        `images_per_second` is that of the longest answers.
    """
    config, mesh = CaptionerConfig() if size == "published" else TINY, topology.mesh()
    images = batch_size * mesh.size
    network = abstract_internvl(config, jnp.dtype(dtype))
    graphdef, shapes = module_state.split(network)
    arrays = parallel.shard_parameters(filled_up(shapes, config.decoder), mesh)
    asked = -(-(config.most * config.tile_tokens + WORDS) // BLOCK) * BLOCK
    # The id that ends an answer is any one.
    read, write = programs(graphdef, mesh, asked + LONGEST, (0,), LONGEST)
    side, like = config.tower.image_size, jax.ShapeDtypeStruct
    shape = (images, asked)
    question: Any = like(shape, jnp.int32), like(shape, jnp.bool_), like((images,), jnp.int32)
    question = parallel.shard_batch((*question, like((images, config.most, side, side, 3), jnp.uint8)), mesh)
    logits, memories = jax.eval_shape(read, arrays, *question)
    written = parallel.shard_batch((logits, memories, like((images,), jnp.int32), like((images,), jnp.bool_)), mesh)
    for name, program, inputs, tokens in (("questions", read, question, 1), ("answers", write, written, LONGEST)):
        row = {"program": f"captions, {name}", "batch_size": images, "size": size, "dtype": dtype}
        prepare = partial(_running, network, program, inputs, topology)
        traced = program.trace(arrays, *inputs)
        yield row | plan(traced, topology, images=images / tokens, prepare=prepare, dtype=dtype)


def _running(network: Any, program: Any, inputs: Any, topology: Topology) -> Callable[[], Any]:
    """What runs a program with random weights and inputs, which are placed anew each time, as some are donated."""
    mesh = topology.mesh()
    arrays = filled_up(module_state.split(drawn(network))[1], network.config.decoder)
    arrays, values = parallel.shard_parameters(arrays, mesh), random_like(inputs)
    return lambda: jax.block_until_ready(program(arrays, *parallel.shard_batch(values, mesh)))
