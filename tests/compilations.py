"""How many programs JAX compiles, or takes from its cache on disk."""

from collections import Counter
from contextlib import contextmanager

import jax.monitoring

_PROGRAM = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@contextmanager
def counted():
    """Counts, while it lasts, `programs` made for the compiler, and `hits` and `misses` of the cache on disk."""
    counts = Counter()

    def on_event(event, **_):
        if event.startswith("/jax/compilation_cache/cache_"):
            counts[event.rpartition("_")[2]] += 1

    def on_duration(event, *_, **__):
        counts["programs"] += event == _PROGRAM

    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_listener(on_event)
        jax.monitoring.unregister_event_duration_listener(on_duration)
