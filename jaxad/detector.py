"""The one interface of all detectors, and the registry in which they are found by name.

A detector is one class. It registers itself (`@register`), and from its attributes follow `jaxad fit NAME` with all its
flags, checkpoints, evaluation, prediction and benchmarks. What it can do besides judging images is said by its bases:
`Trainable` has a loss, `Remembers` fills a memory. What an array is, trained or frozen, statistic or memory, is said by
the type of its variable (`jaxad.nn.variables`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.data.region import Region
from jaxad.data.tiles import Tiling
from jaxad.errors import ConfigError
from jaxad.io.program_cache import keep_programs
from jaxad.models.backbone import Backbone, backbone_from_config, load_backbone
from jaxad.models.stable_diffusion.untrained import is_random
from jaxad.nn.precision import compute_dtype
from jaxad.registry import Registry, registrar
from jaxad.types import Array, Batch, Features, Judgement, Source, View

detectors: Registry[type[Detector]] = Registry("detector", group="jaxad.detectors", package="jaxad.detectors")
"""All detector classes by name: jaxad's own, those registered in this process, and those of installed packages."""

register = registrar(detectors)
"""Class decorator that makes a detector known under its `name`."""


@dataclass(frozen=True)
class InputSpec:
    """What a detector asks of images.

    Attributes:
        views: the renderings it sees, uint8 RGB, by name.
        least_side: pixels that the shorter side of every image must have, before it is resized.
        needs_category: whether an image can be judged only when its category is known (`Batch.category`).
        needs_images: whether `fit` needs images; a zero-shot detector gets by with the names of categories.
        captions: when captions belong to the images: never, while training, or always.
        tokenize: captions -> int32 [b ...], what `Batch.extras["caption"]` holds of them.
        identity: what `encode` depends on besides the image, with a `repr` that says it all; cached features are used
            again where it is the same. None stands for all of the detector's settings and pretrained weights.
    """

    views: Mapping[str, View]
    least_side: int = 1
    needs_category: bool = False
    needs_images: bool = True
    captions: Literal["never", "train", "always"] = "never"
    tokenize: Callable[[Sequence[str]], np.ndarray] | None = None
    identity: Any = None


@dataclass(frozen=True)
class Pretrained:
    """The frozen networks of a detector that have a source of their own, from which a checkpoint may load them again.

    Attributes:
        attribute: of the detector, which holds them in one module.
        id: where they were loaded from.
        sha256: hash of their files; "" for random weights.
        bytes: size of their files.
        record: JSON values from which `Detector.abstract` makes the detector's networks without arrays.
        embeds: whether checkpoints hold them where they are small.
        swaps: whether other networks may take their place in a trained detector.
    """

    attribute: str
    id: str
    sha256: str
    bytes: int
    record: Mapping[str, Any]
    embeds: bool = True
    swaps: bool = False


def identity_of(id: str, sha256: str, record: Mapping[str, Any]) -> str:
    """What networks are: the hash of their files, or of untrained ones the name, and the shape that they were given.

    Args:
        id: where they were loaded from.
        sha256: of their files; "" for random weights.
        record: their shape and how they take images; fields that say where the files lie are left out.

    Returns:
        The hash or name, a blank, and the SHA-256 of the rest in hexadecimal.
    """
    places = ("id", "sha256", "bytes", "dtype")
    shape = json.dumps({name: value for name, value in record.items() if name not in places}, sort_keys=True)
    return f"{sha256 or id} {hashlib.sha256(shape.encode()).hexdigest()}"


class Detector(nnx.Module):
    """An anomaly detector. Abstract; concrete detectors are final.

    `encode` and `judge` are pure and run inside one jitted program, in that order (`jaxad.Predictor`). Detectors on the
    patch features of one frozen backbone derive from `PatchDetector`, which leaves `judge` alone to be written.

    Attributes:
        name: on the command line and in checkpoints, e.g. "dpdiff".
        title: as it is printed, e.g. "DPDiff-AD".
        config_class: frozen dataclass of its settings, free of jax, with `preset(name, **changes)`, `presets()` (their
            names, the default first) and `check()`; and `training(preset)` where its presets train in ways of their
            own.
        protocol: evaluation protocol in which its threshold is measured unless a user names another.
        fit_options: dataclass of further flags of `jaxad fit NAME`, a `jaxad.data.fit_options.FitOptions`.
        config: the settings it was made from.
        categories: the categories it knows, in the order of their indices.
        depths: pairs of a category and the bits at which its 16-bit images are read (`jaxad.data.depth`), as they were
            when it was fitted; whatever it judges is read alike.
        tiling: how images were cut into tiles (`jaxad.data.tiles`) when it was fitted, None where they were whole. What
            it encodes and judges are then tiles, and `jaxad.Predictor` puts their maps together.
        regions: pairs of a category, "" for all, and the part of its images (`jaxad.data.region`) to which
            `jaxad.Predictor` keeps scores and maps.
    """

    name: ClassVar[str]
    title: str
    config_class: ClassVar[type]
    protocol: ClassVar[str] = "exact-256"
    fit_options: ClassVar[type | None] = None
    config: Any
    categories: tuple[str, ...] = ()
    depths: tuple[tuple[str, int], ...] = ()
    tiling: Tiling | None = None
    regions: tuple[tuple[str, Region], ...] = ()

    def __repr__(self) -> str:
        known = f"{len(self.categories)} categories" if len(self.categories) > 3 else ", ".join(self.categories)
        network = "" if self.pretrained is None else f", {self.pretrained.id}"
        return f"<{self.title}: {known or 'no category yet'}{network}>"

    def learn_names(self, source: Source) -> None:
        """Takes `categories`, `depths` and `tiling` from the images that the detector is fitted on."""
        self.categories = tuple(source.categories)
        self.depths = tuple(sorted(getattr(source, "depths", {}).items()))
        self.tiling = getattr(source, "tiling", None)

    def rename(self, categories: Sequence[str]) -> None:
        """Takes other categories than those that it was fitted on, of which only the names matter.

        Raises:
            ConfigError: it has learned its categories from images, as most detectors have.
        """
        raise ConfigError(
            f"classes = {' '.join(categories)}: this {self.name} knows its categories by their images; fit it on them"
        )

    @classmethod
    def create(cls, config: Any = None, *, key: Array) -> Self:
        """A new detector.

        Args:
            config: settings of `config_class`; None for their defaults.
            key: one PRNG key, of the parameters.

        Raises:
            ConfigError: impossible settings, all listed.
        """
        keep_programs()
        construct: Any = cls
        return construct(config or cls.config_class(), rngs=nnx.Rngs(jnp.asarray(key)))

    @classmethod
    def abstract(cls, config: Any, record: Mapping[str, Any] | None = None, network: Any = None) -> Self:
        """The detector without arrays, to be filled from a checkpoint.

        Args:
            config: its settings.
            record: `Pretrained.record` as saved; None where it has no pretrained networks.
            network: what `load_pretrained` gave; None where the checkpoint holds the arrays of these networks too.
        """
        return nnx.eval_shape(lambda: cls.create(config, key=jax.random.key(0)))

    @classmethod
    def load_pretrained(cls, config: Any, record: Mapping[str, Any], override: str | None) -> Any:
        """The pretrained networks of a checkpoint, from where they were loaded at first or from `override`.

        Args:
            config: settings of the detector.
            record: "id" and "config" (`Pretrained.record`) of those that were saved.
            override: folder, file or hub id to load instead.

        Returns:
            A module with the attributes `id`, `sha256` and `bytes`.
        """
        raise TypeError(f"{cls.__name__} has no pretrained networks")

    @property
    def inputs(self) -> InputSpec:
        """What it asks of images."""
        raise TypeError(f"{type(self).__name__} does not define inputs")

    @property
    def pretrained(self) -> Pretrained | None:
        """Its networks that have a source of their own; None where it has none."""
        return None

    @property
    def weight_hashes(self) -> dict[str, str]:
        """What the pretrained networks of a new detector are, wherever they were loaded from: {setting: identity}.

        Under each setting that names a source, what identifies its content; a run goes on where these are the same,
        however the settings spell it. None of these settings where the networks were given, not loaded.
        """
        source = self.pretrained
        return {} if source is None else {source.attribute: identity_of(source.id, source.sha256, source.record)}

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that belong beside its results, wherever they are shown."""
        named = {name: value for name, value in vars(self.config).items() if isinstance(value, str)}
        if self.pretrained is not None:
            named[self.pretrained.attribute] = self.pretrained.id
        random = ", ".join(f"{name} = {value}" for name, value in named.items() if is_random(value))
        if not random:
            return ()
        weights = f"random weights in place of pretrained ones ({random})"
        return (f"{self.title} was built on {weights}: its numbers say nothing about the method.",)

    def encode(self, batch: Batch) -> Features:
        """Frozen networks: batch.images {view: uint8 [b h w 3]} -> features, which training caches.

        Of the detector's arrays it may read those of type `jaxad.nn.variables.Frozen` alone.
        """
        raise TypeError(f"{type(self).__name__} does not encode")

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Anomaly maps, and image scores where the detector defines them.

        Args:
            features: what `encode` gave for the batch.
            batch: the images; those of cached features may be left out.
            keys: PRNG keys [b], one for each image, made from its pixels alone.
        """
        raise TypeError(f"{type(self).__name__} does not judge")


class Trainable:
    """A detector whose `nnx.Param` arrays are trained by gradients of a loss on cached features."""

    @property
    def trains(self) -> bool:
        """Whether this one still has to be trained; False of one that was made from a finished checkpoint."""
        return True

    @property
    def finishes(self) -> bool:
        """Whether `finish` changes it, so that it is not evaluated before; where a class overrides that, by default."""
        return type(self).finish is not Trainable.finish

    def prepare(self, features: Iterable[Features]) -> None:
        """One pass over the training features before the first step, e.g. for statistics. Nothing by default."""

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean loss of a batch and its named terms, all scalars, inside the jitted step. `key` is one PRNG key.

        It may not read arrays of type `jaxad.nn.variables.Frozen`.
        """
        raise TypeError(f"{type(self).__name__} does not train")

    def loss_at(self, features: Features, key: Array, step: Array) -> tuple[Array, dict[str, Array]]:
        """`loss` at a step, int32 counted from 0: what training calls. Overridden where the loss changes on the way."""
        return self.loss(features, key)

    def finish(self, features: Iterable[Features]) -> None:
        """One pass over the training features after the last step, e.g. for statistics of what was trained.

        Nothing by default.
        """


class Remembers:
    """A detector that fills a memory with normal images, without gradients; not one that is `Trainable` too.

    Attributes:
        extends: whether `extend` adds images to what is remembered; else `remember` needs all of them anew.
    """

    extends: ClassVar[bool] = False

    def remember(self, source: Source, *, features: Any = None, progress: Callable[[int], None] | None = None) -> Self:
        """Reads normal images into memory, in place of what was there, and returns the detector itself.

        Args:
            source: the images; `learn_names` takes their categories.
            features: a `jaxad.features.FeatureCache` of all of them, which spares computing them.
                `jaxad.features.features_of` gives the features either way.
            progress: called with the number of images done since the last call.
        """
        raise TypeError(f"{type(self).__name__} does not remember")

    def extend(self, source: Source, *, progress: Callable[[int], None] | None = None) -> Self:
        """Adds normal images to what is remembered, also of further categories, and returns the detector itself.

        Args:
            source: the images.
            progress: called with the number of images done since the last call.
        """
        raise TypeError(f"{type(self).__name__} cannot add to what it remembers: give `remember` all images")


class PatchDetector(Detector):
    """A detector that sees images as one grid of patch features of one frozen backbone. Abstract.

    Args:
        config: settings, among them `backbone`, `blocks`, `image_size` and `precision`.
        backbone: the frozen network; None to load `config.backbone`.

    Attributes:
        backbone: the frozen network.
        blocks: those of its blocks, or stages, that make the features.
        channels: width c of the features.
        grid: rows and columns (h, w) of the features.

    Raises:
        ConfigError: impossible settings, all listed; blocks or a size that the backbone does not have; or `misfits`.
        WeightsError: the backbone cannot be found or does not fit.
    """

    def __init__(self, config: Any, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        config.check()
        self.config = config
        self.categories = ()
        self.backbone = backbone or load_backbone(config.backbone, dtype=compute_dtype(config.precision))
        self.blocks = self.backbone.select_blocks(config.blocks)
        self.channels = self.backbone.width(self.blocks)
        self.grid = self.backbone.grid(config.image_size)
        if problems := self.misfits():
            lines = [f"{type(config).__name__} does not fit its backbone:", *(f"  {problem}" for problem in problems)]
            raise ConfigError("\n".join(lines))

    def misfits(self) -> list[str]:
        """What of the settings does not fit the backbone: a line for each field; nothing by default.

        Called before anything is made of them, when `blocks`, `channels` and `grid` are known.
        """
        return []

    @classmethod
    def create(cls, config: Any = None, *, key: Array | None = None, backbone: Backbone | None = None) -> Self:
        """A new detector.

        Args:
            config: settings of `config_class`; None for their defaults.
            key: PRNG key of the parameters; None takes one that is always the same.
            backbone: the frozen network, if it is already loaded; else `config.backbone` is loaded.

        Raises:
            ConfigError: impossible settings, all listed.
            WeightsError: the backbone cannot be found or does not fit.
        """
        keep_programs()
        key = jax.random.key(0) if key is None else jnp.asarray(key)
        return cls(config or cls.config_class(), backbone, rngs=nnx.Rngs(key))

    @classmethod
    def abstract(cls, config: Any, record: Mapping[str, Any] | None = None, network: Any = None) -> Self:
        """The detector without arrays; its backbone as `record` says, unless `network` is given."""
        assert record is not None
        backbone = network or backbone_from_config(record, dtype=compute_dtype(config.precision))
        return nnx.eval_shape(lambda: cls.create(config, key=jax.random.key(0), backbone=backbone))

    @classmethod
    def load_pretrained(cls, config: Any, record: Mapping[str, Any], override: str | None) -> Backbone:
        """The backbone, resized as that of the checkpoint was."""
        interpolation = record["config"]["shape"].get("interpolation")
        dtype = compute_dtype(config.precision)
        return load_backbone(override or record["id"], dtype=dtype, interpolation=interpolation)

    @property
    def inputs(self) -> InputSpec:
        side = self.config.image_size
        backbone = self.backbone
        what = identity_of(backbone.id, backbone.sha256, backbone.config_json())
        identity = (what, backbone.dtype, self.blocks)
        return InputSpec({"image": View(side, side, "bilinear")}, identity=identity)

    @property
    def pretrained(self) -> Pretrained:
        backbone = self.backbone
        return Pretrained("backbone", backbone.id, backbone.sha256, backbone.bytes, backbone.config_json())

    def encode(self, batch: Batch) -> Features:
        """The backbone's features of the chosen blocks: averaged of a ViT, concatenated of a convolutional network."""
        return Features(self.backbone.features(batch.images["image"], self.blocks), self.grid)
