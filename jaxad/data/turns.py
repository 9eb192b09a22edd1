"""Large images one at a time, so that memory is bounded by one of them and not by one for each thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from PIL import Image

if "PILLOW_BLOCK_SIZE" not in os.environ:
    # Pillow allocates by blocks of 16 MB, which the C library keeps for each thread when they are free; larger ones it
    # gives back to the system.
    Image.core.set_block_size(2**27)

LARGE = 2**24
"""Pixels of a large image; decoding takes several times their size."""
LARGE_FILE = 2**26
"""Bytes of a large file."""

_turn = threading.RLock()
_here = threading.local()


@contextmanager
def large_images_in_turn() -> Iterator[None]:
    """A context in which a large image, once it is read or decoded, keeps other threads from the next one.

    For work that would hold one in every thread. Without it a turn ends with the decoding itself.
    """
    with ExitStack() as stack:
        _here.stack = stack
        try:
            yield
        finally:
            _here.stack = None


def take_turn(own: ExitStack | None = None) -> None:
    """Waits for other threads to end theirs; the turn lasts until the context around ends, or else `own`."""
    stack = getattr(_here, "stack", None) or own
    if stack is not None:
        stack.enter_context(_turn)
