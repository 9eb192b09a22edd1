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


BATCH = 16
"""Images judged at once: bounds memory only."""


def normal_residuals(
    detector: DPDiff, features: Iterable[Features], places: Array | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the residuals of a stream of features are, at each of `config.levels`, or at the one there is, in one pass.

    Args:
        detector: trained.
        features: of normal images.
        places: numbers of some patches of each image int [i p].

    Returns:
        The mean over all patches float32 [l], and the residuals at `places` float32 [i p l], None without.
    """

    def of_images(model: DPDiff, given: Features, keys: Array) -> jax.Array:
        context = model.context(given)
        if model.level_means is None:
            found = model.residual(given, context, keys)[0][..., None]
        else:
            found = model.level_residuals(given, context, keys)[1]
        return found.reshape(len(found), -1, found.shape[-1])

    total, seen, kept = 0.0, 0, []
    for found in _over(detector, features, of_images):
        total = total + found.mean(1, dtype=np.float64).sum(0)
        if places is not None:
            kept.append(np.take_along_axis(found, np.asarray(places[seen : seen + len(found)])[..., None], 1))
        seen += len(found)
    return np.asarray(total / max(seen, 1), np.float32), np.concatenate(kept) if kept else None


def _over(
    detector: DPDiff, features: Iterable[Features], of_images: Callable[[DPDiff, Features, Array], jax.Array]
) -> Iterator[np.ndarray]:
    """What a function of the detector, features and keys gives for the images of a stream, at most `BATCH` at once.

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
    # A smaller last batch is filled up, so that one program serves all.
    seen, rows = 0, BATCH + -BATCH % mesh.size
    for batch in features:
        for part in np.split(np.asarray(batch.tokens), range(rows, len(batch.tokens), rows)):
            tokens = np.pad(part.astype(np.float32), ((0, rows - len(part)), (0, 0), (0, 0)))
            seeds = np.arange(seen, seen + rows, dtype=np.uint32)
            yield parallel.to_host(program(arrays, *parallel.shard_batch((tokens, seeds), mesh)))[: len(part)]
            seen += len(part)
