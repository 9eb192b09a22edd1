"""How large residuals of normal features are at each noise level of a trained detector."""

from __future__ import annotations

from collections.abc import Iterable
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
    """Mean residual at each of `config.levels` over all patches of a stream of features: float32 [l].

    The noise of image i is drawn from i, so that the means are always the same.
    """
    mesh = parallel.make_mesh()
    graphdef, frozen, arrays = module_state.split(detector, Frozen, ...)
    absent = dict.fromkeys(frozen, np.zeros((0,), np.float32))
    arrays = parallel.shard_parameters(arrays, mesh)

    def image_means(arrays: Any, tokens: Array, seeds: Array) -> jax.Array:
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(seeds)
        merged: DPDiff = module_state.merge(graphdef, {**absent, **arrays})
        given = Features(tokens, detector.grid)
        return merged.level_residuals(given, merged.context(given), keys)[1].mean((1, 2))

    program = jax.jit(parallel.on_mesh(image_means, mesh))
    total, seen, rows = np.zeros(len(detector.config.levels)), 0, 0
    for batch in features:
        tokens = np.asarray(batch.tokens, np.float32)
        # A smaller last batch is filled up, so that one program serves all.
        rows = rows or len(tokens) + -len(tokens) % mesh.size
        padded = np.pad(tokens, ((0, rows - len(tokens)), (0, 0), (0, 0)))
        seeds = np.arange(seen, seen + rows, dtype=np.uint32)
        means = parallel.to_host(program(arrays, *parallel.shard_batch((padded, seeds), mesh)))
        total, seen = total + means[: len(tokens)].sum(0, dtype=np.float64), seen + len(tokens)
    return np.asarray(total / max(seen, 1), np.float32)
