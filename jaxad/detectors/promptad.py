"""PromptAD: prompts learned from a few normal images, on CLIP (arXiv 2404.05231). Written from the paper and its code.

image -> CLIP: class token -- image prompts ---> abnormality ----------------------+
               VV patches --- patch prompts ---> abnormality -+                    |
               two blocks --- references ------> distances ---+-> map   maximum ---+-> score
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import PromptADConfig
from jaxad.data.fit_options import LearnedReferenceOptions
from jaxad.detector import Detector, InputSpec, Pretrained, Trainable, register
from jaxad.detectors._learned_prompts import Directions, Prompts, directions, embed, prompt_ids
from jaxad.detectors.clipfusion import maps as maps
from jaxad.detectors.clipfusion.networks import FusionNetworks, identities, load_networks, load_text
from jaxad.detectors.clipfusion.patchclip import PatchCLIP
from jaxad.errors import ConfigError, DataError
from jaxad.io.program_cache import keep_programs
from jaxad.memory.bank import bank_entries, stack_banks
from jaxad.models.clip.tokenizer import CLIPTokenizer
from jaxad.models.clip.towers import TextTower
from jaxad.nn import module_state
from jaxad.nn.cosine import unit
from jaxad.nn.precision import compute_dtype
from jaxad.nn.variables import Fixed, Memory, freeze
from jaxad.types import Array, Batch, Features, Judgement, Source, View


class PromptNetworks(nnx.Module):
    """CLIP as PromptAD uses it.

    Attributes:
        clip: the image tower, which makes features, and the scale of cosines, of the networks that are given.
        text: the text tower, which the loss runs through; None where prompts are not to be trained any more.
        tokenizer: of that tower; None likewise.
    """

    def __init__(self, clip: FusionNetworks, text: TextTower | None = None, tokenizer: CLIPTokenizer | None = None):
        self.clip = clip = clip.of(("clip",))
        assert clip.logit_scale is not None
        clip.logit_scale = Fixed(clip.logit_scale.get_value())
        self.text = None if text is None else freeze(text, Fixed)
        self.tokenizer = tokenizer
        self.id, self.sha256, self.bytes = clip.id, clip.sha256, clip.bytes


@register
class PromptAD(Detector, Trainable):
    """Compares images with learned prompts and with references; each category has its own of either.

    Make one with `PromptAD.create(config, key=key)`; train it with `jaxad.fit` on k normal images of each category. All
    categories are trained at once, and what one learns does not depend on the others.
    """

    name: ClassVar[str] = "promptad"
    title: str = "PromptAD"
    config_class: ClassVar[type] = PromptADConfig
    protocol: ClassVar[str] = "winclip"
    fit_options: ClassVar[type | None] = LearnedReferenceOptions

    def __init__(
        self, config: PromptADConfig, backbone: PromptNetworks, categories: int, width: int, *, rngs: nnx.Rngs
    ):
        config.check()
        self.backbone = backbone
        # As it was named, without a commit.
        self.config = config = dataclasses.replace(config, clip=dict(backbone.clip.sources)["clip"])
        assert backbone.clip.vision is not None
        self.sight = PatchCLIP(config.sight, backbone.clip.vision.config)
        if self.sight.problems:
            lines = ["PromptADConfig does not fit its network:", *(f"  {problem}" for problem in self.sight.problems)]
            raise ConfigError("\n".join(lines))
        self.image_prompts, self.patch_prompts = (
            Prompts(count, config, categories, width, rngs=rngs) for count in config.prompts
        )
        self.ids, self.used = Memory.empty(), Memory.empty()
        self.banks = nnx.List([Memory.empty() for _ in self.sight.banks])

    @classmethod
    def create(
        cls, config: PromptADConfig | None = None, *, key: Array, backbone: PromptNetworks | None = None
    ) -> Self:
        """A new detector that knows no category yet.

        Args:
            config: settings; None for the published ones.
            key: PRNG key of the prompts.
            backbone: both towers, if they are already loaded; else those that `config` names.

        Raises:
            ConfigError: impossible settings, all listed.
            WeightsError: networks that cannot be found or do not fit.
        """
        config = config or PromptADConfig()
        config.check()
        keep_programs()
        backbone = backbone or PromptNetworks(load_networks(config.sight), *load_text(config.sight, "clip"))
        if backbone.text is None:
            raise ConfigError("backbone: has no text tower, which prompts are trained with")
        return cls(config, backbone, 1, backbone.text.config.width, rngs=nnx.Rngs(jnp.asarray(key)))

    @classmethod
    def abstract(cls, config: Any, record: Mapping[str, Any] | None = None, network: Any = None) -> Self:
        """The detector with `network`, and without arrays of its own."""
        assert record is not None
        return nnx.eval_shape(lambda: cls(config, network, record["categories"], record["width"], rngs=nnx.Rngs(0)))

    @classmethod
    def load_pretrained(cls, config: Any, record: Mapping[str, Any], override: str | None) -> PromptNetworks:
        """The image tower alone; `override` is a source, with or without `clip=` before it."""
        named = override and f"clip={override.removeprefix('clip=')}"
        return PromptNetworks(load_networks(config.sight, named, record.get("id")))

    @property
    def inputs(self) -> InputSpec:
        c, sight = self.config, self.sight
        settings = (c.vv_blocks, c.clip_blocks, c.clip_block_path, str(compute_dtype(c.precision)))
        return InputSpec(
            {"clip": View(sight.size, sight.size, "bicubic")},
            least_side=sight.size // sight.grid[0],
            # Before there are any categories, `judge` says what is missing.
            needs_category=bool(self.categories),
            identity=(self.backbone.sha256, settings, self.categories),
        )

    @property
    def pretrained(self) -> Pretrained:
        networks, (categories, *_, width) = self.backbone, self.image_prompts.normal.shape
        record = {"categories": categories, "width": width}
        return Pretrained("backbone", networks.id, networks.sha256, networks.bytes, record, embeds=False)

    @property
    def weight_hashes(self) -> dict[str, str]:
        return identities(self.config.sight, self.backbone.clip)

    def learn_names(self, source: Source) -> None:
        """Takes the names of the categories, and gives each the prompts that a new detector has.

        Prompts of as many categories stay as they are: those of a warm start, which loads prompts by shape. A detector
        that is to start so from a run of several categories is told their names first.

        Raises:
            DataError: images of a category without a name, which prompts need.
            ConfigError: prompts that are too long, or settings for a category that the source has not.
        """
        text, tokenizer = self._text
        super().learn_names(source)
        if not self.categories or not all(self.categories):
            raise DataError(f"{source.name}: promptad needs the name of every image's category, for its prompts")
        self.config.check_categories(self.categories)
        for prompts in self._prompts:
            for tokens in (prompts.normal, prompts.suffixes):
                if len(tokens[...]) == len(self.categories):
                    continue
                tokens.set_value(jnp.repeat(tokens[...][:1], len(self.categories), axis=0))
        ids, used = prompt_ids(self.config, text, tokenizer, self.categories)
        self.ids.set_value(jnp.asarray(ids))
        self.used.set_value(jnp.asarray(used))

    def encode(self, batch: Batch) -> Features:
        """The patches of the VV path as tokens [b n d]; as extras what else `PatchCLIP.features` has, and the seed.

        And in training the category.
        """
        vision = self.backbone.clip.vision
        assert vision is not None
        found = self.sight.features(vision, batch.images["clip"])
        return Features(found.pop("patches"), self.sight.grid, {**batch.extras, **found, "seed": batch.seed})

    def prepare(self, features: Iterable[Features]) -> None:
        """Remembers the patches of the references, those of each category for themselves."""
        patches: list[list[list[Array]]] = [[[] for _ in self.categories] for _ in self.banks]
        for batch in features:
            for groups, name in zip(patches, self.sight.banks, strict=True):
                for category, image in zip(batch.extras["category"], batch.extras[name], strict=True):
                    groups[int(category)].append(image)
        for bank, groups in zip(self.banks, patches, strict=True):
            entries = [bank_entries(np.concatenate(images), "cosine") for images in groups]
            bank.set_value(jnp.asarray(stack_banks(entries)))

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Sum over the categories of what each costs, so that its prompts are trained as if it were alone.

        A category costs the mean over its images, of which those that a batch holds several times count once, and
        nothing where a batch holds none of them. With `TrainConfig.accumulate` above 1 or a `micro_batch` each part of
        a step is such a batch, and the gradient of a category depends on which of its images meet in one.
        """
        category, seed = (jnp.asarray(features.extras[name]) for name in ("category", "seed"))
        once = 1 / ((category[:, None] == category[None]) & (seed[:, None] == seed[None])).sum(1)
        images = jnp.zeros(len(self.categories)).at[category].add(once)
        seen = {
            "image": (jnp.asarray(features.extras["class"])[:, None], "channels"),
            "patches": (features.tokens, self.config.margin_over),
        }
        terms: dict[str, Array] = {}
        for (name, (tokens, over)), found in zip(seen.items(), self._directions(), strict=True):
            own = jax.tree.map(lambda array: array[category], found)
            tokens = unit(tokens)
            cost = contrast_loss(tokens, own, self._scale) + margin_loss(tokens, own, self.config.margin, over)
            apart = (found.apart * (images > 0)).sum()
            terms[name] = (cost * once / images[category]).sum() + self.config.match_weight * apart
        return terms["image"] + terms["patches"], terms

    def finish(self, features: Iterable[Features]) -> None:
        """Embeds the prompts as they have become."""
        graphdef, arrays = module_state.split(self)

        @jax.jit
        def run(arrays: Mapping[str, Array]) -> list[jax.Array]:
            model: PromptAD = module_state.merge(graphdef, arrays)
            return [jnp.stack([texts.normal, texts.abnormal], axis=1) for texts in model._directions()]

        for prompts, texts in zip(self._prompts, run(arrays), strict=True):
            prompts.texts.set_value(texts)

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Harmonic means of what prompts and references say: of patches, and of class token and highest distance."""
        if not self.patch_prompts.texts.filled:
            raise ConfigError("promptad has no prompts yet: train it to the end before it judges images")
        if batch.category is None:
            raise DataError("promptad must know the category of every image (`category`)")
        category = jnp.asarray(batch.category)
        of_image, of_patches = (p.texts[...][category] for p in self._prompts)
        told = maps.abnormality(jnp.asarray(features.extras["class"])[:, None], of_image, self._scale)[:, 0]
        seen = self.sight.vision(features.extras, [bank[...] for bank in self.banks], category)
        map = maps.harmonic_mean([maps.abnormality(features.tokens, of_patches, self._scale), seen])
        return Judgement(self.sight.resized(map), maps.harmonic_mean([told, self.sight.resized(seen).max((1, 2))]))

    @property
    def _prompts(self) -> tuple[Prompts, Prompts]:
        """Those of images, and those of patches."""
        return self.image_prompts, self.patch_prompts

    def _directions(self) -> list[Directions]:
        """What they stand for now."""
        tower, _ = self._text
        return [directions(texts, self.used[...]) for texts in embed(tower, self._prompts, self.ids[...])]

    @property
    def _text(self) -> tuple[TextTower, CLIPTokenizer]:
        """Text tower and tokenizer."""
        text, tokenizer = self.backbone.text, self.backbone.tokenizer
        if text is None or tokenizer is None:
            raise ConfigError("promptad is finished, and has no text tower to train prompts with; make a new one")
        return text, tokenizer

    @property
    def _scale(self) -> jax.Array:
        """What cosines are multiplied by before the softmax."""
        temperature, scale = self.config.temperature, self.backbone.clip.logit_scale
        assert scale is not None
        return jnp.asarray(scale[...]) if temperature is None else jnp.float32(1 / temperature)


def contrast_loss(tokens: Array, own: Directions, scale: Array) -> jax.Array:
    """Cross entropy of the normal prompt against each abnormal one.

    Args:
        tokens: [b n d], of unit length.
        own: of the category of each image, [b ...].
        scale: of the cosines.

    Returns:
        float32 [b], means over tokens.
    """
    normal = scale * jnp.einsum("bnd,bd->bn", tokens, own.normal, precision="highest")
    others = scale * jnp.einsum("bnd,bkd->bnk", tokens, own.each, precision="highest")
    others = jnp.where(own.used[:, None], others, -jnp.inf)
    logits = jnp.concatenate([normal[..., None], others], axis=-1)
    return (jax.nn.logsumexp(logits, axis=-1) - normal).mean(1)


def margin_loss(tokens: Array, own: Directions, margin: float, over: str) -> jax.Array:
    """By how much the squared distance to the normal prompts is not `margin` below that to the abnormal ones.

    Args:
        tokens: [b n d].
        own: of the category of each image, [b ...].
        margin: at least 0.
        over: what squares are summed over before they are compared, "channels" or "patches".

    Returns:
        float32 [b], means over patches or channels.
    """
    tokens, normal, abnormal = jnp.asarray(tokens), own.normal[:, None], own.abnormal[:, None]
    nearer = jnp.square(tokens - normal) - jnp.square(tokens - abnormal)
    return jax.nn.relu(nearer.sum(2 if over == "channels" else 1) + margin).mean(1)
