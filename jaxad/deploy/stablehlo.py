"""StableHLO by `jax.export`: one file for every platform that a program can be lowered for, of any number of images."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import export as jax_export

from jaxad.deploy.program import Program
from jaxad.errors import ConfigError
from jaxad.io.foreign import raise_explained

PLATFORMS = ("cpu", "cuda", "tpu")
_CHECKS = (jax_export.DisabledSafetyCheck.custom_call("__cudnn$fmhaSoftmax"),)
"""Kernels of cuDNN keep no promise to be there in later versions; whoever has none runs the program on a CPU."""


def to_stablehlo(program: Program, platforms: Sequence[str] = PLATFORMS) -> tuple[bytes, dict[str, str]]:
    """A program as `jax.export.deserialize` takes it; its arguments are the arrays by path, then `program.inputs`.

    Args:
        program: what to export.
        platforms: those wanted, of `PLATFORMS`.

    Returns:
        The serialized program, for all platforms that it can be lowered for, and by platform why it cannot for others.

    Raises:
        ConfigError: it can be lowered for none of them; says why.
    """
    refused: dict[str, str] = {}
    try:
        return _exported(program, platforms), refused
    except Exception as error:
        raise_explained(error)
        refused = {platforms[0]: _reason(error)}
    if len(platforms) > 1:
        refused = {platform: fault for platform in platforms if (fault := _fault(program, platform))}
    if good := [platform for platform in platforms if platform not in refused]:
        return _exported(program, good), refused
    listing = "\n".join(f"  {platform}: {fault}" for platform, fault in refused.items())
    raise ConfigError(f"{program.detector.title} cannot be written as StableHLO:\n{listing}")


def _exported(program: Program, platforms: Sequence[str]) -> bytes:
    names = tuple(one.name for one in program.inputs)
    (images,) = jax_export.symbolic_shape("b")
    arrays = {path: jax.ShapeDtypeStruct(np.shape(a), a.dtype) for path, a in program.arrays.items()}
    inputs = [jax.ShapeDtypeStruct((images, *one.shape), one.dtype) for one in program.inputs]
    exporting = jax_export.export(jax.jit(program.batched(names)), platforms=platforms, disabled_checks=_CHECKS)
    return bytes(exporting(arrays, *inputs).serialize())


def _fault(program: Program, platform: str) -> str:
    try:
        _exported(program, [platform])
    except Exception as error:
        raise_explained(error)
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
