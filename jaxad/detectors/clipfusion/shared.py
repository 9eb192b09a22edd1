"""What several CLIPFusion detectors need of the frozen networks for an image, computed once for all of them.

batch -> features of CLIP, once for each of its settings; latents; one pass of the UNet for each timestep and prompt
      -> the `Features` of each detector, whose `judge` fuses them as it always does
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion.detector import CLIPFusion
from jaxad.detectors.clipfusion.mapdiff import Call, chunked, joined
from jaxad.detectors.clipfusion.networks import FusionNetworks
from jaxad.detectors.clipfusion.prompts import reference_prompt, state_prompts
from jaxad.errors import ConfigError
from jaxad.types import Array, Batch, Features, View

Shared = dict[str, Any]
"""What the networks found: "clip", features by settings; "latents" [b h w 4]; "passes" [b p ...] of p prompts."""


def sharing_key(config: CLIPFusionConfig) -> dict[str, tuple[Any, ...]]:
    """What detectors must have in common to share features of images: their precision, and more for each model."""
    c = config
    keys = {
        "clip": (c.clip, c.clip_image_size, c.clip_resize),
        "diffusion": (c.diffusion, c.diffusion_tokenizer, c.image_size, c.latents, c.denoiser_input),
    }
    return {"precision": (c.precision,), **{model: keys[model] for model in config.models}}


class SharedFeatures:
    """The features of several detectors out of one look at an image.

    Args:
        detectors: of one precision and one `sharing_key` for each model, that remember the same categories.

    Raises:
        ConfigError: detectors that cannot share.
    """

    def __init__(self, detectors: Sequence[CLIPFusion]):
        self._detectors = tuple(detectors)
        keys = [sharing_key(detector.config) for detector in detectors]
        names = ("precision", "clip", "diffusion")
        unlike = [name for name in names if len({key[name] for key in keys if name in key}) > 1]
        if unlike or len({detector.categories for detector in detectors}) > 1:
            raise ConfigError(f"detectors share no features: other {', '.join(unlike) or 'categories'}")
        self._halves = [detector.mapdiff for detector in detectors]
        prompts: list[dict[str, np.ndarray]] = [{} for _ in detectors[0].categories]
        self._asked = [_asked(detector) for detector in detectors]
        self._places = [
            {name: _places(detector, name, prompts) for name in asked}
            for detector, asked in zip(detectors, self._asked, strict=True)
        ]
        self._call = joined(call for asked in self._asked for calls in asked.values() for call in calls)
        most = max(map(len, prompts))
        # Categories of fewer prompts are filled up with their last one.
        self._texts = np.array([[list(own.values())[min(i, len(own) - 1)] for i in range(most)] for own in prompts])

    @property
    def views(self) -> dict[str, View]:
        """Renderings of an image that some detector takes."""
        return {name: view for detector in self._detectors for name, view in detector.inputs.views.items()}

    @property
    def passes(self) -> int:
        """Passes of the UNet for an image."""
        return self._texts.shape[1] * len(self._call.timesteps)

    def encode(self, networks: FusionNetworks, batch: Batch) -> Shared:
        """All that the networks say of a batch; to be traced.

        Args:
            networks: of both models, or of those that judge.
            batch: with the views of all detectors and its categories.
        """
        found: Shared = {"clip": {}}
        for detector in self._detectors:
            if detector.patchclip and (name := _clip_name(detector.config)) not in found["clip"]:
                assert networks.vision is not None
                found["clip"][name] = detector.patchclip.features(networks.vision, batch.images["clip"])
        half = next((half for half in self._halves if half), None)
        if half is None:
            return found
        assert networks.vae is not None
        assert networks.unet is not None
        unet, call = networks.unet, self._call
        found["latents"] = half.latents(networks.vae, batch.images["diffusion"], batch.seed)
        pairs = {"latents": found["latents"]}
        if half.config.denoiser_input == "noised":
            pairs["noise"] = half.noise(found["latents"], batch.seed)
        texts = jnp.asarray(self._texts)[jnp.asarray(batch.category)]
        b, p = texts.shape[:2]
        pairs = {name: jnp.repeat(array, p, axis=0) for name, array in pairs.items()}
        pairs["text"] = texts.reshape(b * p, *texts.shape[2:])
        run = chunked(lambda pair: half.passes(unet, pair, pair["text"], [call]), pairs, half.fitting([call]))
        found["passes"] = {name: array.reshape(b, p, *array.shape[1:]) for name, array in run.items()}
        return found

    def features(self, number: int, shared: Shared, category: Array) -> Features:
        """What `judge` of a detector takes, from `encode` of the batch; to be traced.

        Args:
            number: of the detector.
            shared: from `encode`.
            category: int [b].
        """
        detector, extras, grid = self._detectors[number], {}, (1, 1)
        if detector.mapdiff:
            tokens, grid = shared["latents"], detector.mapdiff.grid
            for name, places in self._places[number].items():
                rows, wanted = jnp.asarray(places)[jnp.asarray(category)], joined(self._asked[number][name]).names
                extras[name] = {key: _taken(shared["passes"][key], rows) for key in wanted}
        if detector.patchclip:
            extras |= shared["clip"][_clip_name(detector.config)]
            tokens, grid = extras["patches"], detector.patchclip.grid
        return Features(tokens.reshape(len(category), -1, tokens.shape[-1]), grid, extras)


def _asked(detector: CLIPFusion) -> dict[str, list[Call]]:
    """The calls of the UNet that a detector makes, "passes" of its states and "reference_passes" for references."""
    config, half = detector.config, detector.mapdiff
    if half is None:
        return {}
    language, vision = "language" in config.modalities, "vision" in config.modalities and detector.few_shot
    own_prompt = config.vision_prompt == "reference"
    asked = {
        "passes": half.calls(language, vision and not own_prompt),
        "reference_passes": half.calls(False, vision and own_prompt),
    }
    return {name: calls for name, calls in asked.items() if calls}


def _places(detector: CLIPFusion, name: str, prompts: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """Where the prompts of those passes stand among all of each category, to which they are added: int [g s] or [g]."""

    def place(known: dict[str, np.ndarray], prompt: str, text: np.ndarray) -> int:
        known.setdefault(prompt, text)
        return list(known).index(prompt)

    rows, of_categories = [], zip(detector.categories, prompts, strict=True)
    if name == "reference_passes":
        texts = np.asarray(detector.reference[...])
        rows = [
            place(known, reference_prompt(category, detector.config), texts[number])
            for number, (category, known) in enumerate(of_categories)
        ]
        return np.array(rows, np.int32)
    for states, (category, known) in zip(np.asarray(detector.queries[...]), of_categories, strict=True):
        own = state_prompts(category, detector.config)
        # What fills up a category's states is its last one again.
        rows.append([place(known, own[min(i, len(own) - 1)], text) for i, text in enumerate(states)])
    return np.array(rows, np.int32)


def _clip_name(config: CLIPFusionConfig) -> str:
    """Names the settings that decide on `PatchCLIP.features`."""
    return repr((config.clip_map, config.vv_blocks, config.clip_blocks, config.clip_block_path, config.windows))


def _taken(array: jax.Array, rows: jax.Array) -> jax.Array:
    """Rows [b] or [b s] of each image's [p ...]."""
    return jax.vmap(lambda own, places: own[places])(array, rows)
