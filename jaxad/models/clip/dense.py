"""What CLIP says of an image's parts besides its patches: by windows (WinCLIP, arXiv 2303.14814), by its last values
(MaskCLIP, 2112.01071), and by what its answer hangs on (Trans-MM, 2103.15679)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.models.clip.towers import Block, VisionTower
from jaxad.types import Array


def window_embeddings(tower: VisionTower, images: Array, patches: np.ndarray) -> jax.Array:
    """What the tower says of each window when it sees its patches and the class token alone; one batch for all windows.

    Args:
        tower: the image tower.
        images: [b h w 3] as `VisionTower` takes them.
        patches: int [w m], the patches of each window.

    Returns:
        [b w d] in the space shared with texts.
    """
    chex.assert_rank(patches, 2, custom_message="patches must be [w m]")
    tokens = tower.embed(images)
    b, windows = len(tokens), len(patches)
    leading = jnp.broadcast_to(tokens[:, None, :1], (b, windows, 1, tokens.shape[-1]))
    x = jnp.concatenate([leading, tower.patches(tokens)[:, patches]], axis=2)
    x = x.reshape(b * windows, *x.shape[2:])
    for block in tower.blocks:
        x = block(x)
    return tower.projection(tower.pool(x)).reshape(b, windows, -1)


def value_patches(tower: VisionTower, images: Array) -> jax.Array:
    """Patches whose last attention is replaced by their own values: [b h w 3] -> [b n d]."""
    x, last = tower.embed(images), tower.blocks[-1]
    for block in list(tower.blocks)[:-1]:
        x = block(x)
    own = last.attention.out(last.attention.value(last.norm1(x)))
    return tower.projection(tower.norm(tower.patches(last.after_attention(x, own))))


def text_relevance(tower: VisionTower, images: Array, texts: Array) -> jax.Array:
    """How much the cosine of each image and a text hangs on each patch, by attention and its gradient.

    Args:
        tower: the image tower.
        images: [b h w 3] as `VisionTower` takes them.
        texts: [b d], one for each image, in the space shared with images.

    Returns:
        float32 [b n], at least 0.

    Source: Trans-MM (arXiv 2103.15679), Eq. 5 and 6, from the class token as in its code for CLIP.
    """
    tokens = tower.embed(images)
    b, n, _ = tokens.shape
    shape = (b, tower.config.heads, n, n)

    def agreement(changes: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        """Sum over images, each of which has its own attention, and the attention of all blocks."""
        x, found = tokens, []
        for block, change in zip(tower.blocks, changes, strict=True):
            attention = _attention_of(block, x)
            found.append(attention)
            x = _attended_by(block, x, attention + change)
        embedding = tower.projection(tower.pool(x)).astype(jnp.float32)
        cosines = jnp.einsum("bd,bd->b", embedding, jnp.asarray(texts, jnp.float32), precision="highest")
        return (cosines / jnp.linalg.norm(embedding, axis=-1) / jnp.linalg.norm(texts, axis=-1)).sum(), found

    gradients, attentions = jax.grad(agreement, has_aux=True)([jnp.zeros(shape, jnp.float32) for _ in tower.blocks])
    # The class token's row of the product over all blocks needs its factors from the last one on, and vectors alone.
    relevance = jnp.zeros((b, n), jnp.float32).at[:, 0].set(1.0)
    for gradient, attention in zip(reversed(gradients), reversed(attentions), strict=True):
        counted = jnp.maximum(gradient * attention, 0).mean(axis=1)
        relevance = relevance + jnp.einsum("bn,bnm->bm", relevance, counted, precision="highest")
    return relevance[:, 1:]


def _attention_of(block: Block, x: jax.Array) -> jax.Array:
    """Attention of a block to its input [b n c], float32 [b heads n n]."""
    attention, u = block.attention, block.norm1(x)
    query, key = (_by_head(part(u), attention.heads) for part in (attention.query, attention.key))
    logits = jnp.einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=jnp.float32)
    return jax.nn.softmax(logits / query.shape[-1] ** 0.5, axis=-1)


def _attended_by(block: Block, x: jax.Array, attention: jax.Array) -> jax.Array:
    """Output [b n c] of a block whose attention [b heads n n] is given."""
    value = _by_head(block.attention.value(block.norm1(x)), block.attention.heads)
    mixed = jnp.einsum("bhnm,bmhd->bnhd", attention.astype(value.dtype), value).reshape(x.shape)
    return block.after_attention(x, block.attention.out(mixed))


def _by_head(x: jax.Array, heads: int) -> jax.Array:
    return x.reshape(*x.shape[:-1], heads, -1)
