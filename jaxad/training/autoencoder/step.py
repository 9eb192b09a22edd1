"""One optimizer step of an autoencoder, and maybe of a discriminator against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.config import FirstStageConfig, FirstStageTrainConfig
from jaxad.models.stable_diffusion.autoencoder_kl import AutoencoderKL
from jaxad.nn import module_state
from jaxad.nn.normalization import IMAGENET, INCEPTION, Normalization
from jaxad.training.autoencoder.loss import AUTOENCODER, LPIPS, AutoencoderLoss
from jaxad.training.step import TrainState, accumulated


class AutoencoderTrainer:
    """Trains an autoencoder, and maybe a discriminator against it.

    The published training has an Adam for each network, with the same settings; Adam treats every parameter by itself,
    so that one for both is the same. It judges a second reconstruction to train the discriminator, made after the
    autoencoder's step; here both are trained on one, which saves a pass through the autoencoder.

    Args:
        networks: by name: "autoencoder", "lpips" for a perceptual loss, "discriminator" for an adversarial one.
        config: weights of the loss, range of the pixels.
        train: optimizer and accumulation.
        mesh: devices.
    """

    def __init__(self, networks: Mapping[str, Any], config: FirstStageConfig, train: FirstStageTrainConfig, mesh: Mesh):
        self.config, self.train, self._mesh = config, train, mesh
        self._optimizer = optax.adam(train.rate, *train.betas)
        self._graphdefs, arrays = {}, {}
        for name, network in networks.items():
            self._graphdefs[name], own = module_state.split(network)
            arrays |= {f"{name}/{path}": array for path, array in own.items()}
        self._loss = AutoencoderLoss(self._graphdefs, config)
        fixed, self._params = module_state.select(arrays, (LPIPS,))
        self._fixed = parallel.shard_parameters(fixed, mesh)
        # Left to the compiler, the state would come out of a step in another layout than it went in.
        self.abstract_state = parallel.shard_parameters(jax.eval_shape(self._first_state, self._params), mesh)
        self._sharding = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        outputs = (self._sharding, parallel.replicated(mesh))
        self._step = jax.jit(parallel.on_mesh(self._compiled_step, mesh), donate_argnums=0, out_shardings=outputs)

    def init(self) -> TrainState:
        """State before the first step, on the mesh."""
        params = parallel.shard_parameters(self._params, self._mesh)
        return jax.jit(self._first_state, out_shardings=self._sharding)(params)

    def step(self, state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Mapping[str, jax.Array]]:
        """`batch`: uint8 [n h w 3], n images of all accumulated batches. Donates `state`."""
        return self._step(state, self._fixed, parallel.shard_batch(batch, self._mesh), key)

    def trace(self, batch: Any) -> jax.stages.Traced:
        """The step for a batch of such shapes, not yet compiled; networks without arrays will do."""
        batch = parallel.shard_batch(batch, self._mesh)
        return self._step.trace(self.abstract_state, self._fixed, batch, jax.random.key(0))

    def autoencoder(self, state: TrainState) -> AutoencoderKL:
        """The autoencoder as trained so far, in every process."""
        own, _ = module_state.select(state.params, (AUTOENCODER,))
        arrays = {path.removeprefix(f"{AUTOENCODER}/"): array for path, array in parallel.to_host(own).items()}
        return module_state.merge(self._graphdefs[AUTOENCODER], arrays)

    def _first_state(self, params: Mapping[str, jax.Array]) -> TrainState:
        # Steps donate the state, so that it must share no buffer with the networks.
        params = {path: jnp.copy(array) for path, array in params.items()}
        return TrainState(params, self._optimizer.init(params), None, jnp.int32(0))

    def _compiled_step(self, state: TrainState, fixed: Mapping[str, jax.Array], images: jax.Array, key: jax.Array):
        active = (state.step >= self.config.discriminator_start).astype(jnp.float32)

        def differentiate(params: Mapping[str, jax.Array], images: jax.Array, key: jax.Array):
            return self._loss({**params, **fixed}, normalized(images, self.config), key, active)

        metrics, gradients = accumulated(differentiate, self.train.accumulate, state.params, images, key)
        updates, opt_state = self._optimizer.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, None, state.step + 1), metrics


def normalized(images: Any, config: FirstStageConfig) -> jax.Array:
    """uint8 [b h w 3] in the range that the autoencoder is trained on, float32."""
    return normalization_of(config)(images)


def normalization_of(config: FirstStageConfig) -> Normalization:
    """The range of pixels that the autoencoder is trained on."""
    return IMAGENET if config.pixels == "imagenet" else INCEPTION
