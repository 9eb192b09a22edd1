"""Metrics of anomaly detection: exact for images, streaming and mergeable for pixels, under a named protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxad.metrics.names import IMAGE_METRICS, LABELS, METRICS, PIXEL_METRICS
from jaxad.metrics.protocols import Protocol, Smoothing, protocol, protocol_names, register_protocol
from jaxad.metrics.rules import AuproGrid, MetricRules

if TYPE_CHECKING:
    from jaxad.metrics.classes import ClassMetrics, ClassResults, summarize

__all__ = [
    "IMAGE_METRICS",
    "LABELS",
    "METRICS",
    "PIXEL_METRICS",
    "AuproGrid",
    "ClassMetrics",
    "ClassResults",
    "MetricRules",
    "Protocol",
    "Smoothing",
    "protocol",
    "protocol_names",
    "register_protocol",
    "summarize",
]


def __getattr__(name: str) -> Any:
    # What needs numpy, scipy and cv2 comes when it is asked for: the command line only wants names.
    if name not in ("ClassMetrics", "ClassResults", "summarize"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxad.metrics import classes

    return getattr(classes, name)
