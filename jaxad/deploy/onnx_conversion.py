"""From JAX to ONNX: what a function computes, as a graph that does the same for any number of images.

A program is traced for one image. What does not depend on the image is computed here; the rest becomes ONNX, operation
by operation, with loops written out. The graph for one image is the body of a `Scan` over the images.

jaxad's own because no converter that is maintained takes these programs: jax2onnx 0.17 knows no computation that
depends on the platform, and has other noise in place of that of `jax.random`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend import core
from jax.extend.random import threefry_prng_impl
from onnx import TensorProto, helper

from jaxad import __version__
from jaxad.deploy.onnx_graph import IR, OPSET, Graph, Tensor, Unsupported, Value
from jaxad.deploy.onnx_moves import stacked
from jaxad.deploy.onnx_operators import OPERATORS
from jaxad.deploy.program import Input
from jaxad.errors import ConfigError

LONGEST = 256
"""Turns of a loop above which it is not written out."""
_BODIES = ("jaxpr", "call_jaxpr")
_KINDS = {"uint8": TensorProto.UINT8, "uint32": TensorProto.UINT32, "int32": TensorProto.INT32}


class ConversionError(ConfigError):
    """A program uses operations that have no form in ONNX here; lists each."""


def to_onnx(
    function: Callable[..., Sequence[jax.Array]], inputs: Sequence[Input], outputs: Sequence[str]
) -> onnx.ModelProto:
    """The model of a function of one image.

    Args:
        function: one array for each of `inputs` -> float32 arrays.
        inputs: shape and type of one image's arrays.
        outputs: names.

    Returns:
        A model whose inputs and outputs have the number of images b as an axis before all others.

    Raises:
        ConversionError: operations of the function that cannot be converted; lists all of them.
    """
    closed = jax.make_jaxpr(function)(*(np.zeros(one.shape, one.dtype) for one in inputs))
    graph = Graph()
    given = [_opened(graph, one) for one in inputs]
    conversion = _Conversion(graph)
    found = conversion.run(closed.jaxpr, closed.consts, given)
    if conversion.faults:
        listing = "\n".join(f"  {fault}" for fault in sorted(conversion.faults))
        raise ConversionError(f"cannot be written as ONNX:\n{listing}")
    return _model(graph, inputs, outputs, found)


def _opened(graph: Graph, one: Input) -> Tensor:
    """An input of the body, integers but for pixels as int64."""
    dtype = np.dtype(one.dtype)
    raw = Tensor(f"one_{one.name}", one.shape, dtype, one.shape)
    if dtype == np.uint8:
        return raw
    return graph.elementwise("Cast", raw, to=TensorProto.INT64)


def _model(graph: Graph, inputs: Sequence[Input], outputs: Sequence[str], found: Sequence[Value]) -> onnx.ModelProto:
    ends = []
    for name, value in zip(outputs, found, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.whole(value)], [f"one_{name}"]))
        ends.append(helper.make_tensor_value_info(f"one_{name}", TensorProto.FLOAT, np.shape(value) or ()))
    starts = [helper.make_tensor_value_info(f"one_{i.name}", _KINDS[i.dtype], i.shape) for i in inputs]
    body = helper.make_graph(graph.nodes, "image", starts, ends)
    names = [one.name for one in inputs]
    scan = helper.make_node("Scan", names, list(outputs), body=body, num_scan_inputs=len(names))
    batched = [helper.make_tensor_value_info(i.name, _KINDS[i.dtype], ("b", *i.shape)) for i in inputs]
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("b", *value.shape))
        for name, value in zip(outputs, found, strict=True)
    ]
    whole = helper.make_graph([scan], "detector", batched, results, list(graph.constants.values()))
    operators = [helper.make_opsetid("", OPSET)]
    return helper.make_model(
        whole, opset_imports=operators, ir_version=IR, producer_name="jaxad", producer_version=__version__
    )


class _Conversion:
    """Goes through the equations of a program; what is known is computed, what is not becomes nodes.

    Attributes:
        faults: operations that could not be converted, and why.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        self.faults: set[str] = set()

    def run(self, jaxpr: Any, consts: Sequence[Any], given: Sequence[Value]) -> list[Value]:
        """The outputs of a program."""
        known: dict[Any, Value] = dict(zip(jaxpr.constvars, map(_plain, consts), strict=True))
        known |= dict(zip(jaxpr.invars, given, strict=True))

        def value(variable: Any) -> Value:
            return _plain(variable.val) if isinstance(variable, core.Literal) else known[variable]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [value(variable) for variable in equation.invars])
            known |= dict(zip(equation.outvars, found, strict=True))
        return [value(variable) for variable in jaxpr.outvars]

    def _equation(self, equation: Any, values: list[Value]) -> Sequence[Value]:
        name, p = equation.primitive.name, equation.params
        if name == "platform_index":
            kinds = [kinds is None or "cpu" in kinds for kinds in p["platforms"]]
            return [np.int32(kinds.index(True))]
        if name == "cond" and not isinstance(values[0], Tensor):
            branch = p["branches"][int(np.clip(values[0], 0, len(p["branches"]) - 1))]
            return self.run(branch.jaxpr, branch.consts, values[1:])
        if name == "scan" and any(isinstance(value, Tensor) for value in values):
            return self._scan(equation, values)
        if inner := next((p[body] for body in _BODIES if body in p and name not in ("scan", "while")), None):
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)
        if not any(isinstance(value, Tensor) for value in values):
            return _computed(equation, values)
        try:
            return self._converted(name, p, equation, values)
        except Unsupported as error:
            self.faults.add(f"{name}: {error}")
        # Goes on with zeros, for the faults that follow.
        return [_zeros(variable.aval) for variable in equation.outvars]

    def _converted(self, name: str, p: Mapping[str, Any], equation: Any, values: list[Value]) -> Sequence[Value]:
        if name in _OF_KEYS:
            traced = _OF_KEYS[name](p, *map(_raw, values))
            return self.run(traced.jaxpr, traced.consts, [_raw(value) for value in values])
        if name not in OPERATORS:
            raise Unsupported("has no form in ONNX")
        if any(_is_key(variable.aval) for variable in (*equation.invars, *equation.outvars)):
            values, p = [_raw(value) for value in values], _of_raw_keys(name, p)
        found = OPERATORS[name](self._graph, p, *values)
        return found if equation.primitive.multiple_results else [found]

    def _scan(self, equation: Any, values: list[Value]) -> list[Value]:
        """A loop, written out."""
        p, graph = equation.params, self._graph
        if p["length"] > LONGEST:
            raise ConversionError(f"a loop of {p['length']} turns is too long for ONNX (the most are {LONGEST})")
        fixed, rest = values[: p["num_consts"]], values[p["num_consts"] :]
        carried, streams = rest[: p["num_carry"]], rest[p["num_carry"] :]
        turns: list[list[Value]] = []
        for turn in range(p["length"])[:: -1 if p["reverse"] else 1]:
            slices = [_row(graph, stream, turn) for stream in streams]
            found = self.run(p["jaxpr"].jaxpr, p["jaxpr"].consts, [*fixed, *carried, *slices])
            carried, ys = found[: p["num_carry"]], found[p["num_carry"] :]
            turns.append(ys)
        columns = zip(*(turns[::-1] if p["reverse"] else turns), strict=True)
        return [*carried, *(stacked(graph, [_raw(value) for value in column]) for column in columns)]


def _row(graph: Graph, stream: Value, place: int) -> Value:
    if not isinstance(stream, Tensor):
        return stream[place]
    shape = stream.shape
    part = graph.cut(stream, [place] + [0] * (len(shape) - 1), [place + 1, *shape[1:]])
    return graph.reshaped(part, shape[1:])


def _computed(equation: Any, values: Sequence[Any]) -> list[Value]:
    """The outputs of an operation on known values; what repeats itself is not written out."""
    p = equation.params
    if equation.primitive.name == "broadcast_in_dim" and not _is_key(equation.invars[0].aval):
        inner = [1] * len(p["shape"])
        for size, place in zip(np.shape(values[0]), p["broadcast_dimensions"], strict=True):
            inner[place] = size
        return [np.broadcast_to(np.reshape(values[0], inner), p["shape"])]
    found = equation.primitive.bind(*values, **p)
    return [_plain(value) for value in (found if equation.primitive.multiple_results else [found])]


def _plain(value: Any) -> Any:
    """A known value as a numpy array; keys as they are."""
    return value if isinstance(value, Tensor) or _is_key(value) else np.asarray(value)


def _is_key(value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _raw(value: Value) -> Value:
    """Keys as the two uint32 that each of them is; anything else as it is."""
    return value if isinstance(value, Tensor) or not _is_key(value) else np.asarray(jax.random.key_data(value))


def _zeros(aval: Any) -> Value:
    if _is_key(aval):
        return jax.random.wrap_key_data(jnp.zeros((*aval.shape, 2), jnp.uint32))
    return np.zeros(aval.shape, aval.dtype)


def _of_raw_keys(name: str, p: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of an operation that moves keys, for arrays with one axis of two numbers more."""
    if name == "broadcast_in_dim":
        rank = len(p["shape"])
        return {**p, "shape": (*p["shape"], 2), "broadcast_dimensions": (*p["broadcast_dimensions"], rank)}
    if name == "reshape":
        return {**p, "new_sizes": (*p["new_sizes"], 2)}
    if name == "slice":
        steps = None if p["strides"] is None else (*p["strides"], 1)
        return {"start_indices": (*p["start_indices"], 0), "limit_indices": (*p["limit_indices"], 2), "strides": steps}
    if name == "transpose":
        return {"permutation": (*p["permutation"], len(p["permutation"]))}
    if name in ("squeeze", "concatenate", "stack", "copy", "stop_gradient"):
        return p
    raise Unsupported("of random keys")


def _abstract(value: Value) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(value.shape, np.uint32)


def _over(function: Callable[..., Any], rank: int) -> Callable[..., Any]:
    for _ in range(rank):
        function = jax.vmap(function)
    return function


def _fold_in(p: Mapping[str, Any], keys: Value, data: Value) -> Any:
    shape = np.broadcast_shapes(keys.shape[:-1], data.shape)

    def folded(keys: jax.Array, data: jax.Array) -> jax.Array:
        each = _over(threefry_prng_impl.fold_in, len(shape))
        return each(jnp.broadcast_to(keys, (*shape, 2)), jnp.broadcast_to(data, shape))

    return jax.make_jaxpr(folded)(_abstract(keys), _abstract(data))


def _bits(p: Mapping[str, Any], keys: Value) -> Any:
    def one(key: jax.Array) -> jax.Array:
        return threefry_prng_impl.random_bits(key, p["bit_width"], p["shape"])

    return jax.make_jaxpr(_over(one, len(keys.shape) - 1))(_abstract(keys))


def _split(p: Mapping[str, Any], keys: Value) -> Any:
    function = _over(lambda key: threefry_prng_impl.split(key, p["shape"]), len(keys.shape) - 1)
    return jax.make_jaxpr(function)(_abstract(keys))


def _kept(p: Mapping[str, Any], keys: Value) -> Any:
    return jax.make_jaxpr(lambda keys: keys)(_abstract(keys))


_OF_KEYS: Mapping[str, Callable[..., Any]] = {
    "random_bits": _bits,
    "random_fold_in": _fold_in,
    "random_split": _split,
    "random_unwrap": _kept,
    "random_wrap": _kept,
}
"""Programs, on keys as numbers, of what JAX does with keys."""
