"""DPDiff-AD: dual prototype-conditioned diffusion on frozen features (arXiv 2605.24402).

images -> frozen backbone -> mean over blocks -> x0        prototypes P0 = [local; global] read from x0 itself
x0, P0 noised to the same t -> prototype-aware DiT, few DDIM steps -> x0^        map = distance of x0^ and x0
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import DPDiffConfig
from jaxad.detector import Trainable, register
from jaxad.detectors._expected import beside_nearest, beyond_expected
from jaxad.detectors._standardized import StandardizedDetector
from jaxad.detectors.dpdiff.denoiser import denoiser_heads, denoiser_width, make_denoiser
from jaxad.detectors.dpdiff.levels import normal_residuals
from jaxad.diffusion.layers import linear, plain_norm
from jaxad.diffusion.retrieval import Known, RetrievalDenoiser, Sample
from jaxad.diffusion.samplers import ddim, ddim_timesteps, ddpm, normal_per_image
from jaxad.diffusion.schedule import add_noise, epsilon_from_clean, epsilon_from_velocity, linear_schedule, velocity
from jaxad.diffusion.wiener import WienerFilter
from jaxad.diffusion.window import random_windows, window_shape
from jaxad.memory.moments import moments
from jaxad.memory.prototypes import PrototypeExtractor, cosine_similarity, global_loss, local_loss
from jaxad.models.backbone import Backbone
from jaxad.nn.attention import attention_heads
from jaxad.nn.noise import normal
from jaxad.nn.precision import compute_dtype
from jaxad.nn.variables import Statistic
from jaxad.types import Array, Batch, Explanation, Features, Judgement

Context = dict[str, Array]
"""What a reconstruction is conditioned on."""
AT_ONCE = 4
"""Images times draws that are denoised at once where a batch has fewer images."""


@register
class DPDiff(StandardizedDetector, Trainable):
    """Dual prototype-conditioned diffusion model for multi-class anomaly detection.

    Make one with `DPDiff.create(config, key=key)`; train it with `jaxad.fit`. One model serves many categories and
    does not need to know which category an image shows.
    """

    name: ClassVar[str] = "dpdiff"
    title: str = "DPDiff-AD"
    config_class: ClassVar[type] = DPDiffConfig

    def __init__(self, config: DPDiffConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        channels = self.channels
        dtype = compute_dtype(config.precision)

        def extractor(prototypes: int) -> PrototypeExtractor | None:
            if prototypes == 0:
                return None
            return PrototypeExtractor(
                prototypes,
                channels,
                heads=config.prototype_heads or attention_heads(channels),
                mlp_ratio=config.prototype_mlp_ratio,
                pre_norm=config.prototype_pre_norm,
                dtype=dtype,
                rngs=rngs,
            )

        self.local = extractor(config.local_prototypes)
        self.global_ = extractor(config.global_prototypes)
        self.denoiser = make_denoiser(config, channels, self.grid, dtype=dtype, rngs=rngs)
        self.linear = WienerFilter(channels) if config.precondition == "linear" else None
        retrieves = config.precondition == "retrieval"
        nearby = (channels, config.retrieved, config.groups)
        self.nearby = RetrievalDenoiser(*nearby, dtype=dtype) if retrieves else None
        self.guide = linear(channels, channels, dtype=dtype, rngs=rngs) if retrieves else None
        self.level_means = Statistic(jnp.ones(len(config.levels), jnp.float32)) if config.levels else None

    def misfits(self) -> list[str]:
        """Groups that there are not, and heads that do not divide what they attend with."""
        config, channels, problems = self.config, self.config.groups * self.channels, super().misfits()
        heads = {
            "prototype_heads": (config.prototype_heads or 1, channels),
        }
        if config.denoiser != "none":
            heads["heads"] = denoiser_heads(config, channels), denoiser_width(config, channels)
        for name, (number, width) in heads.items():
            if width % number:
                problems.append(f"{name} = {number}: must divide the width {width}")
        return problems

    def prepare(self, features: Iterable[Features]) -> None:
        """Channel mean and standard deviation over the training tokens, and their covariance for the linear denoiser.

        Noise of unit variance asks for features of unit variance, and DINOv2 has a few channels so large that they
        would be hardly noised and would rule the residual.
        """
        if self.linear is not None:
            return self._prepare_linear(self.linear, features)
        sample = Sample(self.config.memory) if self.nearby is not None else None
        stream = features if sample is None else sample.passing(features)
        if self.config.standardize == "channel":
            self._measure(stream)
        elif sample is not None:
            deque(stream, maxlen=0)
        if self.nearby is not None and sample is not None:
            self.nearby.fit(sample, self._standardize)

    def _prepare_linear(self, wiener: WienerFilter, features: Iterable[Features]) -> None:
        """The same statistics, and the linear denoiser of standardized tokens, from one pass."""
        if self.config.standardize == "channel":
            return wiener.fit(np.zeros(self.channels), self._measure_correlations(features))
        stream = (self._standardize(batch.tokens).reshape(-1, 1, self.channels) for batch in features)
        _, mean, covariance = moments(stream, 1, self.channels)
        return wiener.fit(mean[0], covariance[0])

    @property
    def finishes(self) -> bool:
        """With levels, whose means are to be measured, or where residuals of remembered patches are wanted."""
        return self.level_means is not None or self.config.expects

    def finish(self, features: Iterable[Features]) -> None:
        """The mean residual of the training features at each of `config.levels`; until then all count as they are.

        And the residuals of the remembered patches; until then none are expected, and image scores are the protocol's.
        """
        remembering = self.nearby if self.config.expects else None
        if self.level_means is None and remembering is None:
            return
        means, kept = normal_residuals(self, features, None if remembering is None else remembering.places[...])
        if self.level_means is not None:
            self.level_means[...] = jnp.asarray(means)
        if remembering is not None and kept is not None:
            remembering.residuals.set_value(jnp.asarray((kept / (1 if self.level_means is None else means)).mean(-1)))

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """L_diff + lambda_1 L_local + lambda_2 L_global on tokens [b n c] (Eq. 18 and 19).

        Each image draws its t uniformly from `config.train_timesteps`; prototypes and tokens share it. L_diff is the
        mean over images, tokens and channels of the squared error of the predicted noise, or of v; it is left out
        where there is no denoiser. With `config.tokens` all of it is that of a window of each image.
        """
        config, known = self.config, self._known(features)
        tokens, places = features.tokens, None
        if config.tokens is not None:
            shape = window_shape(config.tokens, self.grid)
            places = random_windows(jax.random.fold_in(key, 3), len(tokens), self.grid, shape)
            tokens = jnp.take_along_axis(jnp.asarray(tokens), places[..., None], axis=1)
        x = self._standardize(tokens)
        chex.assert_shape(x, (None, None, self.channels), custom_message="features.tokens must be [b n c]")
        arrays = self._prototypes(x)
        prototype_loss, terms = self._prototype_loss(x, arrays)
        if self.denoiser is None:
            return prototype_loss, terms
        keys = jax.random.split(key, 3)
        t = jax.random.randint(keys[0], x.shape[:1], *config.train_timesteps, dtype=jnp.int32)
        alpha_bar = self._schedule.alpha_bar_at(t)
        noise = normal(keys[1], x.shape)
        prototypes = _concatenate(arrays)
        if prototypes is not None:
            if config.detach_prototypes:
                prototypes = jax.lax.stop_gradient(prototypes)
            prototypes = add_noise(prototypes, normal(keys[2], prototypes.shape), alpha_bar)
        output = self._predict(add_noise(x, noise, alpha_bar), prototypes, t, alpha_bar, known, places)
        target = noise if config.prediction == "epsilon" else velocity(x, noise, alpha_bar)
        diffusion = jnp.square(output - target).mean()
        return diffusion + prototype_loss, {"diffusion": diffusion, **terms}

    def _prototype_loss(self, x: Array, arrays: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """lambda_1 L_local + lambda_2 L_global of standardized tokens [b n c] and their clean prototypes."""
        config, total = self.config, jnp.zeros((), jnp.float32)
        terms: dict[str, Array] = {}
        if "local" in arrays:
            terms["local"] = local_loss(x, arrays["local"])
            total = total + config.local_weight * terms["local"]
        if "global" in arrays:
            terms["global"], terms["sinkhorn_error"] = global_loss(
                x, arrays["global"], epsilon=config.sinkhorn_epsilon, iterations=config.sinkhorn_iterations
            )
            total = total + config.global_weight * terms["global"]
        return total, terms

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Prototypes of the image, its reconstruction, and the residual of the two, or that over several levels."""
        context = self.context(features)
        residuals, reconstruction = self.residual(features, context, keys)
        maps, scores = self.beyond_expected(features, residuals)
        return Judgement(maps, scores, self.explain(features, context, reconstruction))

    def residual(self, features: Features, context: Context, keys: Array) -> tuple[jax.Array, Features | None]:
        """Residuals [b h w], and the reconstruction that they come from, or the mean of those of all levels.

        Args:
            features: tokens [b n c].
            context: their prototypes.
            keys: PRNG keys [b].
        """
        if self.level_means is None:
            reconstruction = self.reconstruct(features, context, keys)
            return jnp.asarray(self.score(features, reconstruction, context).maps), reconstruction
        reconstruction, residuals = self.level_residuals(features, context, keys)
        return (residuals / self.level_means[...][None, None, None]).mean(-1), reconstruction

    def beyond_expected(self, features: Features, residuals: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """The anomaly map [b h w], and how far an image's residuals exceed those of normal patches like its own, [b].

        Scores are None where they are the protocol's.

        Args:
            features: tokens [b n c].
            residuals: of them, [b h w].
        """
        if self.nearby is None:
            return residuals, None
        alpha_bar = self._schedule.alpha_bar[self.config.train_timesteps[1] - 1]
        x, known = self._standardize(features.tokens), self._known(features)
        return beyond_expected(self.config, self.nearby, x, residuals, alpha_bar, known)

    def level_residuals(self, features: Features, context: Context, keys: Array) -> tuple[Features, jax.Array]:
        """The mean of the reconstructions from each of `config.levels`, and the residual of each: [b h w l].

        Every level has noise of its own.
        """
        assert self.config.levels is not None
        found = []
        for number, level in enumerate(self.config.levels):
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            found.append(self.reconstruct(features, context, own, level))
        residuals = jnp.stack([self.score(features, each, context).maps for each in found], -1)
        return Features(jnp.stack([each.tokens for each in found]).mean(0), features.grid), residuals

    def context(self, features: Features) -> Context:
        """The image's own clean prototypes: "local" [b M c] and "global" [b K c]."""
        return self._prototypes(self._standardize(features.tokens))

    def reconstruct(
        self, features: Features, context: Context, keys: Array, start: int | None = None
    ) -> Features | None:
        """Noise tokens and prototypes to timestep `start`, then denoise (Eq. 20 and 21).

        Args:
            features: tokens [b n c].
            context: their prototypes.
            keys: PRNG keys [b].
            start: None for `config.start_timestep`.

        Returns:
            The mean over the noise draws, or over both of every pair of them, tokens [b n c] in the standardized
            space; None where the map comes from the prototypes alone.
        """
        if self.config.score == "prototype":
            return None
        x, prototypes = self._standardize(features.tokens), _concatenate(context)
        chex.assert_shape(x, (None, None, self.channels), custom_message="features.tokens must be [b n c]")
        chex.assert_shape(keys, (len(x),), custom_message="keys must be [b]")

        level = self.config.start_timestep if start is None else start
        known = self._known(features)

        draws, signs = jnp.arange(self.config.draws), None
        if self.config.antithetic:
            draws, signs = jnp.repeat(draws, 2), jnp.tile(jnp.array([1.0, -1.0]), self.config.draws)
        # Few images alone would leave most of a processor idle.
        together = _together(len(draws), len(x))
        repeated: Any = jax.tree.map(lambda array: jnp.repeat(array, together, 0), (x, prototypes, known))
        many_x, many_prototypes, many_known = repeated

        def some_draws(total, inputs):
            draw, sign = inputs
            own = jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(draw))(keys).reshape(-1)
            sign = None if sign is None else jnp.tile(sign, len(x))[:, None, None]
            found = self._denoise(many_x, many_prototypes, many_known, own, level, sign)
            found = found.reshape(len(x), together, *x.shape[1:])
            # Added one by one: XLA for CPUs would merge a sum over an axis into the product before, and slow that down.
            return total + sum(found[:, number] for number in range(together)), None

        inputs = jax.tree.map(lambda array: array.reshape(-1, together), (draws, signs))
        total, _ = jax.lax.scan(some_draws, jnp.zeros_like(x), inputs)
        return Features(total / len(draws), features.grid)

    def score(self, features: Features, reconstruction: Features | None, context: Context) -> Judgement:
        """Residual of reconstruction and feature on the token grid (Eq. 22 and 23), as `config.residual` says.

        With `config.nearest` beside that of the nearest patch. Without a reconstruction: 1 - cosine to the nearest
        prototype.
        """
        x = self._standardize(features.tokens)
        if reconstruction is None:
            prototypes = jnp.concatenate(list(context.values()), axis=1)
            residual = 1 - cosine_similarity(x, prototypes).max(-1)
        else:
            residual = self._residual(x, reconstruction.tokens)
            least = partial(self._least_residual, x)
            residual = beside_nearest(self.config, residual, least, self.nearby, self._known(features))
        return Judgement(residual.reshape(-1, *features.grid))

    def explain(self, features: Features, context: Context, reconstruction: Features | None) -> Explanation:
        """Standardized features before and after reconstruction (paper Fig. 7), similarity to prototypes (Fig. 8)."""
        x = self._standardize(features.tokens)
        before = after = similarity = None
        if reconstruction is not None:
            before, after = (tokens.reshape(len(x), *features.grid, -1) for tokens in (x, reconstruction.tokens))
        prototypes = _concatenate(context)
        if prototypes is not None:
            similarity = jnp.moveaxis(cosine_similarity(x, prototypes), -1, 1)
            similarity = similarity.reshape(*similarity.shape[:2], *features.grid)
        numbers = {"local": self.config.local_prototypes, "global": self.config.global_prototypes}
        names = tuple(f"{name} {number + 1}" for name, count in numbers.items() for number in range(count))
        return Explanation(before, after, similarity, names)

    @property
    def _schedule(self):
        return linear_schedule(self.config.timesteps, self.config.beta_start, self.config.beta_end)

    def _standardize(self, tokens: Array) -> jax.Array:
        return plain_norm(tokens) if self.config.standardize == "token" else super()._standardize(tokens)

    def _prototypes(self, x: Array) -> dict[str, Array]:
        extractors = {"local": self.local, "global": self.global_}
        return {name: extract(x) for name, extract in extractors.items() if extract is not None}

    def _known(self, features: Features) -> Known | None:
        """The remembered patches that each image is denoised by; None where there are none."""
        return None if self.nearby is None else self.nearby.retrieve(self._center(features.tokens))

    def _predict(
        self,
        x_t: Array,
        prototypes: Array | None,
        t: Array,
        alpha_bar: Array,
        known: Known | None,
        places: Array | None = None,
    ) -> jax.Array:
        """Noise or v [b n c] as `config.prediction` says: the denoiser's output, added to that in closed form."""
        denoiser: Any = self.denoiser
        where = () if places is None else (places,)
        if self.nearby is not None and self.guide is not None:
            # The denoiser sees the guess that it mends.
            guess = self.nearby(x_t, alpha_bar, known)
            noise = epsilon_from_clean(guess, x_t, alpha_bar)
            known_part = noise if self.config.prediction == "epsilon" else velocity(guess, noise, alpha_bar)
            return known_part + denoiser(x_t + self.guide(guess), prototypes, t, *where)
        output = denoiser(x_t, prototypes, t, *where)
        return output if self.linear is None else output + self.linear(x_t, alpha_bar, self.config.prediction)

    def _denoise(
        self, x: Array, prototypes: Array | None, known: Known | None, keys: Array, start: int, sign: Array | None
    ) -> jax.Array:
        """One reconstruction [b n c] from timestep `start`.

        `sign`, 1 or -1 of each image [b 1 1], multiplies noise wherever it is drawn; None for 1.
        """
        config, schedule = self.config, self._schedule

        def noise(keys: Array, like: Array) -> jax.Array:
            drawn: jax.Array = normal_per_image(keys, like.shape[1:])
            return drawn if sign is None else jnp.multiply(sign, drawn)

        token_keys, prototype_keys, step_keys = jnp.moveaxis(jax.vmap(lambda k: jax.random.split(k, 3))(keys), 1, 0)
        x_t = add_noise(x, noise(token_keys, x), schedule.alpha_bar_at(np.asarray(start)))

        def denoise(x_s, s):
            alpha_bar = schedule.alpha_bar_at(s)
            noisy = None
            if prototypes is not None:
                fresh = config.noise == "fresh"
                draw = jax.vmap(jax.random.fold_in, (0, None))(prototype_keys, s) if fresh else prototype_keys
                noisy = add_noise(prototypes, noise(draw, prototypes), alpha_bar)
            output = self._predict(x_s, noisy, s[None], alpha_bar, known)
            return output if config.prediction == "epsilon" else epsilon_from_velocity(output, x_s, alpha_bar)

        if config.sampler == "ddpm":
            return ddpm(denoise, x_t, schedule, start, step_keys, sign=sign)
        return ddim(denoise, x_t, schedule, ddim_timesteps(start, config.sampling_steps))


def _together(draws: int, images: int) -> int:
    """How many of the draws are denoised at once: a divisor of their number."""
    most = max(AT_ONCE // images, 1)
    return max(number for number in range(1, most + 1) if draws % number == 0)


def _concatenate(arrays: dict[str, Array]) -> jax.Array | None:
    return jnp.concatenate(list(arrays.values()), axis=1) if arrays else None
