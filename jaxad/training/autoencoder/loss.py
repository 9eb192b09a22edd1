"""The loss of autoencoder finetuning: absolute error, LPIPS, divergence, and an adversary of adaptive weight.

With x the image, y its reconstruction from a sampled posterior q, D the discriminator and k the kernel of the decoder's
last convolution:

    nll       = sum over pixels of |x - y| + w_p LPIPS(x, y), mean over images
    generator = -mean D(y)
    adaptive  = w_g min(|d nll / d k| / (|d generator / d k| + 1e-4), 1e4)
    autoencoder:    nll + w_kl KL(q || N(0, 1)) + adaptive generator
    discriminator:  (mean relu(1 - D(x)) + mean relu(1 + D(y))) / 2

The adversary counts after `discriminator_start` steps (VQGAN, arXiv 2012.09841, Eq. 7). LPIPS is added to the
error of every value of the image, as the published code does; its logvar, fixed at 0, changes nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxad.config import FirstStageConfig
from jaxad.nn import module_state
from jaxad.types import Array

AUTOENCODER, DISCRIMINATOR, LPIPS = "autoencoder", "discriminator", "lpips"
"""Names of the networks, before the paths of their arrays."""

LAST = f"{AUTOENCODER}/decoder/conv_out"
"""The decoder's last convolution."""
LARGEST_WEIGHT = 1e4

Arrays = Mapping[str, jax.Array]


def adaptive_weight(nll_gradient: Array, generator_gradient: Array, weight: float) -> jax.Array:
    """Weight of the generator's loss, a scalar, from both gradients of the last kernel."""
    ratio = jnp.linalg.norm(jnp.ravel(nll_gradient)) / (jnp.linalg.norm(jnp.ravel(generator_gradient)) + 1e-4)
    return weight * jnp.minimum(ratio, LARGEST_WEIGHT)


def hinge_loss(real: Array, fake: Array) -> jax.Array:
    """The discriminator's loss, a scalar, of its logits for images and for reconstructions."""
    return 0.5 * (jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean())


class AutoencoderLoss:
    """Terms of the loss and their gradients, in one backward pass through the autoencoder.

    Args:
        graphdefs: structure of each network that takes part, by name: "autoencoder", and maybe "lpips" and
            "discriminator".
        config: weights of the terms.
    """

    def __init__(self, graphdefs: Mapping[str, Any], config: FirstStageConfig):
        self._graphdefs, self._config = graphdefs, config

    def __call__(
        self, arrays: Arrays, images: jax.Array, key: jax.Array, active: Array
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """One batch.

        Args:
            arrays: of all networks, by name and path.
            images: float32 [b h w 3], normalized.
            key: from which the posterior is sampled.
            active: 1.0 where the adversary counts, else 0.0.

        Returns:
            Metrics (scalars), and the gradients of all trained arrays.
        """
        last, body = module_state.select(module_state.select(arrays, (AUTOENCODER,))[0], (LAST,))

        def features(body: Arrays) -> tuple[jax.Array, jax.Array]:
            autoencoder = self._network(AUTOENCODER, {**body, **last})
            moments = autoencoder.encode(images)
            latents = autoencoder.post_quant_conv(moments.sample(key))
            return autoencoder.decoder.features(latents), moments.kl().mean()

        def paint(last: Arrays, features: jax.Array) -> jax.Array:
            return self._network(AUTOENCODER, {**body, **last}).decoder.conv_out(features)

        # In two steps: the adaptive weight needs gradients of the last convolution alone.
        (drawn, kl), back_through_body = jax.vjp(features, body)
        fakes, back_through_last = jax.vjp(paint, last, drawn)
        (nll, metrics), slope = jax.value_and_grad(self._nll(arrays, images), has_aux=True)(fakes)
        loss, gradients = nll + self._config.kl_weight * kl, {}
        if DISCRIMINATOR in self._graphdefs:
            judges, _ = module_state.select(arrays, (DISCRIMINATOR,))

            def judged(judges: Arrays) -> jax.Array:
                discriminator = self._network(DISCRIMINATOR, judges)
                return hinge_loss(discriminator(images), discriminator(fakes))

            def generator_loss(fakes: jax.Array) -> jax.Array:
                return -self._network(DISCRIMINATOR, judges)(fakes).mean()

            generator, generator_slope = jax.value_and_grad(generator_loss)(fakes)
            ours, theirs = (back_through_last(each)[0][f"{LAST}/kernel"] for each in (slope, generator_slope))
            weight = adaptive_weight(ours, theirs, self._config.discriminator_weight)
            loss, slope = loss + active * weight * generator, slope + active * weight * generator_slope
            judgement, gradients = jax.value_and_grad(judged)(judges)
            gradients = jax.tree.map(lambda gradient: active * gradient, gradients)
            metrics |= {"generator": generator, "discriminator": judgement, "adaptive_weight": weight}
        of_last, of_features = back_through_last(slope)
        (of_body,) = back_through_body((of_features, jnp.full_like(kl, self._config.kl_weight)))
        gradients = {**gradients, **of_last, **of_body}
        metrics = {"loss": loss, **metrics, "kl": kl, "gradient_norm": optax.tree.norm(gradients)}
        return metrics, gradients

    def _nll(self, arrays: Arrays, images: jax.Array) -> Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
        def nll(fakes: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            values, weight = images[0].size, self._config.perceptual_weight
            error = jnp.abs(images - fakes).mean()
            if LPIPS not in self._graphdefs:
                return values * error, {"absolute_error": error}
            distance = self._network(LPIPS, arrays)(images, fakes).mean()
            return values * (error + weight * distance), {"absolute_error": error, "lpips": distance}

        return nll

    def _network(self, name: str, arrays: Arrays) -> Any:
        below, _ = module_state.select(arrays, (name,))
        own = {path.removeprefix(f"{name}/"): array for path, array in below.items()}
        return module_state.merge(self._graphdefs[name], own)
