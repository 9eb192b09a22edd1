"""A detector as a pure function of pixels: what is exported, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from jaxad.detector import Detector
from jaxad.features import extras_of
from jaxad.inference.programs import judged
from jaxad.metrics import Protocol
from jaxad.nn import module_state
from jaxad.types import Batch, Record

SEED, CATEGORY = "seed", "category"
_NOWHERE = Path("image")


@dataclass(frozen=True)
class Input:
    """An input of an exported program.

    Attributes:
        name: of a view of the detector, or "seed" or "category".
        dtype: "uint8", "uint32" or "int32".
        shape: of one image; the program's inputs have b of them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A detector under a protocol: one image in, its score and map out.

    Attributes:
        detector: trained, or with its memory filled.
        protocol: how maps are resized, smoothed and scored.
        arrays: of the detector by path.
    """

    detector: Detector
    protocol: Protocol
    arrays: Mapping[str, Any]

    @classmethod
    def of(cls, detector: Detector, protocol: Protocol) -> Program:
        """The program of a detector with its present arrays."""
        return cls(detector, protocol, module_state.split(detector)[1])

    @cached_property
    def candidates(self) -> tuple[Input, ...]:
        """All that a detector may ask of an image: its views, the hash of its pixels, the number of its category."""
        views = self.detector.inputs.views.items()
        pixels = (Input(name, "uint8", (view.height, view.width, 3)) for name, view in views)
        return (*pixels, Input(SEED, "uint32", ()), Input(CATEGORY, "int32", ()))

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """What this detector reads: all views, of the others what its results depend on."""
        closed = jax.make_jaxpr(lambda given: self.one(self.arrays, given))(self.zeros())
        # A dictionary is flattened in the order of its sorted names.
        _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
        read = dict(zip(sorted(one.name for one in self.candidates), used, strict=True))
        return tuple(one for one in self.candidates if read[one.name] or one.name in self.detector.inputs.views)

    def zeros(self) -> dict[str, np.ndarray]:
        """An image that is nothing, in all of `candidates`."""
        return {one.name: np.zeros(one.shape, one.dtype) for one in self.candidates}

    def one(self, arrays: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        """(score [], map [s s]) of one image, `given` by name; what is left out counts as 0."""
        known = {one.name: given.get(one.name, np.zeros(one.shape, one.dtype)) for one in self.candidates}
        batch: dict[str, Any] = {name: jnp.asarray(array)[None] for name, array in known.items()}
        images: dict[str, Any] = {name: batch[name] for name in self.detector.inputs.views}
        extras: dict[str, Any] = {name: jnp.asarray(array) for name, array in self.extras.items()}
        whole = Batch(images, batch[SEED], jnp.ones(1, bool), batch[CATEGORY], extras)
        graphdef, _ = module_state.split(self.detector)
        detector = module_state.merge(graphdef, arrays)
        scores, maps = judged(detector, self.protocol, detector.encode(whole), whole)
        return scores[0], maps[0]

    @cached_property
    def extras(self) -> dict[str, Any]:
        """What belongs to an image without a caption, as in `jaxad predict`."""
        return extras_of(self.detector, [Record(file=_NOWHERE, category="")], training=False)

    def batched(self, names: tuple[str, ...]) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """(arrays, *inputs [b ...]) -> (scores [b], maps [b s s]); each image is judged as if it were alone."""

        def judge(arrays: Mapping[str, Any], *inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.vmap(lambda *one: self.one(arrays, dict(zip(names, one, strict=True))))(*inputs)

        return judge
