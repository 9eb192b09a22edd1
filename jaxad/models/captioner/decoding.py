"""Greedy answers: one program reads questions, another writes answers to all of them until the last has ended."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxad.models.captioner.decoder import Memory
from jaxad.models.captioner.network import InternVL
from jaxad.nn.loops import by_parts
from jaxad.types import Array

AT_ONCE = 4096
"""Tokens that a device reads at once: matrix units are busy with as many, and more would take memory alone. A question
about an image of the most tiles has 3,500."""


def read(
    network: InternVL, ids: Array, is_image: Array, lengths: Array, tiles: Array, room: int
) -> tuple[jax.Array, list[Memory]]:
    """Reads questions about images.

    Args:
        network: what reads.
        ids: token ids, int [b n]; what follows the end of a question has no effect.
        is_image: which of them stand for the image, bool [b n].
        lengths: tokens of each question, int [b].
        tiles: of the images, uint8 [b t h w 3].
        room: places of the memories, at least n.

    Returns:
        Logits of the answers' first tokens, float32 [b v], and the decoder's memories of `room` places.
    """

    def read_part(ids: Array, is_image: Array, lengths: Array, tiles: Array) -> tuple[jax.Array, list[Memory]]:
        states, memories = network.decoder.read(network.embed(ids, is_image, tiles), lengths)
        last = jnp.take_along_axis(states, (lengths - 1)[:, None, None], axis=1)[:, 0]
        kept, more = (0, 0), (0, room - ids.shape[1])
        wider = (kept, kept, kept, more), (kept, kept, more, kept)
        return last, [(jnp.pad(keys, wider[0]), jnp.pad(values, wider[1])) for keys, values in memories]

    last, memories = by_parts(read_part, _parts(*ids.shape), ids, is_image, lengths, tiles)
    return network.decoder.logits(last), memories


def _parts(rows: int, tokens: int) -> int:
    """In how many parts questions of so many tokens are read: the fewest, of at most `AT_ONCE` or of one question."""
    own = rows // max(jax.sharding.get_abstract_mesh().size, 1)
    fitting = (parts for parts in range(1, own) if own % parts == 0 and own // parts * tokens <= AT_ONCE)
    return next(fitting, own)


def write(
    network: InternVL,
    logits: jax.Array,
    memories: list[Memory],
    lengths: Array,
    wanted: Array,
    stops: Sequence[int],
    longest: int,
) -> tuple[jax.Array, list[Memory]]:
    """Writes answers, of the likeliest token each time.

    Args:
        network: what writes.
        logits, memories: what `read` gives; the memories need `longest` places beyond the longest question.
        lengths: tokens of each question, int [b].
        wanted: which rows to wait for, bool [b].
        stops: ids that end an answer, one at least.
        longest: most tokens of an answer.

    Returns:
        Token ids, int32 [b longest]: an answer, what ended it, and from there on the first of `stops`. And the
        memories, so that a program can write to those that it was given.
    """
    ends = jnp.asarray(stops, jnp.int32)

    def ended(ids: jax.Array) -> jax.Array:
        return (ids[:, None] == ends[None]).any(axis=1)

    def goes_on(state: tuple) -> jax.Array:
        number, _, _, done, _ = state
        return (number < longest) & ~done.all()

    def next_token(state: tuple) -> tuple:
        number, ids, written, done, memories = state
        logits, memories = network.decoder.step(ids, lengths + number - 1, memories)
        ids = jnp.where(done, ends[0], logits.argmax(axis=-1).astype(jnp.int32))
        written = jax.lax.dynamic_update_slice_in_dim(written, ids[:, None], number, axis=1)
        return number + 1, ids, written, done | ended(ids), memories

    first = logits.argmax(axis=-1).astype(jnp.int32)
    written = jnp.full((len(first), longest), ends[0]).at[:, 0].set(first)
    state = (jnp.int32(1), first, written, ended(first) | ~wanted, memories)
    _, _, written, _, memories = jax.lax.while_loop(goes_on, next_token, state)
    return written, memories
