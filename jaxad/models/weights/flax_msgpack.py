"""Flax checkpoints (msgpack), read by `flax.serialization`, under the names and in the layouts of torch.

Unlike the other formats, a file lies in memory as a whole while its tensors are used: flax reads no part of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np

from jaxad.models.weights.mapped_file import DTYPES, MappedFile, damaged

_KIND = "Flax msgpack"


def is_flax_msgpack(head: bytes) -> bool:
    """Whether a file that begins with these bytes may be in this format: a map that is not empty."""
    return bool(head) and (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF))


def read_flax_msgpack(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of a Flax msgpack file under the names that a torch file would have, in torch's layouts.

    Raises:
        WeightsError: the file is damaged or truncated, or a leaf is no array.
    """
    content: Any = MappedFile(file, _KIND).mapping()
    try:
        leaves = dict(_leaves(flax.serialization.msgpack_restore(content), ()))
    # Damaged msgpack can raise nearly anything.
    except Exception as error:
        raise damaged(file, _KIND, f"{type(error).__name__}: {error}") from error
    tensors = {}
    for path, leaf in leaves.items():
        if not isinstance(leaf, np.ndarray | np.generic) or leaf.dtype.name not in DTYPES:
            raise damaged(file, _KIND, f"{'/'.join(path)} is no array of numbers")
        name, to_torch = _torch_name(path)
        tensors[name] = to_torch(np.asarray(leaf))
    return tensors


def _leaves(tree: Any, path: tuple[str, ...]) -> Any:
    """Paths and leaves of nested maps."""
    if isinstance(tree, dict):
        for name, branch in tree.items():
            yield from _leaves(branch, (*path, str(name)))
    else:
        yield path, tree


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
