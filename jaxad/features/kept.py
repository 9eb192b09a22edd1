"""Features as they are kept: float16, integers as they are; and their shapes, known without computing any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.detector import Detector
from jaxad.features.notes import extras_of
from jaxad.nn import module_state
from jaxad.types import Batch, Features, Record


def stored(leaf: Any) -> np.dtype:
    """The type in which an array of features is kept."""
    return np.dtype(np.float16) if jnp.issubdtype(leaf.dtype, jnp.floating) else np.dtype(leaf.dtype)


def widened(array: np.ndarray) -> np.ndarray:
    """An array that was kept, as the host computes with it: floating-point numbers as float32, all else as it is."""
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else np.asarray(array)


def abstract_features(detector: Detector, images: int) -> Features:
    """Shapes and types of so many images' features as they are kept."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((images, *leaf.shape[1:]), stored(leaf)), abstract(detector))


def abstract(detector: Detector) -> Features:
    """Shapes of the features of one image."""
    graphdef, arrays = module_state.split(detector)
    encode = lambda arrays, batch: module_state.merge(graphdef, arrays).encode(batch)  # noqa: E731
    return jax.eval_shape(encode, arrays, abstract_batch(detector, 1))


def abstract_batch(detector: Detector, images: int) -> Batch:
    """Shapes of so many images, with what a detector learns from beside them."""
    shape: Any = jax.ShapeDtypeStruct
    views = {name: shape((images, v.height, v.width, 3), jnp.uint8) for name, v in detector.inputs.views.items()}
    notes = extras_of(detector, [Record(Path(), "")], training=True)
    extras = {name: shape((images, *array.shape[1:]), array.dtype) for name, array in notes.items()}
    return Batch(views, shape((images,), jnp.uint32), shape((images,), jnp.bool_), extras=extras)
