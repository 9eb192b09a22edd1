"""Activations computed again for the gradient instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def rematerialized(layer: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """`layer` itself, or if `remat` one whose activations are computed again for the gradient (jax.checkpoint)."""
    return jax.checkpoint(lambda *arrays: layer(*arrays)) if remat else layer
