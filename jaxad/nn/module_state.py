"""Module state as one flat dict "a/b/0/kernel" -> array: the form in which it leaves a program."""

from __future__ import annotations

import hashlib
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

FlatState = dict[str, Any]
Module = TypeVar("Module", bound=nnx.Module)


def abstract(make: Callable[[Any], Module]) -> Module:
    """The module that `make(rngs)` makes, without arrays, to be filled."""
    # One key for all: drawing from nnx.Rngs under a trace takes time quadratic in the number of parameters.
    rngs = types.SimpleNamespace(params=lambda: jax.random.key(0))
    return nnx.eval_shape(lambda: make(rngs))


def drawn(module: Module, generator: np.random.Generator, deviation: float = 0.02) -> Module:
    """The module with random parameters, by numpy because compiling its own initializers takes seconds.

    Args:
        module: with or without arrays.
        generator: draws them.
        deviation: of all but kernels, whose deviation keeps that of what they are multiplied by; gains and variances
            vary about 1, all others about 0.
    """
    graphdef, parameters = split(module)
    arrays = {}
    for path, parameter in parameters.items():
        mean = 1.0 * path.endswith(("/scale", "/gain", "/var"))
        spread = math.prod(parameter.shape[:-1]) ** -0.5 if path.endswith("/kernel") else deviation
        values = np.asarray(generator.normal(mean, spread, parameter.shape), parameter.dtype)
        # Other ways to make it an array of jax compile a program for every shape.
        arrays[path] = jax.device_put(values)
    return merge(graphdef, arrays)


def split(module: nnx.Module, *filters: Any) -> tuple[Any, ...]:
    """The module's structure, and its arrays by path in the order of the paths: (graphdef, arrays, ...).

    Modules here hold no random-number state: dropout-free networks take explicit keys.

    Args:
        module: any module.
        filters: types of variables (`jaxad.nn.variables`) or other filters of `flax.nnx`, the last one `...` for the
            rest; each gives a flat state of its own. None for all arrays in one.
    """
    graphdef, *states = nnx.split(module, *filters)
    return graphdef, *({"/".join(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(s)} for s in states)


def without_arrays(module: Module) -> Module:
    """The same module, with the shapes of its arrays in their place."""
    graphdef, arrays = split(module)
    shapes = {path: jax.ShapeDtypeStruct(array.shape, array.dtype) for path, array in arrays.items()}
    found: Module = merge(graphdef, shapes)
    return found


def digest(*modules: nnx.Module) -> str:
    """SHA-256 of the arrays of modules, with their paths and types: the same for the same weights of any source."""
    hasher = hashlib.sha256()
    for module in modules:
        for path, array in sorted(split(module)[1].items()):
            host = np.ascontiguousarray(array)
            hasher.update(f"{path} {host.dtype} {host.shape}\n".encode())
            hasher.update(host.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


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


def refill(module: nnx.Module, arrays: Mapping[str, Any]) -> None:
    """Gives the variables of a module that `arrays` names by their paths these values, in place."""
    variables = {"/".join(map(str, path)): node for path, node in nnx.iter_graph(module)}
    for path, array in arrays.items():
        variables[path].set_value(array)


def select(arrays: Mapping[str, Any], prefixes: tuple[str, ...]) -> tuple[FlatState, FlatState]:
    """Divide a flat state into the entries below one of `prefixes` and the rest."""
    below = {path: array for path, array in arrays.items() if path.startswith(tuple(f"{p}/" for p in prefixes))}
    return below, {path: array for path, array in arrays.items() if path not in below}
