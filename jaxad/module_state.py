"""Module state as one flat dict "a/b/0/kernel" -> array: the form in which it leaves a program (DESIGN 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import nnx

FlatState = dict[str, Any]


def split(module: nnx.Module) -> tuple[nnx.GraphDef, FlatState]:
    """The module's structure, and its arrays by path in the order of the paths.

    Modules here hold no random-number state: dropout-free networks take explicit keys.
    """
    graphdef, state = nnx.split(module)
    return graphdef, {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def merge(graphdef: nnx.GraphDef, arrays: Mapping[str, Any]) -> Any:
    """The module with that structure and those arrays; the inverse of `split`, usable inside jit."""
    nested: dict[Any, Any] = {}
    for path, array in arrays.items():
        *parents, leaf = (int(part) if part.isdigit() else part for part in path.split("/"))
        node = nested
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = array
    return nnx.merge(graphdef, nnx.State(nested))


def select(arrays: Mapping[str, Any], prefixes: tuple[str, ...]) -> tuple[FlatState, FlatState]:
    """Divide a flat state into the entries below one of `prefixes` and the rest."""
    below = {path: array for path, array in arrays.items() if path.startswith(tuple(f"{p}/" for p in prefixes))}
    return below, {path: array for path, array in arrays.items() if path not in below}


def parameter_paths(module: nnx.Module) -> frozenset[str]:
    """Paths of the module's nnx.Param arrays: what an optimizer may change, unlike statistics and memories."""
    variables = nnx.to_flat_state(nnx.split(module, nnx.Param, ...)[1])
    return frozenset("/".join(map(str, path)) for path, _ in variables)
