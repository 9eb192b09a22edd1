"""VLMDiff: caption-conditioned latent diffusion guided by the image (arXiv 2511.08173); DiAD is a preset.

image -> VAE posterior -> z        caption -> CLIP text tower        image -> semantic-guided network (SGN)
z noised to t = 999, 10 DDIM steps of the SGN-guided UNet -> z^ -> VAE decoder -> image^
map = 1 - cosine of frozen features of image and image^
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.config import VLMDiffConfig
from jaxad.data.fit_options import CaptionOptions
from jaxad.detector import Detector, InputSpec, Pretrained, Trainable, identity_of, register
from jaxad.detectors.vlmdiff.networks import Networks, abstract_networks, load_networks, tokenizer_of
from jaxad.detectors.vlmdiff.published import load_published
from jaxad.detectors.vlmdiff.sgn import abstract_sgn, controlled_noise, make_sgn
from jaxad.diffusion.samplers import ddim, ldm_timesteps, normal_per_image
from jaxad.diffusion.schedule import add_noise, scaled_linear_schedule
from jaxad.errors import ConfigError
from jaxad.io.program_cache import keep_programs
from jaxad.models.backbone import Backbone, backbone_from_config, load_backbone
from jaxad.models.convnets.convolution import ConvNet
from jaxad.models.stable_diffusion.autoencoder_kl import Moments
from jaxad.models.vit.config import ViTConfig
from jaxad.nn import module_state
from jaxad.nn.cosine import cosine
from jaxad.nn.normalization import IMAGENET, INCEPTION
from jaxad.nn.precision import compute_dtype, whole
from jaxad.nn.resize import bilinear, resize_bilinear
from jaxad.nn.rows import apart, in_turn
from jaxad.nn.variables import Fixed, freeze
from jaxad.types import Array, Batch, Explanation, Features, Judgement, View


@register
class VLMDiff(Detector, Trainable):
    """Stable Diffusion that redraws an image as if it were normal.

    Make one with `VLMDiff.create(config, key=key)`; train it with `jaxad.fit`. The SGN, the UNet's decoder and its
    output layers are trained, everything else stays as it was pretrained. One model serves many categories.
    """

    name: ClassVar[str] = "vlmdiff"
    title: str = "VLMDiff"
    config_class: ClassVar[type] = VLMDiffConfig
    protocol: ClassVar[str] = "diad"
    fit_options: ClassVar[type | None] = CaptionOptions

    def __init__(self, config: VLMDiffConfig, backbone: Backbone, networks: Networks, sgn: Any, empty: Any):
        config.check()
        self.config = config
        self.categories = ()
        self.backbone = backbone
        self.unet, self.autoencoder, self.text = networks.unet, freeze(networks.autoencoder), freeze(networks.text)
        # Trained are the SGN, the UNet's decoder and its last layers: the encoder stays what it was pretrained to be.
        for part in (self.unet.time_embedding, self.unet.conv_in, self.unet.down_blocks, self.unet.mid_block):
            freeze(part, Fixed)
        self._identity = networks.identity
        self.sgn = sgn
        self.empty = Fixed(empty)
        _check_stages(backbone, config)
        self._side = _compared_side(backbone, config.image_size)
        self.grid = backbone.grid(self._side)
        factor = networks.factor
        if config.image_size % factor:
            raise ConfigError(f"image_size = {config.image_size}: must be a multiple of the autoencoder's {factor}")

    @classmethod
    def create(
        cls,
        config: VLMDiffConfig | None = None,
        *,
        key: Array,
        backbone: Backbone | None = None,
        networks: Networks | None = None,
    ) -> Self:
        """A new, untrained detector: at first its UNet predicts what Stable Diffusion's does.

        Args:
            config: settings; None for the published ones.
            key: PRNG key of the hint encoder's parameters, the only ones that are drawn.
            backbone: the network that compares, if it is already loaded, taken as it is; else `config.backbone` is
                loaded, and if it is a ViT without layer scale it resizes its positions as DINO's authors do.
            networks: those of Stable Diffusion, if they are already loaded; else `config.stable_diffusion` is. Neither
                is used with `config.checkpoint`.

        Raises:
            ConfigError: impossible settings, all listed, or an image size that a network cannot take.
            WeightsError: a network or the tokenizer cannot be found or does not fit.
        """
        config = config or VLMDiffConfig()
        config.check()
        keep_programs()
        dtype = compute_dtype(config.precision)
        backbone = backbone or _comparing_network(config.backbone, config)
        if config.checkpoint is not None:
            networks, sgn = load_published(config.checkpoint, dtype, remat=config.remat)
        else:
            networks = networks or load_networks(config, dtype)
            sgn = make_sgn(networks.unet, networks.factor, jnp.asarray(key), remat=config.remat, dtype=dtype)
        return cls(config, backbone, networks, sgn, _embed_nothing(networks, config))

    @classmethod
    def from_published(
        cls, path: str | Path, config: VLMDiffConfig | None = None, *, backbone: Backbone | None = None
    ) -> Self:
        """The finished detector of a checkpoint of VLMDiff's or DiAD's authors, ready to evaluate.

        Args:
            path: as `VLMDiffConfig.checkpoint`.
            config: other settings, such as those of the preset "diad"; None for VLMDiff's.
            backbone: the network that compares, if it is already loaded.

        Raises:
            WeightsError: no such file, or parts that are missing or do not fit, all listed.
            ConfigError: settings that cannot be combined with a checkpoint.
        """
        config = dataclasses.replace(config or VLMDiffConfig(), checkpoint=str(path), trained=True)
        return cls.create(config, key=jax.random.key(0), backbone=backbone)

    @classmethod
    def abstract(cls, config: Any, record: Mapping[str, Any] | None = None, network: Any = None) -> Self:
        """The detector without arrays, to be filled from a checkpoint."""
        assert record is not None
        dtype = compute_dtype(config.precision)
        backbone = network or backbone_from_config(record["backbone"], dtype=dtype)
        networks = abstract_networks(record["networks"], config, dtype)
        sgn = abstract_sgn(networks.unet.config, networks.factor, remat=config.remat, dtype=dtype)
        text = networks.text.config
        empty: Any = jax.ShapeDtypeStruct((text.context, text.width), jnp.float32)
        return cls(config, backbone, networks, sgn, empty)

    @classmethod
    def load_pretrained(cls, config: Any, record: Mapping[str, Any], override: str | None) -> Backbone:
        """The network that compares; `override` may also name another one than that of the checkpoint."""
        interpolation = record["config"]["backbone"]["shape"].get("interpolation")
        dtype = compute_dtype(config.precision)
        backbone = load_backbone(override or record["id"], dtype=dtype, interpolation=interpolation)
        if override is None or backbone.sha256 == record["sha256"]:
            return backbone
        return _comparing_network(override, config)

    def with_backbone(self, backbone: str | Backbone, stages: tuple[int, ...] | None = None) -> VLMDiff:
        """The same model, trained or not, with another network that compares image and reconstruction (paper Table 13).

        Nothing else depends on that network, so that nothing is trained again; but a threshold holds for one network.

        Args:
            backbone: as for `create`, by a name or loaded.
            stages: of a convolutional network, as `VLMDiffConfig.stages`.

        Raises:
            WeightsError: there is no such network.
            ConfigError: it has no such stages.
        """
        if isinstance(backbone, str):
            backbone = _comparing_network(backbone, self.config)
        config = dataclasses.replace(self.config, backbone=backbone.id, stages=stages)
        networks = Networks(self.unet, self.autoencoder, self.text, self._identity)
        other = VLMDiff(config, backbone, networks, self.sgn, self.empty[...])
        for name in ("categories", "depths", "tiling", "regions"):
            setattr(other, name, getattr(self, name))
        return other

    @property
    def trains(self) -> bool:
        return not self.config.trained

    @property
    def inputs(self) -> InputSpec:
        side, config, text = self.config.image_size, self.config, self.text.config
        return InputSpec(
            {"image": View(side, side, "bilinear")},
            captions=config.captions,
            tokenize=lambda captions: tokenizer_of(config, text)(captions),
            identity=(self._identity, self._symmetric, compute_dtype(config.precision)),
        )

    @property
    def pretrained(self) -> Pretrained:
        backbone = self.backbone
        networks = Networks(self.unet, self.autoencoder, self.text, self._identity)
        record = {"backbone": backbone.config_json(), "networks": networks.structure}
        return Pretrained("backbone", backbone.id, backbone.sha256, backbone.bytes, record, swaps=True)

    @property
    def weight_hashes(self) -> dict[str, str]:
        networks = {"stable_diffusion": (self.unet, self.text), "autoencoder": (self.autoencoder,)}
        found = {name: module_state.digest(*modules) for name, modules in networks.items()}
        words = ["", "a photo of a metal nut; its thread is scratched"]
        ids = np.asarray(tokenizer_of(self.config, self.text.config)(words))
        tokenizer = hashlib.sha256(ids.tobytes()).hexdigest()
        # All of them may come from one file of VLMDiff's authors.
        whole = {}
        if self.config.checkpoint is not None:
            whole["checkpoint"] = f"{found['stable_diffusion']} {module_state.digest(self.sgn)}"
        backbone = self.backbone
        compared = identity_of(backbone.id, backbone.sha256, backbone.config_json())
        return {**found, "tokenizer": tokenizer, **whole, "backbone": compared}

    def encode(self, batch: Batch) -> Features:
        """Moments of the VAE's posterior as tokens [b n 2c], the image itself, and the text tower's output.

        In `extras`: "image" uint8 [b H W 3], and "text" float32 [b 77 d] where there are captions.
        """
        images = batch.images["image"]
        moments = self.autoencoder.encode((INCEPTION if self._symmetric else IMAGENET)(images))
        joined = jnp.concatenate([moments.mean, moments.logvar], axis=-1)
        extras = {"image": images}
        if "caption" in batch.extras:
            extras["text"] = self.text(batch.extras["caption"]).hidden.astype(jnp.float32)
        b, rows, columns, channels = joined.shape
        return Features(joined.reshape(b, rows * columns, channels), (rows, columns), extras)

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean squared error of the predicted noise, t uniform in 0..999 for each image.

        The posterior is sampled anew; the image is both target and hint.
        """
        posterior_key, t_key, noise_key = jax.random.split(key, 3)
        z = self._latents(features, posterior_key)
        t = jax.random.randint(t_key, z.shape[:1], 0, len(self._schedule), jnp.int32)
        noise = jax.random.normal(noise_key, z.shape, jnp.float32)
        noisy = add_noise(z, noise, self._schedule.alpha_bar_at(t))
        hint = self.sgn.hint(IMAGENET(features.extras["image"]))
        predicted = controlled_noise(self.unet, self.sgn, noisy, t, self._text(features), hint)
        return jnp.square(predicted - noise).mean(), {}

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """The image redrawn as a normal one, and how the features of the two differ."""
        reconstruction = self.reconstruct(features, keys)
        judgement = self.score(features, reconstruction)
        return dataclasses.replace(judgement, explanation=self.explain(features, reconstruction, keys))

    def reconstruct(self, features: Features, keys: Array) -> Features:
        """Noise the latents to `start_timestep`, remove the noise in `sampling_steps`, decode.

        Returns:
            Latents as tokens [b n c], and the "image" [b H W 3], ImageNet-normalized and not clamped.
        """
        config, schedule = self.config, self._schedule
        posterior_keys, noise_keys = _split(keys)
        z = self._latents(features, posterior_keys)
        noise = normal_per_image(noise_keys, z.shape[1:])
        noisy = add_noise(z, noise, schedule.alpha_bar_at(jnp.int32(config.start_timestep)))
        hint, text = self.sgn.hint(IMAGENET(features.extras["image"])), self._text(features)
        guided = config.captions == "always" and config.guidance != 1
        if guided:
            # The same hint guides both; for an image without a caption both texts are "", and agree.
            hint, text = in_turn(hint, hint), in_turn(self._nothing(len(z)), text)

        def denoise(x, t):
            x = in_turn(x, x) if guided else x
            noise = controlled_noise(self.unet, self.sgn, x, jnp.broadcast_to(t, x.shape[:1]), text, hint)
            if not guided:
                return noise
            without, given = apart(noise)
            return without + config.guidance * (given - without)

        timesteps = ldm_timesteps(config.start_timestep, config.sampling_steps)
        clean = ddim(denoise, noisy, schedule, timesteps, last=float(schedule.alpha_bar[0]))
        image = self._decoded(clean)
        return Features(clean.reshape(len(clean), -1, clean.shape[-1]), features.grid, {"image": image})

    def score(self, features: Features, reconstruction: Features) -> Judgement:
        """1 - cosine of the backbone's features of image and reconstruction.

        One map on the token grid of a ViT; the sum of the maps of three stages at the image's size otherwise.
        """
        before, after = self._look(features, reconstruction)
        maps = [1 - cosine(x, y) for x, y in zip(before, after, strict=True)]
        if len(maps) == 1:
            return Judgement(maps[0])
        size = self.config.image_size
        total = jnp.zeros((len(maps[0]), size, size), jnp.float32)
        for map in maps:
            rows, columns = (jnp.asarray(bilinear(n, size, True), jnp.float32) for n in map.shape[1:])
            total = total + jnp.einsum("ih,bhw,jw->bij", rows, map, columns, precision="highest")
        return Judgement(total)

    def explain(self, features: Features, reconstruction: Features, keys: Array) -> Explanation:
        """Features of image and reconstruction as they are compared, and what is drawn of the image.

        That is the reconstruction, and what the autoencoder makes of the latents that it starts from.
        """
        before, after = (maps[-1] for maps in self._look(features, reconstruction))
        latents = self._latents(features, _split(keys)[0])
        drawn = {"reconstruction": reconstruction.extras["image"], "autoencoder": self._decoded(latents)}
        return Explanation(before, after, pictures={name: _pixels(image) for name, image in drawn.items()})

    @property
    def _symmetric(self) -> bool:
        """Whether the autoencoder takes images from -1 to 1."""
        pixels = self.config.pixels
        if pixels == "auto":
            own = self.config.autoencoder is None and self.config.checkpoint is None
            pixels = self.autoencoder.config.pixels or ("symmetric" if own else "imagenet")
        return pixels == "symmetric"

    @property
    def _schedule(self):
        return scaled_linear_schedule()

    def _latents(self, features: Features, keys: Array) -> jax.Array:
        """A draw of the posterior, scaled as the UNet takes it: [b h w c]."""
        moments = jnp.asarray(features.tokens, jnp.float32).reshape(len(features.tokens), *features.grid, -1)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return self.autoencoder.config.scaling_factor * Moments(mean, logvar).sample(jnp.asarray(keys))

    def _decoded(self, latents: Array) -> jax.Array:
        """What the autoencoder draws of scaled latents [b h w c]: [b H W 3], ImageNet-normalized and not clamped."""
        decoded = self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor)
        return IMAGENET(INCEPTION.inverse(decoded)) if self._symmetric else decoded

    def _text(self, features: Features) -> Array:
        given = features.extras.get("text")
        return self._nothing(len(features.tokens)) if given is None else given

    def _nothing(self, images: int) -> jax.Array:
        # Rounded as the UNet rounds it, before devices that share it send it to each other.
        empty = whole(self.empty[...].astype(self.unet.dtype))
        return jnp.broadcast_to(empty[None], (images, *empty.shape))

    def _look(self, features: Features, reconstruction: Features) -> tuple[list[jax.Array], list[jax.Array]]:
        """Features float32 [b h w c] of images and reconstructions, for each layer that is compared."""
        images = in_turn(IMAGENET(features.extras["image"]), reconstruction.extras["image"])
        if self._side != self.config.image_size:
            images = resize_bilinear(images, (self._side, self._side))
        maps = self.backbone.network.maps(images, self.config.stages)
        before, after = zip(*map(apart, maps), strict=True)
        return list(before), list(after)


def _comparing_network(name: str, config: VLMDiffConfig) -> Backbone:
    """The network of that name; every ViT without layer scale resizes its positions as DINO's authors do."""
    backbone = load_backbone(name, dtype=compute_dtype(config.precision))
    shape = backbone.network.config
    if isinstance(shape, ViTConfig) and not shape.layer_scale:
        # The shape does not tell DINO from a supervised ViT: both get the resizing of DINO's authors, as published.
        backbone.network.config = dataclasses.replace(shape, interpolation="dinomaly")
    return backbone


def _split(keys: Array) -> tuple[jax.Array, jax.Array]:
    """Of each image's key two [b], one for the draw of the posterior and one for the noise."""
    posterior, noise = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    return posterior, noise


def _pixels(images: Array) -> jax.Array:
    """ImageNet-normalized images [b H W 3] as uint8."""
    return jnp.clip(IMAGENET.inverse(images), 0, 255).round().astype(jnp.uint8)


def _check_stages(backbone: Backbone, config: VLMDiffConfig) -> None:
    """Raises ConfigError for stages that the comparing network does not have."""
    if config.stages is None:
        return
    named = f"stages = {' '.join(map(str, config.stages))}"
    if not isinstance(backbone.network, ConvNet):
        raise ConfigError(f"{named}: backbone = {config.backbone} has no stages; leave it out")
    if max(config.stages) >= backbone.network.depth:
        raise ConfigError(f"{named}: backbone = {config.backbone} has 0 to {backbone.network.depth - 1}")


def _compared_side(backbone: Backbone, image_size: int) -> int:
    """Side in pixels at which the backbone sees images: the nearest multiple of its patch, 252 of 256 for 14.

    The authors' own resizing for Table 13's DINOv2 puts pixels in a wrong order.
    """
    return max(round(image_size / backbone.patch), 1) * backbone.patch


def _embed_nothing(networks: Networks, config: VLMDiffConfig) -> jax.Array:
    """The text tower's output float32 [77 d] for the empty text."""
    ids = tokenizer_of(config, networks.text.config)([""])
    graphdef, arrays = module_state.split(networks.text)
    run = jax.jit(lambda arrays, ids: module_state.merge(graphdef, arrays)(ids).hidden)
    return run(arrays, ids)[0].astype(jnp.float32)
