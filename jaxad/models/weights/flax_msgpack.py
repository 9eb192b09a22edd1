"""Flax checkpoints (`flax.serialization`, msgpack), read by memory mapping under the names and layouts of torch.

SPEC 6.7. A file is one msgpack map of maps; its leaves are arrays in extension type 1, scalars in type 3, which hold a
msgpack list of shape, name of the dtype, and bytes. Arrays above 1 GB are cut into chunks.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.models.weights.mapped_file import DTYPES, LazyTensors, MappedFile, damaged

KIND = "Flax msgpack"
DEEPEST = 64

_ARRAYS = (1, 3)
_CHUNKED = "__msgpack_chunked_array__"
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
# First byte -> bytes of the length that follows.
_BINARY = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSION = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_LIST = {0xDC: 2, 0xDD: 4}
_MAP = {0xDE: 2, 0xDF: 4}
_FIXED_EXTENSION = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}

Maker = Callable[[], np.ndarray]


def is_flax_msgpack(head: bytes) -> bool:
    """Whether a file that begins with these bytes may be in this format: a map that is not empty."""
    return bool(head) and (0x81 <= head[0] <= 0x8F or head[0] in _MAP)


def read_flax_msgpack(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of a Flax msgpack file under the names that a torch file would have, in torch's layouts.

    Raises:
        WeightsError: the file is damaged or truncated, or a leaf is no array.
    """
    mapped = MappedFile(file, KIND)
    reader = _Reader(mapped)
    leaves: dict[tuple[str, ...], Maker] = {}
    try:
        _flatten(reader.value(), (), leaves)
        if reader.position != mapped.size:
            raise ValueError(f"{mapped.size - reader.position} bytes too many")
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(file, KIND, f"at byte {reader.position}: {error}") from error
    makers: dict[str, Maker] = {}
    for path, maker in leaves.items():
        name, to_torch = _torch_name(path)
        makers[name] = functools.partial(_converted, maker, to_torch)
    return LazyTensors(makers)


def _converted(maker: Maker, to_torch: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return to_torch(maker())


def _flatten(tree: Any, path: tuple[str, ...], leaves: dict[tuple[str, ...], Maker]) -> None:
    if isinstance(tree, functools.partial):
        leaves[path] = tree
    elif isinstance(tree, dict) and tree.get(_CHUNKED):
        shape = tuple(tree["shape"][str(axis)] for axis in range(len(tree["shape"])))
        chunks = [tree["chunks"][str(number)] for number in range(len(tree["chunks"]))]
        leaves[path] = functools.partial(_joined, chunks, shape)
    elif isinstance(tree, dict) and len(path) < DEEPEST:
        for name, branch in tree.items():
            _flatten(branch, (*path, str(name)), leaves)
    else:
        raise ValueError(f"{'/'.join(path) or 'the whole'} is no array")


def _joined(chunks: list[Maker], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([chunk().reshape(-1) for chunk in chunks]).reshape(shape)


def _torch_name(path: tuple[str, ...]) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The name that torch would give to the array at `path`, and how torch lays it out."""
    statistics = path[0] == "batch_stats"
    if path[0] in ("params", "batch_stats"):
        path = path[1:]
    # Diffusers joins a list and a number in it by "_"; its lists have plural names, but for these two.
    *parents, leaf = (re.sub(r"^(\w*s|to_out|net)_(\d+)$", r"\1.\2", part) for part in path)
    renamed = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    if statistics:
        renamed = {"mean": "running_mean", "var": "running_var"}
    return ".".join([*parents, renamed.get(leaf, leaf)]), _kernel_to_torch if leaf == "kernel" else _as_it_is


def _as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def _kernel_to_torch(kernel: np.ndarray) -> np.ndarray:
    """[... i o] to [o i ...]: linear layers and convolutions."""
    return kernel.transpose(-1, -2, *range(kernel.ndim - 2)) if kernel.ndim > 1 else kernel


class _Reader:
    """Walks through msgpack; arrays become functions that map them."""

    def __init__(self, mapped: MappedFile, position: int = 0):
        self.mapped, self.buffer, self.position = mapped, mapped.mapping(), position

    def value(self, depth: int = 0) -> Any:
        """The value at `position`, which moves behind it."""
        if depth > DEEPEST:
            raise ValueError("nested too deep")
        code = self.take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return struct.unpack(_NUMBERS[code], self.take(struct.calcsize(_NUMBERS[code])))[0]
        if code < 0x90 or code in _MAP:
            count = self.length(_MAP[code]) if code in _MAP else code & 0x0F
            return {self.value(depth + 1): self.value(depth + 1) for _ in range(count)}
        if code < 0xA0 or code in _LIST:
            count = self.length(_LIST[code]) if code in _LIST else code & 0x0F
            return [self.value(depth + 1) for _ in range(count)]
        if code < 0xC0 or code in _TEXT:
            return self.take(self.length(_TEXT[code]) if code in _TEXT else code & 0x1F).decode()
        if code in _BINARY:
            return self.take(self.length(_BINARY[code]))
        if code in _EXTENSION or code in _FIXED_EXTENSION:
            length = self.length(_EXTENSION[code]) if code in _EXTENSION else _FIXED_EXTENSION[code]
            return self.array(length)
        raise ValueError(f"unknown byte {code:#x}")

    def array(self, length: int) -> Maker:
        """What maps the array of which the extension, `length` bytes after its type, is at `position`."""
        kind, end = self.take(1)[0], self.position + length
        if kind not in _ARRAYS:
            raise ValueError(f"extension type {kind}, which is no array")
        if end > self.mapped.size:
            raise ValueError(f"an array ends at byte {end} of {self.mapped.size}")
        items = self.take(1)[0]
        shape, dtype_name = self.value(), self.value()
        dtype = DTYPES.get(dtype_name.decode() if isinstance(dtype_name, bytes) else dtype_name)
        code = self.take(1)[0]
        if items != 0x93 or dtype is None or code not in _BINARY:
            raise ValueError(f"an array of {dtype_name!r}")
        count = self.length(_BINARY[code])
        if self.position + count != end or math.prod(shape) * dtype.itemsize != count:
            raise ValueError(f"{count} bytes for {dtype.name} {shape}")
        start, self.position = self.position, end
        return functools.partial(self.mapped.array, start, dtype, tuple(shape))

    def length(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def take(self, count: int) -> bytes:
        taken = self.buffer[self.position : self.position + count]
        if len(taken) < count:
            raise ValueError("the file ends too early")
        self.position += count
        return taken
