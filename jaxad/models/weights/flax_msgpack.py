"""Flax checkpoints (msgpack) under the names and in the layouts of torch.

The format, as `flax.serialization` writes it: maps within maps, whose leaves are extensions. Extension 1 is an array,
itself an array of msgpack: shape, name of the dtype, bytes; 3 is the same of one number. An array too long for msgpack
is a map of `_CHUNKED`, its shape and its chunks, the latter two as maps from "0". flax's own reader follows whatever
nests, and allocates what is declared.

Unlike the other formats, a file lies in memory as a whole while its tensors are used: msgpack reads no part of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from jaxad.io.untrusted import AXES, reading, shape_fault
from jaxad.models.weights.mapped_file import DTYPES, MappedFile, damage, damaged

_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"
_DEPTH = 64
"""Maps within each other."""
_ENTRIES = 200_000
"""Of one map, and arrays in all."""
_KIND = "Flax msgpack"


def is_flax_msgpack(head: bytes) -> bool:
    """Whether a file that begins with these bytes may be in this format: a map that is not empty."""
    return bool(head) and (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF))


def read_flax_msgpack(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of a Flax msgpack file under the names that a torch file would have, in torch's layouts.

    Raises:
        WeightsError: the file is damaged or truncated, or a leaf is no array.
    """
    tensors = {}
    with reading(damage(file, _KIND)):
        content = _unpacked(MappedFile(file, _KIND).mapping())
        for path, leaf in _leaves(content, ()):
            where = "/".join(path) or "the file"
            with reading(lambda said, where=where: damaged(file, _KIND, f"{where}: {said}")):
                array = _joined(leaf) if isinstance(leaf, dict) else _array(leaf)
            if array is None or not path:
                raise damaged(file, _KIND, f"{where} is no array of numbers")
            name, to_torch = _torch_name(path)
            if len(tensors) == _ENTRIES:
                raise damaged(file, _KIND, f"more than {_ENTRIES:,} arrays")
            if name in tensors:
                raise damaged(file, _KIND, f"{where}: there is another {name}")
            tensors[name] = to_torch(array)
    return tensors


def _unpacked(content: Any, **options: Any) -> Any:
    """What was packed, extensions as they are."""
    limits = {"max_array_len": AXES, "max_map_len": _ENTRIES}
    return msgpack.unpackb(content, strict_map_key=False, **limits, **options)


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and leaves of nested maps."""
    if len(path) > _DEPTH:
        raise ValueError(f"more than {_DEPTH} maps within each other")
    if isinstance(tree, dict) and _CHUNKED not in tree:
        for name, branch in tree.items():
            yield from _leaves(branch, (*path, str(name)))
    else:
        yield path, tree


def _array(leaf: Any) -> np.ndarray | None:
    """The array that an extension holds, None for what is none."""
    if not isinstance(leaf, msgpack.ExtType) or leaf.code not in (_ARRAY, _SCALAR):
        return None
    shape, name, data = _unpacked(leaf.data, raw=True)
    dtype = DTYPES.get(name.decode())
    return None if dtype is None else _shaped(np.frombuffer(data, dtype), shape)


def _joined(tree: Mapping[str, Any]) -> np.ndarray:
    """An array that was cut into chunks."""
    shape, chunks = ([tree[part][str(number)] for number in range(len(tree[part]))] for part in ("shape", "chunks"))
    return _shaped(np.concatenate([_flat(_array(chunk)) for chunk in chunks]), shape)


def _flat(chunk: np.ndarray | None) -> np.ndarray:
    if chunk is None or chunk.ndim != 1:
        raise ValueError("a chunk that is no array of one axis")
    return chunk


def _shaped(flat: np.ndarray, shape: Any) -> np.ndarray:
    if fault := shape_fault(shape, flat.itemsize, flat.nbytes):
        raise ValueError(fault)
    return flat.reshape(shape)


def _torch_name(path: tuple[str, ...]) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The name that torch would give to the array at `path`, and how torch lays it out."""
    statistics = path[0] == "batch_stats"
    if path[0] in ("params", "batch_stats"):
        path = path[1:] or path
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
