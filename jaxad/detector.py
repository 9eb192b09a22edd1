"""The one interface of all systems (DESIGN 3)."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from flax import nnx

from jaxad.types import Array, Batch, Context, Features, Prediction, Source, View


class Detector(nnx.Module):
    """An anomaly detector: frozen networks, a context, perhaps a reconstruction, a score.

    Abstract; concrete systems are final. `encode`, `context`, `reconstruct` and `score` are pure and run inside one
    jitted program, in that order (`jaxad.predict`); `loss` runs inside the training step on cached features.

    Attributes:
        name: the system's name on the command line, e.g. "dpdiff".
        trains: whether the system has a `loss`; the others only `remember`.
        frozen: names of the submodules that training never changes, e.g. ("backbone",).
        config: the frozen dataclass the detector was made from.
        categories: the categories it knows, in the order of their indices.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = True
    frozen: ClassVar[tuple[str, ...]] = ("backbone",)
    config: Any
    categories: tuple[str, ...] = ()

    @property
    def views(self) -> dict[str, View]:
        """The uint8 inputs it needs, by name."""
        raise TypeError(f"{type(self).__name__} does not define views")

    def encode(self, batch: Batch) -> Features:
        """Frozen networks: batch.images {view: uint8 [b h w 3]} -> features, cached during training."""
        raise TypeError(f"{type(self).__name__} does not encode")

    def prepare(self, source: Source) -> None:
        """One pass over the training images before the first step, e.g. channel statistics. Nothing by default."""

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean training loss of a batch and its named terms, all scalars. `key` is one PRNG key."""
        raise TypeError(f"{type(self).__name__} does not train")

    def remember(self, source: Source) -> Self:
        """Read a stream of normal images into memory; few-shot systems only. Returns the detector itself."""
        raise TypeError(f"{type(self).__name__} has no memory to fill")

    def context(self, features: Features, batch: Batch) -> Context:
        """Prototypes, references or text on which reconstruction and score depend."""
        return Context()

    def reconstruct(self, features: Features, context: Context, keys: Array) -> Features | None:
        """Features as they would be if the part were normal. `keys` [b] holds one PRNG key for each image."""
        return None

    def score(self, features: Features, reconstruction: Features | None, context: Context) -> Prediction:
        """Anomaly map [b h w] at the system's own resolution, and an image score [b] where it defines one."""
        raise TypeError(f"{type(self).__name__} does not score")
