"""Prompts with learned tokens for many categories: their ids, and what a text tower makes of them (PromptAD)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import PromptADConfig
from jaxad.detectors.clipfusion.prompts import object_words
from jaxad.errors import ConfigError
from jaxad.models.clip.tokenizer import CLIPTokenizer
from jaxad.models.clip.towers import TextTower
from jaxad.nn.cosine import unit
from jaxad.nn.variables import Memory
from jaxad.types import Array


class Prompts(nnx.Module):
    """What is learned for one purpose, and what became of it; of g categories, which begin alike.

    Args:
        count: number p of normal prompts.
        config: says how long they are, and how many suffixes there are.
        categories: number g.
        width: of tokens, c.

    Attributes:
        normal: learned tokens before the name of the object [g p l c].
        suffixes: learned tokens between these and the name, which make a prompt abnormal [g q m c].
        texts: normal and abnormal direction of each category [g 2 d], once it is trained.
    """

    def __init__(self, count: int, config: PromptADConfig, categories: int, width: int, *, rngs: nnx.Rngs):
        def drawn(*shape: int) -> nnx.Param[Any]:
            tokens = 0.02 * jax.random.normal(rngs.params(), (1, *shape, width))
            return nnx.Param(jnp.repeat(tokens, categories, axis=0))

        self.normal = drawn(count, config.prompt_tokens)
        self.suffixes = drawn(config.suffixes, config.suffix_tokens)
        self.texts = Memory.empty()


class Texts(NamedTuple):
    """What the text tower makes of the prompts of g categories, float32, of any length.

    Attributes:
        normal: [g p d].
        manual: [g p s d], with the states of a category, filled up to the most that one has.
        learned: [g p q d], with the suffixes.
    """

    normal: jax.Array
    manual: jax.Array
    learned: jax.Array


class Directions(NamedTuple):
    """The same of unit length, as images are compared with them.

    Attributes:
        normal, abnormal: means of all prompts [g d].
        each: all abnormal prompts [g k d].
        used: which of these there are [g k].
        apart: squared distance of the means of manual and learned ones [g].
    """

    normal: jax.Array
    abnormal: jax.Array
    each: jax.Array
    used: jax.Array
    apart: jax.Array


def embed(tower: TextTower, prompts: Sequence[Prompts], ids: Array) -> list[Texts]:
    """What the tower makes of several prompts with the same ids [g 2+s k].

    One category comes after the other, which bounds memory.
    """
    given = jnp.asarray(ids), [(each.normal[...], each.suffixes[...]) for each in prompts]
    return jax.lax.map(jax.checkpoint(partial(_embedded, tower)), given)


def directions(texts: Texts, used: Array) -> Directions:
    """Texts and their means, of unit length; `used` [g s] says which states a category has."""
    normal, manual, learned = texts
    g, p, s, d = manual.shape
    known = jnp.broadcast_to(jnp.asarray(used)[:, None], (g, p, s)).reshape(g, p * s)
    manual, learned = manual.reshape(g, -1, d), learned.reshape(g, -1, d)
    used = jnp.concatenate([known, jnp.ones(learned.shape[:2], bool)], axis=1)
    each = jnp.concatenate([manual, learned], axis=1)
    apart = _mean(unit(manual), known) - unit(learned).mean(1)
    return Directions(unit(normal.mean(1)), unit(_mean(each, used)), unit(each), used, jnp.square(apart).sum(-1))


def prompt_ids(
    config: PromptADConfig, tower: TextTower, tokenizer: CLIPTokenizer, categories: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of all prompts, with places for what is learned behind the start token.

    Args:
        config: says how many places there are.
        tower: for which they are.
        tokenizer: of that tower.
        categories: g names.

    Returns:
        int32 [g 2+s k]: the normal prompt, those of the s states of a category, filled up with the first one, and that
        of a suffix; and which states there are, bool [g s].

    Raises:
        ConfigError: prompts that are too long for the tower.
    """
    rows: list[list[list[int]]] = []
    for category in categories:
        words = object_words(category, config.sight)
        learned = [config.prompt_tokens] * (1 + len(states := config.abnormal(category, words)))
        learned.append(config.prompt_tokens + config.suffix_tokens)
        texts = [f"{text}." for text in (words, *states, words)]
        long = []
        rows.append([])
        for text, places in zip(texts, learned, strict=True):
            ids = tokenizer.ids(text)
            if len(ids) + places > tokenizer.context - 2:
                long.append(f"  prompt {text!r}: {len(ids)} tokens besides {places} learned ones")
            rows[-1].append([tokenizer.start, *[0] * places, *ids, tokenizer.end])
        if long:
            raise ConfigError("\n".join([f"the text tower takes {tokenizer.context - 2} tokens:", *long]))
    most, longest = max(map(len, rows)), max(len(row) for group in rows for row in group)
    # No token sees those behind it: what fills texts up is left out where no text needs it.
    shape = tower.config
    length = longest if shape.causal and shape.pool != "last" else tokenizer.context
    ids = np.full((len(rows), most, length), tokenizer.pad, np.int32)
    for filled, group in zip(ids, rows, strict=True):
        for row, text in zip(filled, [*group[:-1], *[group[1]] * (most - len(group)), group[-1]], strict=True):
            row[: len(text)] = text
    return ids, np.array([[place < len(group) - 2 for place in range(most - 2)] for group in rows])


def _embedded(tower: TextTower, given: tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]) -> list[Texts]:
    """Texts [... d] of one category from its ids [2+s k], and learned tokens [p l c] and suffixes [q m c] of each."""
    ids, learned = given
    tokens, rows = tower.embed(ids), [_rows(ids, *each) for each in learned]
    embedded = jnp.concatenate([_placed(tokens, *each) for each in learned])
    embedding = tower(jnp.concatenate(rows), embedded=embedded).embedding
    assert embedding is not None
    parts = jnp.split(embedding.astype(jnp.float32), np.cumsum([len(each) for each in rows])[:-1])
    states, found = len(ids) - 2, []
    for part, (normal, _) in zip(parts, learned, strict=True):
        texts = part.reshape(len(normal), -1, part.shape[-1])
        found.append(Texts(texts[:, 0], texts[:, 1 : 1 + states], texts[:, 1 + states :]))
    return found


def _rows(ids: jax.Array, normal: jax.Array, suffixes: jax.Array) -> jax.Array:
    """Ids of each normal prompt in turn: it alone, with each state, with each suffix [p*(1+s+q) k]."""
    own = jnp.concatenate([ids[:-1], jnp.broadcast_to(ids[-1], (len(suffixes), ids.shape[1]))])
    return jnp.tile(own, (len(normal), 1))


def _placed(tokens: jax.Array, normal: jax.Array, suffixes: jax.Array) -> jax.Array:
    """Embeddings [p*(1+s+q) k c] of the same, made of those of the ids [2+s k c]."""
    (p, length, c), (q, more, _), k = normal.shape, suffixes.shape, tokens.shape[1]
    own = jnp.concatenate([tokens[:-1], jnp.broadcast_to(tokens[-1], (q, k, c))])
    own = own.at[-q:, 1 + length : 1 + length + more].set(suffixes)
    placed = jnp.broadcast_to(own, (p, *own.shape)).at[:, :, 1 : 1 + length].set(normal[:, None])
    return placed.reshape(-1, k, c)


def _mean(vectors: jax.Array, used: jax.Array) -> jax.Array:
    """Mean [g d] of those of the vectors [g k d] that are used."""
    return jnp.where(used[..., None], vectors, 0.0).sum(1) / used.sum(1)[:, None]
