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
        from jaxad.detectors.dpdiff.detector import DPDiff

        return DPDiff
    if name == "patch-bank":
        from jaxad.detectors.patch_bank import PatchBank

        return PatchBank
    if name == "clipfusion":
        from jaxad.detectors.clipfusion.detector import CLIPFusion

        return CLIPFusion
    if name == "vlmdiff":
        from jaxad.detectors.vlmdiff.detector import VLMDiff

        return VLMDiff
    raise ConfigError(f"system {name!r}: jaxad has {', '.join(NAMES)}")
