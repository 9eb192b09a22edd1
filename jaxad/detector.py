"""The one interface of all systems (DESIGN 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from flax import nnx

from jaxad.models.backbone import load_backbone
from jaxad.models.stable_diffusion.untrained import is_random
from jaxad.nn.precision import compute_dtype
from jaxad.types import Array, Batch, Context, Features, Prediction, Record, Source, View


class Detector(nnx.Module):
    """An anomaly detector: frozen networks, a context, perhaps a reconstruction, a score.

    Abstract; concrete systems are final. `encode`, `context`, `reconstruct` and `score` are pure and run inside one
    jitted program, in that order (`jaxad.predict`); `loss` runs inside the training step on cached features.

    Attributes:
        name: the system's name on the command line, e.g. "dpdiff".
        title: its name as it is printed, e.g. "DPDiff-AD".
        trains: whether the system has a `loss`; the others only `remember`.
        grid: rows and columns of the patches that `explain` shows; only of systems that reconstruct.
        frozen: names of the submodules that training never changes and `loss` does not read, e.g. ("backbone",).
        fixed: paths of what `loss` reads and training does not change either, e.g. parts of a pretrained network.
        memories: arrays, or lists of them, whose shapes depend on what was remembered.
        needs_images: whether `fit` needs images; a zero-shot system does with the names of categories.
        embeds_backbone: whether checkpoints may hold the backbone, where it is small.
        swaps_backbone: whether another backbone may take the place of the one it was trained with.
        config_class: class of `config`.
        config: the frozen dataclass the detector was made from.
        categories: the categories it knows, in the order of their indices.
    """

    name: ClassVar[str]
    title: str
    grid: tuple[int, int]
    trains: bool = True
    frozen: ClassVar[tuple[str, ...]] = ("backbone",)
    fixed: ClassVar[tuple[str, ...]] = ()
    memories: ClassVar[tuple[str, ...]] = ()
    needs_images: ClassVar[bool] = True
    embeds_backbone: ClassVar[bool] = True
    swaps_backbone: ClassVar[bool] = False
    config_class: ClassVar[Any]
    config: Any
    categories: tuple[str, ...] = ()

    @property
    def views(self) -> dict[str, View]:
        """The uint8 inputs it needs, by name."""
        raise TypeError(f"{type(self).__name__} does not define views")

    @property
    def smallest_side(self) -> int:
        """Pixels that the shorter side of every image needs at least, before it is resized."""
        return 1

    @property
    def needs_category(self) -> bool:
        """Whether an image can only be judged when its category is known (`batch.category`)."""
        return False

    @property
    def encoder_identity(self) -> tuple:
        """What `encode` depends on besides the image, e.g. hashes of weights; keys the feature cache."""
        raise TypeError(f"{type(self).__name__} does not define encoder_identity")

    @property
    def structure(self) -> dict[str, Any]:
        """Shapes of its pretrained networks besides the backbone, as JSON-ready values for `abstract`."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that belong beside its results, wherever they are shown."""
        named = {name: value for name, value in vars(self.config).items() if isinstance(value, str)}
        if backbone := getattr(self, "backbone", None):
            named["backbone"] = backbone.id
        random = ", ".join(f"{name} = {value}" for name, value in named.items() if is_random(value))
        if not random:
            return ()
        weights = f"random weights in place of pretrained ones ({random})"
        return (f"{self.title} was built on {weights}: its numbers say nothing about the method.",)

    @classmethod
    def abstract(cls, config: Any, backbone: Any, structure: Mapping[str, Any]) -> Self:
        """The detector without arrays, to be filled from a checkpoint; `structure` as the property gave it."""
        construct: Any = cls
        return nnx.eval_shape(lambda: construct(config, backbone, rngs=nnx.Rngs(0)))

    @classmethod
    def restore_backbone(cls, config: Any, record: Mapping[str, Any], override: str | None) -> Any:
        """The frozen networks of a checkpoint from where they were loaded at first, or from `override`.

        `record` holds the attribute `id` of the backbone and what its `config_json` gave as "config".
        """
        interpolation = record["config"]["shape"].get("interpolation")
        return load_backbone(
            override or record["id"], dtype=compute_dtype(config.precision), interpolation=interpolation
        )

    def annotate(self, records: Sequence[Record], *, training: bool) -> dict[str, np.ndarray]:
        """What it asks to know of images besides their pixels, for `Batch.extras`: arrays [b ...], a row for each."""
        return {}

    def encode(self, batch: Batch) -> Features:
        """Frozen networks: batch.images {view: uint8 [b h w 3]} -> features, cached during training."""
        raise TypeError(f"{type(self).__name__} does not encode")

    def prepare(self, features: Iterable[Features]) -> None:
        """One pass over the encoded training images before step 0, e.g. for statistics. Nothing by default."""

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean training loss of a batch and its named terms, all scalars. `key` is one PRNG key."""
        raise TypeError(f"{type(self).__name__} does not train")

    def remember(
        self, source: Source, *, features: Any | None = None, progress: Callable[[int], None] | None = None
    ) -> Self:
        """Read a stream of normal images into memory; few-shot systems only. Returns the detector itself.

        `features` (a `jaxad.features.FeatureCache` of the source) spares computing them.
        """
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

    def explain(self, features: Features, context: Context, reconstruction: Features | None) -> dict[str, Array]:
        """What figures show of these images, all arrays [b ...].

        "before" and "after" are token features [b n c] in the space where they are compared; "similarity" [b k h w] is
        that of the tokens to `prototype_names`. Any may be missing.
        """
        return {} if reconstruction is None else {"before": features.tokens, "after": reconstruction.tokens}

    @property
    def prototype_names(self) -> tuple[str, ...]:
        """Names of the k prototypes in `explain`."""
        return ()
