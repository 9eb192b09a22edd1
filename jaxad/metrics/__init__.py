"""Metrics of anomaly detection: exact for images, streaming and mergeable for pixels, under a named protocol."""

from jaxad.metrics.classes import METRICS, ClassMetrics, MetricRules, summarise
from jaxad.metrics.protocols import PROTOCOLS, Protocol, protocol

__all__ = ["METRICS", "PROTOCOLS", "ClassMetrics", "MetricRules", "Protocol", "protocol", "summarise"]
