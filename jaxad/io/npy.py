"""Arrays in .npy files, mapped into memory."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxad.io.untrusted import MakeError, reading


def map_npy(file: Path, dtype: np.dtype, row: Sequence[int], error: MakeError) -> np.ndarray:
    """The array in a .npy file, read-only, whose rows must be as expected; nothing of it is read yet.

    Args:
        file: as `numpy.lib.format` writes it; pickles and archives of arrays are none.
        dtype: type of its elements.
        row: shape behind its first axis.
        error: makes the error about it.

    Raises:
        JaxadError: as `error` makes it.
    """
    with reading(error):
        # Opening a named pipe would wait for ever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise error("not a regular file")
        array = np.lib.format.open_memmap(file, mode="r")
        if array.dtype != dtype or array.shape[1:] != tuple(row) or not array.ndim:
            raise error(f"holds {array.dtype} {list(array.shape)}, must be {dtype} [n {' '.join(map(str, row))}]")
    return array
