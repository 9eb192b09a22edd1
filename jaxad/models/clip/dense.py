"""Other local embeddings of CLIP: of windows (WinCLIP, arXiv 2303.14814) and of last values (MaskCLIP, 2112.01071)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.models.clip.towers import VisionTower
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
    x = x + (last.scale1(own) if last.scale1 else own)
    mixed = last.mlp(last.norm2(x))
    x = x + (last.scale2(mixed) if last.scale2 else mixed)
    return tower.projection(tower.norm(tower.patches(x)))
