"""Pictures of the method: what a detector makes of an image on the way to its anomaly map.

Each has a word: `input`, the image as the detector sees it; `reconstruction`, the image redrawn; `autoencoder`, what
the autoencoder alone makes of it; `features`, those of patches before and after reconstruction; `terms`, maps that the
anomaly map is made of, and similarities to prototypes. `overlay`, `map`, `mask` and `heatmap` show the map itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.errors import ConfigError
from jaxad.inference.heat import own_heat
from jaxad.types import Batch, Explanation, Judgement

OF_MAPS = ("overlay", "map", "mask", "heatmap")
"""Words for what every detector has."""
EXPLAINED = ("input", "reconstruction", "autoencoder", "features", "terms")
"""Words for what lies in an explanation."""
SIDE = 1024
"""Longer side in pixels, at most, of pictures that are made of grids of patches."""


def whole(judgement: Judgement, batch: Batch) -> Explanation:
    """The explanation of a judgement with what every detector has; to be traced.

    That is the "input", with the view's name behind it where there are several, and of what is reconstructed the
    "residual", the map before the protocol resizes and smooths it.
    """
    found, one = judgement.explanation, len(batch.images) == 1
    views = {"input" if one else f"input {name}": jnp.asarray(images) for name, images in batch.images.items()}
    residual = {} if found.before is None else {"residual": jnp.asarray(judgement.maps, jnp.float32)}
    return dataclasses.replace(found, pictures={**views, **found.pictures}, terms={**found.terms, **residual})


def kept(explanation: Explanation, words: Sequence[str]) -> Explanation:
    """What pictures of some words show of a whole explanation."""
    pictures = {name: image for name, image in explanation.pictures.items() if name.partition(" ")[0] in words}
    found = Explanation(pictures=pictures)
    if "features" in words:
        found = dataclasses.replace(found, before=explanation.before, after=explanation.after)
    if "terms" in words:
        near = {"similarity": explanation.similarity, "prototypes": explanation.prototypes}
        found = dataclasses.replace(found, **near, terms=explanation.terms)
    return found


def one_of(explanation: Explanation, place: int) -> Explanation:
    """The explanation of one image of a batch on the host, its arrays without b; it keeps nothing else of the batch."""
    return jax.tree.map(lambda array: np.array(array[place]), explanation)


def words_of(explanation: Explanation) -> tuple[str, ...]:
    """The words for what a whole explanation shows, in the order of `EXPLAINED`; arrays may be shapes alone."""
    found = {name.partition(" ")[0] for name in explanation.pictures}
    if explanation.before is not None and explanation.after is not None:
        found.add("features")
    if explanation.terms or explanation.similarity is not None:
        found.add("terms")
    return tuple(word for word in EXPLAINED if word in found)


def check_words(words: Sequence[str], known: Sequence[str], detector: str, *, name: str) -> None:
    """Raises ConfigError for words that a detector has no picture of.

    Args:
        words: asked for.
        known: those that it has.
        detector: its name.
        name: of the parameter, for the message.
    """
    if strangers := [word for word in words if word not in known]:
        raise ConfigError(f"{name} = {' '.join(strangers)}: this {detector} has {' '.join(known)}")


def draw(word: str, explanation: Explanation, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The pictures of a word of `EXPLAINED`, by the names of their parts, "" of one that is alone.

    Args:
        word: what to draw.
        explanation: of one image, its arrays without b.
        size: rows and columns of the image, which pictures of patches get too, made smaller to `SIDE`.

    Returns:
        uint8 [h w 3]. Pictures of the image are of the size at which the detector has it. Features are colored by
        their three main components before reconstruction, of that image alone; terms from their least to their largest
        value in it.
    """
    scale = min(1.0, SIDE / max(size))
    size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    if word == "features":
        return _colored(explanation, size)
    if word == "terms":
        near = [] if explanation.similarity is None else explanation.similarity
        named = zip(explanation.prototypes, near, strict=False)
        found = {name: own_heat(np.asarray(map), size, "viridis") for name, map in named}
        return {**found, **{name: own_heat(np.asarray(map), size) for name, map in explanation.terms.items()}}
    named = ((name.partition(" "), image) for name, image in explanation.pictures.items())
    return {part: np.asarray(image) for (first, _, part), image in named if first == word}


def _colored(explanation: Explanation, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Features as colors: equal ones are equal in both pictures, which show each patch as a square."""
    if explanation.before is None or explanation.after is None:
        return {}
    # Imported here: who judges without looking at features need not wait for it.
    import threadpoolctl
    from sklearn.decomposition import PCA

    pair = {"before": np.asarray(explanation.before, np.float32), "after": np.asarray(explanation.after, np.float32)}
    flat = {name: grid.reshape(-1, grid.shape[-1]) for name, grid in pair.items()}
    components = PCA(min(3, *flat["before"].shape), svd_solver="randomized", random_state=0)
    # Beside other work, threads of these small products wait for each other.
    with threadpoolctl.threadpool_limits(1):
        components.fit(flat["before"])
        shown = {name: components.transform(tokens) for name, tokens in flat.items()}
    low, high = np.quantile(shown["before"], (0.01, 0.99), axis=0)
    drawn = {}
    for name, values in shown.items():
        levels = 255 * np.clip((values - low) / np.maximum(high - low, 1e-12), 0, 1)
        levels = np.pad(levels.round().astype(np.uint8), ((0, 0), (0, 3 - levels.shape[1])))
        grid = levels.reshape(*pair[name].shape[:2], 3)
        drawn[name] = cv2.resize(grid, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return drawn
