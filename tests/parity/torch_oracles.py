"""Lets torchvision, timm, open_clip and diffusers be imported beside a CPU build of torch.

Torchvision has no CPU wheel everywhere, and importing its pure-Python part asks torch for operators that only its
compiled part declares. They are declared here, without implementations: classification networks and transforms, all
that parity tests use, never call them. Import this module before any of those libraries, and before models of
transformers.
"""

from __future__ import annotations

import importlib.util

import torch

OPERATORS = [
    f"{prefix}{name}{suffix}"
    for name in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")
    for prefix, suffix in (("", ""), ("_", "_backward"))
] + ["nms", "qnms", "qroi_align"]


def _declare() -> torch.library.Library | None:
    if importlib.util.find_spec("torchvision") is None or torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        library.define(f"{name}(Tensor x) -> Tensor")
    return library


# Operators live as long as the library object does.
LIBRARY = _declare()
