"""What the server counts, for Prometheus."""

from __future__ import annotations

from typing import Any

import jax.monitoring
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

PROGRAM = "/jax/core/compile/jaxpr_to_mlir_module_duration"
"""What JAX tells of when it makes a program for its compiler."""
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Numbers:
    """Counters of one server, in a registry of their own.

    Attributes:
        requests: for images, by status.
        verdicts: of images that were judged, by verdict.
        seconds: from a request's head to its answer.
        batches: images judged together.
        waiting: requests that are being read, decoded or judged.
        programs: that were compiled in this process meanwhile; there is no need for any.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        ProcessCollector(**own)
        self.requests = Counter("jaxad_requests", "Requests for images, by status of the answer", ["status"], **own)
        self.verdicts = Counter("jaxad_images", "Images judged, by verdict", ["verdict"], **own)
        self.seconds = Histogram("jaxad_request_seconds", "From request to answer", buckets=SECONDS, **own)
        self.batches = Histogram("jaxad_batch_images", "Images judged together", buckets=SIZES, **own)
        self.waiting = Gauge("jaxad_waiting_requests", "Requests being read, decoded or judged", **own)

        self.programs = Counter("jaxad_programs_compiled", "Programs compiled while serving", **own)
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def close(self) -> None:
        """Counts no more programs."""
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, *_: object, **__: object) -> None:
        if event == PROGRAM:
            self.programs.inc()

    def text(self) -> bytes:
        """All of them in Prometheus' format."""
        return generate_latest(self._registry)
