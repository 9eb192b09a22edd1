"""The compiled programs of inference, kept as long as their detector is: a second call compiles nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import chex
import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.detector import Detector
from jaxad.inference.method import kept, whole
from jaxad.metrics import Protocol
from jaxad.nn import module_state
from jaxad.nn.platforms import target_platform
from jaxad.types import Batch, Explanation, Features, Judgement

CPU_IMAGES = 4
"""Images of a batch that a single CPU takes at once: more do not stay in its caches."""
NOISE_SEED = 0
"""Seed of all inference noise; images differ by the hash of their pixels: a prediction depends on the image alone."""


class Programs:
    """What is compiled of detectors of one structure under one protocol; their arrays are arguments.

    Args:
        graphdef: the structure, as `jaxad.nn.module_state.split` gives it.
        protocol: how maps are resized, smoothed and scored.
        mesh: devices.

    Attributes:
        predict: (arrays, batch) -> scores [b] and maps [b h w] of the protocol.
        judge: (arrays, features, batch) -> the same, of features that are computed already.
        raw: (arrays, batch) -> the detector's own maps [b h w], and its scores [b] or None, before the protocol.
        raw_of: (arrays, features, batch) -> the same, of features that are computed already.
    """

    def __init__(self, graphdef: nnx.GraphDef, protocol: Protocol, mesh: Mesh):
        self._graphdef, self._protocol, self._devices = graphdef, protocol, mesh.size
        self.predict = jax.jit(parallel.on_mesh(self._predict, mesh))
        self.raw = jax.jit(parallel.on_mesh(self._raw, mesh))
        self.raw_of = jax.jit(parallel.on_mesh(self._raw_of, mesh))
        self.judge = jax.jit(parallel.on_mesh(self._judge, mesh))
        self._mesh, self._explained = mesh, {}

    def explained(self, words: tuple[str, ...], *, raw: bool = False) -> Any:
        """(arrays, batch) -> what `predict` gives, and an explanation of what pictures of these words show.

        Nothing else of it is computed.

        Args:
            words: of `jaxad.inference.method.EXPLAINED`.
            raw: whether to give what `raw` gives in place of what `predict` does.
        """

        def both(arrays: Any, batch: Batch) -> tuple[tuple[jax.Array, jax.Array | None], Explanation]:
            def explaining(part: Batch) -> tuple[tuple[jax.Array, jax.Array | None], Explanation]:
                detector = self._detector(arrays)
                judgement = _judgement(detector, detector.encode(part), part)
                found = _maps_and_scores(judgement)
                shown = kept(whole(judgement, part), words)
                return found if raw else processed(self._protocol, *found), shown

            return self._in_parts(explaining, batch)

        if (words, raw) not in self._explained:
            self._explained[words, raw] = jax.jit(parallel.on_mesh(both, self._mesh))
        return self._explained[words, raw]

    def _predict(self, arrays: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return self._in_parts(lambda part: self._judge(arrays, self._detector(arrays).encode(part), part), batch)

    def _raw(self, arrays: Any, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
        return self._in_parts(lambda part: self._raw_of(arrays, self._detector(arrays).encode(part), part), batch)

    def _raw_of(self, arrays: Any, features: Features, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
        return unprocessed(self._detector(arrays), features, batch)

    def _in_parts(self, work: Callable[[Batch], Any], batch: Batch) -> Any:
        """What a function makes of a batch; a single CPU does a few images at once."""
        images, one_cpu = len(batch.seed), self._devices == 1 and target_platform() == "cpu"
        if not one_cpu or images <= CPU_IMAGES or images % CPU_IMAGES:
            return work(batch)
        parts = jax.tree.map(lambda array: array.reshape(-1, CPU_IMAGES, *array.shape[1:]), batch)
        results = jax.lax.map(work, parts)
        return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), results)

    def _judge(self, arrays: Any, features: Features, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return judged(self._detector(arrays), self._protocol, features, batch)

    def _detector(self, arrays: Any) -> Detector:
        return module_state.merge(self._graphdef, arrays)


_kept: WeakKeyDictionary[Detector, dict[Any, Programs]] = WeakKeyDictionary()


def programs_of(detector: Detector, graphdef: nnx.GraphDef, protocol: Protocol, mesh: Mesh) -> Programs:
    """The programs of a detector under a protocol on a mesh: those it had before, if its structure is the same.

    Args:
        detector: as long as it lives, its programs are kept.
        graphdef: its present structure, settings included.
        protocol, mesh: as for `Programs`.
    """
    try:
        own = _kept.setdefault(detector, {})
        return own.setdefault((graphdef, protocol, mesh), Programs(graphdef, protocol, mesh))
    except (TypeError, ValueError):
        # A detector of another package may have settings that cannot be told apart.
        return Programs(graphdef, protocol, mesh)


def judged(detector: Detector, protocol: Protocol, features: Features, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Scores [b] and maps [b h w] of the protocol, from the features of a batch; to be traced."""
    return processed(protocol, *unprocessed(detector, features, batch))


def unprocessed(detector: Detector, features: Features, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
    """The detector's own maps [b h w], and its scores [b] or None; to be traced."""
    return _maps_and_scores(_judgement(detector, features, batch))


def processed(protocol: Protocol, maps: jax.Array, scores: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Scores [b] and maps [b h w] under a protocol, from what `unprocessed` gives; to be traced."""
    maps, from_maps = protocol.postprocess(maps)
    return from_maps if scores is None else scores, maps


def _judgement(detector: Detector, features: Features, batch: Batch) -> Judgement:
    """The detector's answer, with one PRNG key for each image from the hash of its pixels."""
    base, images = jax.random.key(NOISE_SEED), len(batch.seed)
    found = detector.judge(features, batch, jax.vmap(lambda seed: jax.random.fold_in(base, seed))(batch.seed))
    chex.assert_shape(found.maps, (images, None, None), custom_message="`judge` must give maps [b h w]")
    if found.scores is not None:
        chex.assert_shape(found.scores, (images,), custom_message="`judge` must give scores [b]")
    return found


def _maps_and_scores(judgement: Judgement) -> tuple[jax.Array, jax.Array | None]:
    maps: Any = judgement.maps
    scores: Any = judgement.scores
    return jnp.asarray(maps, jnp.float32), scores
