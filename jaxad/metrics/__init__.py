"""Metrics of anomaly detection: exact for images, streaming and mergeable for pixels, under a named protocol."""

from jaxad.metrics.classes import ClassMetrics, MetricRules, summarize
from jaxad.metrics.names import IMAGE_METRICS, LABELS, METRICS, PIXEL_METRICS
from jaxad.metrics.protocols import PROTOCOLS, Protocol, protocol

__all__ = [
    "IMAGE_METRICS",
    "LABELS",
    "METRICS",
    "PIXEL_METRICS",
    "PROTOCOLS",
    "ClassMetrics",
    "MetricRules",
    "Protocol",
    "protocol",
    "summarize",
]
