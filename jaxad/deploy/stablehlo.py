"""StableHLO by `jax.export`: one program for each platform, of any number of images.

One for all platforms would lower the kernels of each of them for the others too, which Pallas refuses.
"""

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
"""cuDNN's attention has no promise that later versions of XLA know it."""


def to_stablehlo(program: Program, platforms: Sequence[str] = PLATFORMS) -> tuple[dict[str, bytes], dict[str, str]]:
    """A program as `jax.export.deserialize` takes it; its arguments are the arrays by path, then `program.inputs`.

    Args:
        program: what to export.
        platforms: those wanted, of `PLATFORMS`.

    Returns:
        The serialized programs by platform, and by platform why it cannot be lowered for others.

    Raises:
        ConfigError: it can be lowered for none of them; says why.
    """
    (images,) = jax_export.symbolic_shape("b")
    arrays = {path: jax.ShapeDtypeStruct(np.shape(a), a.dtype) for path, a in program.arrays.items()}
    inputs = [jax.ShapeDtypeStruct((images, *one.shape), one.dtype) for one in program.inputs]
    judge = jax.jit(program.batched(tuple(one.name for one in program.inputs)))
    found: dict[str, bytes] = {}
    refused: dict[str, str] = {}
    for platform in platforms:
        try:
            exported = jax_export.export(judge, platforms=[platform], disabled_checks=_CHECKS)(arrays, *inputs)
            found[platform] = bytes(exported.serialize())
        except Exception as error:
            raise_explained(error)
            refused[platform] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    if not found:
        listing = "\n".join(f"  {platform}: {fault}" for platform, fault in refused.items())
        raise ConfigError(f"{program.detector.title} cannot be written as StableHLO:\n{listing}")
    return found, refused
