"""The compute type of networks (DESIGN 4.4); parameters, norms, softmax, schedules and metrics stay float32."""

from __future__ import annotations

import jax

from jaxad.config import Precision


def compute_dtype(precision: Precision) -> str:
    """ "float32" or "bfloat16"; "auto" is float32 on CPU and bfloat16 on GPU and TPU."""
    if precision != "auto":
        return precision
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
