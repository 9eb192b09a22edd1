"""The platform that a program is made for, which need not be that of the process that makes it."""

from __future__ import annotations

from typing import Any

import jax


def target_platform() -> str:
    """Name of a platform, such as "cpu": that of the mesh that a program is traced for (`jaxad.parallel.on_mesh`).

    Where no program is traced yet, as when a detector is made, it is that of the devices that a mesh would be made of.
    """
    device: Any = jax.sharding.get_abstract_mesh().abstract_device
    return (jax.devices()[0] if device is None else device).platform
