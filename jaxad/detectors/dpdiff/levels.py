"""What the residuals of normal features are under a trained detector: at each noise level, and at each patch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxad import parallel
from jaxad.nn import module_state
from jaxad.nn.variables import Frozen
from jaxad.types import Array, Features

if TYPE_CHECKING:
    from jaxad.detectors.dpdiff.detector import DPDiff


def residual_means(detector: DPDiff, features: Iterable[Features]) -> np.ndarray:
    """Mean residual at each of `config.levels` over all patches of a stream of features: float32 [l]."""

    def image_means(model: DPDiff, given: Features, keys: Array) -> jax.Array:
        return model.level_residuals(given, model.context(given), keys)[1].mean((1, 2))

    found = np.concatenate([*_over(detector, features, image_means)])
    return np.asarray(found.mean(0, dtype=np.float64), np.float32)


def patch_residuals(detector: DPDiff, features: Iterable[Features]) -> np.ndarray:
    """The residual of every patch of a stream of features, as the anomaly map has it: float32 [i n]."""

    def image_maps(model: DPDiff, given: Features, keys: Array) -> jax.Array:
        return model.residual(given, model.context(given), keys)[0].reshape(len(given.tokens), -1)

    return np.concatenate([*_over(detector, features, image_maps)])


def _over(
    detector: DPDiff, features: Iterable[Features], of_images: Callable[[DPDiff, Features, Array], jax.Array]
) -> Iterator[np.ndarray]:
    """What a function of the detector, features and keys gives for each image of a stream, in batches [b ...].

    The noise of image i is drawn from i, so that it is always the same.
    """
    mesh = parallel.make_mesh()
    graphdef, frozen, arrays = module_state.split(detector, Frozen, ...)
    absent = dict.fromkeys(frozen, np.zeros((0,), np.float32))
    arrays = parallel.shard_parameters(arrays, mesh)

    def found(arrays: Any, tokens: Array, seeds: Array) -> jax.Array:
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(seeds)
        merged: DPDiff = module_state.merge(graphdef, {**absent, **arrays})
        return of_images(merged, Features(tokens, detector.grid), keys)

    program = jax.jit(parallel.on_mesh(found, mesh))
    seen, rows = 0, 0
    for batch in features:
        tokens = np.asarray(batch.tokens, np.float32)
        # A smaller last batch is filled up, so that one program serves all.
        rows = rows or len(tokens) + -len(tokens) % mesh.size
        padded = np.pad(tokens, ((0, rows - len(tokens)), (0, 0), (0, 0)))
        seeds = np.arange(seen, seen + rows, dtype=np.uint32)
        yield parallel.to_host(program(arrays, *parallel.shard_batch((padded, seeds), mesh)))[: len(tokens)]
        seen += len(tokens)
