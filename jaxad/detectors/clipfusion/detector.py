"""CLIPFusion: PatchCLIP and MapDiff, zero- and few-shot without training (arXiv 2506.11772).

image -> CLIP: patches, class token ----- prompts, bank of references ----> language and vision maps -+
      -> VAE latents -> UNet, one pass for each timestep and state                                    +-> map, score
         attention to the state's token, features of up-blocks, their bank -> language and vision maps -+
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad import parallel
from jaxad.config import CLIPFusionConfig
from jaxad.data.batches import batches
from jaxad.data.class_names import ClassNames
from jaxad.data.fit_options import ReferenceOptions
from jaxad.detector import Detector, InputSpec, Pretrained, Remembers, register
from jaxad.detectors.clipfusion import maps as maps
from jaxad.detectors.clipfusion.mapdiff import MapDiff
from jaxad.detectors.clipfusion.networks import (
    FusionNetworks,
    Texts,
    compute_types,
    embed_texts,
    identities,
    load_networks,
)
from jaxad.detectors.clipfusion.patchclip import PatchCLIP
from jaxad.errors import ConfigError, DataError
from jaxad.features import FeatureCache, Progress, annotated
from jaxad.memory.bank import bank_entries, stack_banks
from jaxad.nn import module_state
from jaxad.nn.variables import Memory
from jaxad.types import Array, Batch, Explanation, Features, Judgement, Source, View

Context = dict[str, Array]
"""What is known of the category of each image."""

BATCH = 8
"""References that are encoded at once."""

TEXTS = ("clip_texts", "queries", "places", "used", "weights", "reference")
"""Memories that hold what the prompts of each category became."""

MEMORIES = (*TEXTS, "clip_banks", "diffusion_banks")
"""All that `remember` fills, by the name of the attribute."""


@register
class CLIPFusion(Detector, Remembers):
    """Fuses CLIP and Stable Diffusion, prompts and reference images.

    Make one with `CLIPFusion.create(config)`, then `remember(source)`: k normal images of each category, or for
    zero-shot detection `jaxad.data.ClassNames(categories)`. It has to know which category an image shows, because its
    prompts name it.
    """

    name: ClassVar[str] = "clipfusion"
    title: str = "CLIPFusion"
    config_class: ClassVar[type] = CLIPFusionConfig
    protocol: ClassVar[str] = "winclip"
    fit_options: ClassVar[type | None] = ReferenceOptions

    def __init__(
        self, config: CLIPFusionConfig, backbone: FusionNetworks | None = None, *, rngs: nnx.Rngs | None = None
    ):
        config.check()
        self.categories = ()
        self.backbone = backbone or load_networks(config)
        # As they were named: with a commit in place of that, files would pass for others that a user asks for.
        self.config = config = dataclasses.replace(config, **dict(self.backbone.sources))
        self.title = config.label
        vision, vae, unet = self.backbone.vision, self.backbone.vae, self.backbone.unet
        self.patchclip = None if vision is None else PatchCLIP(config, vision.config)
        self.mapdiff = None if vae is None or unet is None else MapDiff(config, vae.config, unet.config)
        given = [name for name, half in (("clip", self.patchclip), ("diffusion", self.mapdiff)) if half]
        if set(given) != set(config.models):
            raise ConfigError(f"models = {config.models}: the networks given are those of {', '.join(given) or 'none'}")
        if problems := [problem for half in (self.patchclip, self.mapdiff) if half for problem in half.problems]:
            raise ConfigError("\n".join(["CLIPFusionConfig does not fit its networks:", *(f"  {p}" for p in problems)]))
        self.clip_texts, self.queries, self.places = Memory.empty(), Memory.empty(), Memory.empty()
        self.used, self.weights, self.reference = Memory.empty(), Memory.empty(), Memory.empty()
        self.clip_banks = nnx.List([Memory.empty() for _ in (self.patchclip.banks if self.patchclip else ())])
        self.diffusion_banks = nnx.List([Memory.empty() for _ in (config.diffusion_taps if self.mapdiff else ())])

    @classmethod
    def create(
        cls,
        config: CLIPFusionConfig | None = None,
        *,
        key: Array | None = None,
        backbone: FusionNetworks | None = None,
    ) -> Self:
        """A detector that knows no category yet.

        Args:
            config: settings; None for the published ones.
            key: not used, nothing is trained; accepted as by every detector.
            backbone: the frozen networks, if they are already loaded; else those that `config` names.

        Raises:
            ConfigError: impossible settings, all listed.
            WeightsError: networks that cannot be found or do not fit.
        """
        return cls(config or CLIPFusionConfig(), backbone)

    @classmethod
    def abstract(cls, config: Any, record: Mapping[str, Any] | None = None, network: Any = None) -> Self:
        """The detector with `network`, its memories empty."""
        return nnx.eval_shape(lambda: cls(config, network))

    @classmethod
    def load_pretrained(cls, config: Any, record: Mapping[str, Any], override: str | None) -> FusionNetworks:
        """The networks that were saved; `override` as `clip=SOURCE,diffusion=SOURCE`, or one of the two."""
        return load_networks(config, override, record.get("id"))

    @property
    def inputs(self) -> InputSpec:
        c, views, least = self.config, {}, 1
        # A patch of CLIP or a latent: what has fewer pixels than one of them shows the networks nothing, once enlarged.
        if self.patchclip:
            views["clip"] = View(self.patchclip.size, self.patchclip.size, "bicubic", c.clip_resize == "crop")
            least = self.patchclip.size // self.patchclip.grid[0]
        if self.mapdiff:
            views["diffusion"] = View(c.image_size, c.image_size, "bilinear")
            least = max(least, c.image_size // self.mapdiff.grid[0])
        settings = (c.clip_map, c.vv_blocks, c.clip_blocks, c.clip_block_path, c.windows, c.latents, c.denoiser_input)
        return InputSpec(
            views,
            least_side=least,
            # Before there are any categories, `judge` says what is missing.
            needs_category=bool(self.categories),
            needs_images=False,
            identity=(self.backbone.sha256, settings, sorted(map(str, compute_types(c.precision).items()))),
        )

    @property
    def pretrained(self) -> Pretrained:
        networks = self.backbone
        return Pretrained("backbone", networks.id, networks.sha256, networks.bytes, {}, embeds=False)

    @property
    def weight_hashes(self) -> dict[str, str]:
        return identities(self.config, self.backbone)

    @property
    def few_shot(self) -> bool:
        """Whether there are references."""
        return any(bank.filled for bank in (*self.clip_banks, *self.diffusion_banks))

    def encode(self, batch: Batch) -> Features:
        """What does not depend on the category.

        Returns:
            Tokens are CLIP's patches [b n d], or the latents where there is no CLIP. Extras are the features of
            `PatchCLIP`, and "latents" [b h w 4], with "noise" of that shape where they are to be noised.
        """
        extras: dict[str, Array] = {}
        if self.mapdiff:
            vae = self.backbone.vae
            assert vae is not None
            latents = self.mapdiff.latents(vae, batch.images["diffusion"], batch.seed)
            tokens, grid = latents.reshape(len(latents), -1, latents.shape[-1]), self.mapdiff.grid
            extras["latents"] = latents
            if self.config.denoiser_input == "noised":
                extras["noise"] = self.mapdiff.noise(latents, batch.seed)
        if self.patchclip:
            assert self.backbone.vision is not None
            extras |= self.patchclip.features(self.backbone.vision, batch.images["clip"])
            tokens, grid = extras["patches"], self.patchclip.grid
        return Features(tokens, grid, extras)

    def remember(
        self,
        source: Source,
        *,
        features: FeatureCache | None = None,
        progress: Progress | None = None,
        texts: Texts | None = None,
        banks: Mapping[str, Array] | None = None,
    ) -> Self:
        """Learns the names of the source's categories, and remembers its images if it has any.

        Args:
            source: normal images, all of which become references, or `jaxad.data.ClassNames`.
            features: not used: references have prompts of their own.
            progress: called after every batch.
            texts: what `embed_texts` gives for these settings and categories, if that is known already.
            banks: what the `banks` of a detector hold that remembers `source`, by name, if that is known already;
                with a bank for each category they serve `per_category = False` too.

        Raises:
            DataError: the source names no category.
            ConfigError: references that no term looks at, none where all terms do, prompts that are too long, or
                settings for a category that the source has not.
        """
        categories = tuple(source.categories)
        if not categories or not all(categories):
            raise DataError(f"{source.name}: clipfusion needs the name of every image's category, for its prompts")
        sees = "vision" in self.config.modalities and len(self.bank_names) > 0
        if len(source) and not sees:
            raise ConfigError(f"{self.config.label} does not look at references: use none (shots = 0)")
        if not len(source) and "language" not in self.config.modalities:
            raise ConfigError(f"{source.name}: no references, but modalities = {self.config.modalities} needs them")
        self.config.check_categories(categories)
        self.learn_names(source)
        self._learn_texts(texts or embed_texts(self.config, categories))
        # Without references too: those of an earlier call belong to other categories.
        found = {} if not len(source) else self._banks(source, progress) if banks is None else banks
        every = [Memory(jnp.asarray(found[name])) if found else Memory.empty() for name in self.bank_names]
        clip = len(self.clip_banks)
        self.clip_banks, self.diffusion_banks = nnx.List(every[:clip]), nnx.List(every[clip:])
        return self

    @property
    def bank_names(self) -> tuple[str, ...]:
        """What the banks hold: features of CLIP as `PatchCLIP.banks` names them, then those of the UNet, "201 3" by
        timestep and up-block."""
        clip = self.patchclip.banks if self.patchclip else ()
        return (*clip, *(f"{t} {block}" for t, block in (self.config.diffusion_taps if self.mapdiff else ())))

    @property
    def banks(self) -> dict[str, Array]:
        """The references' features [g k c] by name; nothing without references."""
        memories = (*self.clip_banks, *self.diffusion_banks)
        return {name: bank[...] for name, bank in zip(self.bank_names, memories, strict=True) if bank.filled}

    def rename(self, categories: Sequence[str]) -> None:
        """Takes other categories, whose names alone make its prompts; "object" is a name for anything.

        Raises:
            ConfigError: references, which belong to categories, or names that are no names.
            WeightsError: the text towers cannot be found again.
        """
        if self.few_shot and self.config.per_category:
            raise ConfigError(
                f"classes = {' '.join(categories)}: this {self.name} has references of {', '.join(self.categories)}, "
                "and needs some of every category; fit it on them, or with shots = 0, or with one bank for all "
                "(per_category = False)"
            )
        try:
            names = ClassNames(tuple(categories))
        except DataError as error:
            raise ConfigError(str(error)) from error
        self.config.check_categories(names.categories)
        pinned = dataclasses.replace(self.config, **dict(self.backbone.pinned))
        self._learn_texts(embed_texts(pinned, names.categories))
        self.categories = names.categories

    def _learn_texts(self, texts: Texts) -> None:
        if texts.clip is not None:
            self.clip_texts = Memory(jnp.asarray(texts.clip))
        if texts.states is not None:
            queries, places, used, weights, reference = map(jnp.asarray, texts.states)
            self.queries, self.places, self.used = Memory(queries), Memory(places), Memory(used)
            self.weights, self.reference = Memory(weights), Memory(reference)

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Eq. 4 and Eq. 9: maps [b s s] of side `output_size`, and scores [b]."""
        config = self.config
        terms, scores = self.terms(features, self.context(batch))
        map = maps.fuse(terms, config.map_weight, "sum" if config.fusion == "sum" else "harmonic")
        named = {f"{model} {modality}": term for model, found in terms.items() for modality, term in found.items()}
        if self._fuses_patches:
            assert self.patchclip is not None
            map, named = self.patchclip.resized(map), {name: self.patchclip.resized(t) for name, t in named.items()}
        if config.score_fusion == "map":
            return Judgement(map, map.max((1, 2)), Explanation(terms=named))
        return Judgement(map, maps.fuse(scores, config.score_weight, config.score_fusion), Explanation(terms=named))

    def context(self, batch: Batch) -> Context:
        """What is known of each image's category: its texts, and which bank the image is compared with."""
        if not self.categories:
            raise ConfigError("clipfusion knows no category: call `remember` before it judges images")
        if batch.category is None:
            raise DataError("clipfusion must know the category of every image (`category`)")
        category = jnp.asarray(batch.category)
        arrays = {name: getattr(self, name)[...][category] for name in TEXTS if getattr(self, name).filled}
        return {**arrays, "bank": category if self.config.per_category else jnp.zeros_like(category)}

    def terms(
        self, features: Features, context: Context
    ) -> tuple[dict[str, dict[str, jax.Array]], dict[str, dict[str, jax.Array]]]:
        """The maps [b s s] and the scores [b] that are fused, by model and modality.

        Maps are patches [b n] where these are fused before they are resized.
        """
        config, extras, texts = self.config, features.extras, context
        language = "language" in config.modalities
        vision = "vision" in config.modalities and self.few_shot
        found: dict[str, Any] = {}
        if self.patchclip:
            found["clip"] = {}, {}
            if language:
                tower, scale = self.backbone.vision, self.backbone.logit_scale
                assert tower is not None
                assert scale is not None
                patches, score = self.patchclip.language(tower, extras, texts["clip_texts"], scale[...])
                map = patches if self._fuses_patches else self.patchclip.resized(patches)
                found["clip"][0]["language"], found["clip"][1]["language"] = map, score
            if vision and len(self.clip_banks):
                patches = self.patchclip.vision(extras, self._searched(self.clip_banks), texts["bank"])
                map = self.patchclip.resized(patches)
                found["clip"][0]["vision"] = patches if self._fuses_patches else map
                found["clip"][1]["vision"] = map.max((1, 2))
        if self.mapdiff:
            banks = self._searched(self.diffusion_banks) if vision else []
            found["diffusion"] = self.mapdiff.terms(self.backbone.unet, extras, texts, banks, texts["bank"], language)
        # A model without banks has nothing to say where only references count.
        found = {model: both for model, both in found.items() if both[0]}
        return {model: both[0] for model, both in found.items()}, {model: both[1] for model, both in found.items()}

    def _searched(self, banks: Sequence[Memory]) -> list[jax.Array]:
        """Banks [g k c] as images are compared with them; what fills one up is never near, in one of all either."""
        arrays = [jnp.asarray(bank[...]) for bank in banks]
        return arrays if self.config.per_category else [a.reshape(1, -1, a.shape[-1]) for a in arrays]

    @property
    def _fuses_patches(self) -> bool:
        """Whether terms are fused on the grid of the patches, and the fused map is resized."""
        return self.config.fusion == "harmonic-patches"

    def reference_tokens(self, batch: Batch) -> list[jax.Array]:
        """Features [b n c] of references for each bank, those of CLIP first."""
        extras = self.encode(batch).extras
        found = [jnp.asarray(extras[name]) for name in (self.patchclip.banks if self.patchclip else ())]
        if self.mapdiff:
            assert self.backbone.unet is not None
            texts = self.reference[...][jnp.asarray(batch.category)]
            found += self.mapdiff.references(self.backbone.unet, extras, texts)
        return [tokens.astype(jnp.float32) for tokens in found]

    def _banks(self, source: Source, progress: Progress | None) -> dict[str, np.ndarray]:
        mesh = parallel.make_mesh()
        graphdef, arrays = module_state.split(self)
        arrays = parallel.shard_parameters(arrays, mesh)

        def tokens_of(arrays: Any, batch: Batch) -> list[jax.Array]:
            return module_state.merge(graphdef, arrays).reference_tokens(batch)

        encode = jax.jit(parallel.on_mesh(tokens_of, mesh))
        groups = self.categories if self.config.per_category else ("",)
        entries: list[dict[str, list[np.ndarray]]] = [{name: [] for name in groups} for _ in self.bank_names]
        size = min(BATCH, len(source))
        size += -size % mesh.size
        for loaded in batches(source, self.inputs.views, size, rows=parallel.local_rows(size, mesh)):
            loaded = annotated(self, loaded, training=True)
            numbers = [self.categories.index(record.category) for record in loaded.records]
            category = np.array(numbers + [0] * (size - len(numbers)), np.int32)
            for turns in range(4 if self.config.rotations else 1):
                turned = {name: np.rot90(view, turns, (1, 2)) for name, view in loaded.batch.images.items()}
                batch = dataclasses.replace(loaded.batch, images=turned, category=category)
                found = parallel.to_host(encode(arrays, parallel.shard_batch(batch, mesh)))
                for bank, tokens in zip(entries, found, strict=True):
                    for record, image in zip(loaded.records, tokens, strict=False):
                        bank[record.category if self.config.per_category else ""].append(image)
            if progress is not None:
                progress(len(loaded.records))
        patches = [[np.concatenate(images) for images in bank.values()] for bank in entries]
        banks = (stack_banks([bank_entries(group, "cosine") for group in groups]) for groups in patches)
        return dict(zip(self.bank_names, banks, strict=True))
