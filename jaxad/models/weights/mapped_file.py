"""Arrays in a file, mapped into memory when they are asked for and unmapped when they are let go."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxad.errors import WeightsError
from jaxad.io.untrusted import MEBIBYTE, MakeError, reading, shape_fault

_STANDARD = "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 complex128"
_SMALL = (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
DTYPES = {dtype.name: dtype for dtype in (np.dtype(kind) for kind in (*_STANDARD.split(), *_SMALL))}
"""Types of tensors that weight files hold, by name."""


ELSEWHERE = 64 * MEBIBYTE
"""Bytes beyond the size of a file that its tensors may show, of those that repeat elements and those of a few bytes."""


def damaged(file: Path, kind: str, why: object) -> WeightsError:
    """The error about a file that is not what it should be."""
    return WeightsError(f"{file}: damaged, truncated or no {kind} file ({why}); get it again")


def damage(file: Path, kind: str) -> MakeError:
    """`damaged` as a function of what is wrong, for `jaxad.io.untrusted.reading`."""
    return lambda why: damaged(file, kind, why)


class MappedFile:
    """A file, mapped while an array of it lives.

    Pages that were read count as memory of the process until they are unmapped. Arrays share one mapping, which ends
    with the last of them; whoever takes tensors one after the other therefore never holds the whole file.
    """

    def __init__(self, path: Path, kind: str):
        self.path, self.kind = path, kind
        with reading(damage(path, kind)):
            self.size = path.stat().st_size
        self._mapping: Callable[[], mmap.mmap | None] = lambda: None

    def array(
        self, offset: int, dtype: np.dtype, shape: Sequence[int], strides: Sequence[int] | None = None
    ) -> np.ndarray:
        """The array whose first element lies at byte `offset`; read-only.

        Args:
            offset: position in the file in bytes.
            dtype: type of the elements.
            shape: lengths of the axes.
            strides: steps along the axes in elements; None for the usual order, last axis fastest.

        Raises:
            WeightsError: the array does not lie within the file, or shows more than the file can hold.
        """
        if fault := shape_fault(shape, dtype.itemsize, self.size + ELSEWHERE):
            raise damaged(self.path, self.kind, fault)
        if math.prod(shape) == 0:
            return np.zeros(shape, dtype)
        if strides is None:
            extent = math.prod(shape)
        else:
            extent = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        negative = min((offset, *shape, *(strides or ()))) < 0
        if negative or offset + extent * dtype.itemsize > self.size:
            raise damaged(self.path, self.kind, f"needs {offset + extent * dtype.itemsize} bytes, has {self.size}")
        flat = np.frombuffer(self.mapping(), np.uint8, extent * dtype.itemsize, offset).view(dtype)
        if strides is None:
            return flat.reshape(shape)
        steps = [stride * dtype.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)

    def bytes(self, offset: int, count: int) -> bytes:
        """A copy of so many bytes at `offset`.

        Raises:
            WeightsError: they do not lie within the file.
        """
        return self.array(offset, np.dtype(np.uint8), (count,)).tobytes()

    def mapping(self) -> mmap.mmap:
        """The whole file; keep it no longer than needed."""
        mapping = self._mapping()
        if mapping is None:
            with reading(damage(self.path, self.kind)), self.path.open("rb") as stream:
                mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            if len(mapping) < self.size:
                raise damaged(self.path, self.kind, f"has {len(mapping)} bytes now, had {self.size}")
            self._mapping = weakref.ref(mapping)
        return mapping


class LazyTensors(Mapping[str, np.ndarray]):
    """Tensors by name, each made when it is asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]):
        self.makers = makers

    def __getitem__(self, name: str) -> np.ndarray:
        return self.makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)

    def __contains__(self, name: Any) -> bool:
        return name in self.makers


class RenamedTensors(Mapping[str, np.ndarray]):
    """Some tensors of a mapping under other names."""

    def __init__(self, tensors: Mapping[str, np.ndarray], originals: Mapping[str, str]):
        self.tensors, self.originals = tensors, originals

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[self.originals[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.originals)

    def __len__(self) -> int:
        return len(self.originals)

    def __contains__(self, name: Any) -> bool:
        return name in self.originals
