"""The detectors. `system(name)` is the one place where a name becomes a class."""

from __future__ import annotations

from typing import Any

from jaxad.errors import ConfigError

NAMES = ("dpdiff", "patch-bank", "clipfusion", "vlmdiff")


def system(name: str) -> Any:
    """The detector class of that name, e.g. "dpdiff".

    Raises:
        ConfigError: no such system.
    """
    if name == "dpdiff":
        from jaxad.systems.dpdiff import DPDiff

        return DPDiff
    if name == "patch-bank":
        from jaxad.systems.patch_bank import PatchBank

        return PatchBank
    if name == "clipfusion":
        from jaxad.systems.clipfusion import CLIPFusion

        return CLIPFusion
    if name == "vlmdiff":
        from jaxad.systems.vlmdiff import VLMDiff

        return VLMDiff
    raise ConfigError(f"system {name!r}: jaxad has {', '.join(NAMES)}")
