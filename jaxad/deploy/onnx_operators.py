"""What the operations of JAX are in ONNX, one function for each: (graph, parameters, values) -> value or values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from jaxad.deploy import onnx_moves as moves
from jaxad.deploy import onnx_random as random
from jaxad.deploy.onnx_graph import Graph, Parameters, Tensor, Unsupported, Value, integers

Operator = Callable[..., Any]


def _same(graph: Graph, p: Parameters, x: Value) -> Value:
    return x


def _unary(operator: str, graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.wrapped(graph.elementwise(operator, x))


def _binary(operator: str, graph: Graph, p: Parameters, x: Value, y: Value) -> Tensor:
    return graph.wrapped(graph.elementwise(operator, x, y, dtype=x.dtype))


def _compared(operator: str, graph: Graph, p: Parameters, x: Value, y: Value) -> Tensor:
    return graph.elementwise(operator, x, y, dtype=np.bool_)


def _bits(bools: str, integers: str, graph: Graph, p: Parameters, x: Value, y: Value) -> Tensor:
    return graph.elementwise(bools if x.dtype == np.bool_ else integers, x, y, dtype=x.dtype)


def _not_equal(graph: Graph, p: Parameters, x: Value, y: Value) -> Tensor:
    return graph.elementwise("Not", _compared("Equal", graph, p, x, y))


def _is_finite(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    endless, none = (graph.elementwise(operator, x, dtype=np.bool_) for operator in ("IsInf", "IsNaN"))
    return graph.elementwise("Not", graph.elementwise("Or", endless, none))


def _constant(x: Tensor, value: float) -> np.ndarray:
    return np.array(value, x.dtype)


def _square(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.wrapped(graph.elementwise("Mul", x, x))


def _integer_pow(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    power, found = abs(p["y"]), x
    for _ in range(power - 1):
        found = graph.wrapped(graph.elementwise("Mul", found, x))
    return found if p["y"] > 0 else graph.elementwise("Reciprocal", found)


def _rsqrt(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.elementwise("Reciprocal", graph.elementwise("Sqrt", x))


def _erfc(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.elementwise("Sub", _constant(x, 1), graph.elementwise("Erf", x), dtype=x.dtype)


def _log1p(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.elementwise("Log", graph.elementwise("Add", x, _constant(x, 1)))


def _expm1(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.elementwise("Sub", graph.elementwise("Exp", x), _constant(x, 1))


def _round(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    if getattr(p["rounding_method"], "name", "") != "TO_NEAREST_EVEN":
        raise Unsupported("rounding halves away from zero")
    return graph.elementwise("Round", x)


def _select(graph: Graph, p: Parameters, which: Value, *cases: Value) -> Tensor:
    if which.dtype != np.bool_ or len(cases) != 2:
        raise Unsupported("selecting among more than two")
    return graph.elementwise("Where", which, cases[1], cases[0], dtype=cases[0].dtype)


def _converted(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    if p["new_dtype"] not in (np.float32, np.bool_, np.int32, np.uint32, np.uint8, np.int8):
        raise Unsupported(f"the type {np.dtype(p['new_dtype'])}")
    return graph.cast(x, p["new_dtype"])


def _dot(graph: Graph, p: Parameters, x: Value, y: Value) -> Tensor:
    (over_x, over_y), (batch_x, batch_y) = p["dimension_numbers"]
    free_x, free_y = (
        [axis for axis in range(len(value.shape)) if axis not in (*over, *batch)]
        for value, over, batch in ((x, over_x, batch_x), (y, over_y, batch_y))
    )
    batch = [x.shape[axis] for axis in batch_x]
    inner = math.prod(x.shape[axis] for axis in over_x)
    rows, columns = [x.shape[axis] for axis in free_x], [y.shape[axis] for axis in free_y]
    left = graph.reshaped(graph.transposed(x, [*batch_x, *free_x, *over_x]), [*batch, math.prod(rows), inner])
    right = graph.reshaped(graph.transposed(y, [*batch_y, *over_y, *free_y]), [*batch, inner, math.prod(columns)])
    shape = [*batch, math.prod(rows), math.prod(columns)]
    product = graph.tensor("MatMul", [graph.whole(left), graph.whole(right)], shape, x.dtype)
    return graph.reshaped(product, [*batch, *rows, *columns])


def _convolution(graph: Graph, p: Parameters, x: Value, kernel: Value) -> Tensor:
    numbers, pads = p["dimension_numbers"], p["padding"]
    if p["batch_group_count"] != 1 or any(pad < 0 for pair in pads for pad in pair):
        raise Unsupported("convolutions in groups of images, or with negative padding")
    x, kernel = graph.transposed(x, numbers.lhs_spec), graph.transposed(kernel, numbers.rhs_spec)
    for axis, apart in enumerate(p["lhs_dilation"], 2):
        x = _spread(graph, x, axis, apart)
    spans = [(size - 1) * step + 1 for size, step in zip(kernel.shape[2:], p["rhs_dilation"], strict=True)]
    sides = [
        (size + low + high - span) // step + 1
        for size, (low, high), span, step in zip(x.shape[2:], pads, spans, p["window_strides"], strict=True)
    ]
    attributes = {
        "pads": [low for low, _ in pads] + [high for _, high in pads],
        "strides": list(p["window_strides"]),
        "dilations": list(p["rhs_dilation"]),
        "group": p["feature_group_count"],
    }
    names, shape = [graph.whole(x), graph.whole(kernel)], [x.shape[0], kernel.shape[0], *sides]
    return graph.transposed(graph.tensor("Conv", names, shape, x.dtype, **attributes), np.argsort(numbers.out_spec))


def _spread(graph: Graph, x: Value, axis: int, apart: int) -> Value:
    """Zeros between the elements of an axis, so that they are so far apart."""
    if apart == 1:
        return x
    shape = list(x.shape)
    behind = [(0, 0, 0)] * (len(shape) + 1)
    behind[axis + 1] = (0, apart - 1, 0)
    x = graph.reshaped(x, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
    x = moves.pad(graph, {"padding_config": behind}, x, np.array(0, x.dtype))
    shape[axis] *= apart
    x = graph.reshaped(x, shape)
    ends = list(shape)
    ends[axis] -= apart - 1
    return graph.cut(x, [0] * len(shape), ends)


def _reduced(operator: str, graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    axes = list(p["axes"])
    shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
    if not axes:
        return x
    if x.dtype == np.bool_:
        return graph.cast(_reduced(operator, graph, p, graph.cast(x, np.int32)), np.bool_)
    found = graph.tensor(operator, [graph.whole(x), graph.constant(integers(axes))], shape, x.dtype, keepdims=0)
    return graph.wrapped(found)


def _place_of(operator: str, graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    (axis,) = p["axes"]
    shape = [size for each, size in enumerate(x.shape) if each != axis]
    return graph.tensor(operator, [graph.whole(x)], shape, p["index_dtype"], axis=axis, keepdims=0)


def _window_sum(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """A mean over windows of two axes, times their size."""
    windows, strides, pads = p["window_dimensions"], p["window_strides"], p["padding"]
    over = [axis for axis, size in enumerate(windows) if size > 1 or strides[axis] > 1]
    if len(over) > 2 or set(p["base_dilation"]) | set(p["window_dilation"]) != {1}:
        raise Unsupported("sums over windows of more than two axes, or with gaps")
    over = sorted([*over, *[axis for axis in reversed(range(len(windows))) if axis not in over][: 2 - len(over)]])
    others = [axis for axis in range(len(windows)) if axis not in over]
    order, sides = [*others, *over], [x.shape[axis] for axis in others]
    flat = graph.reshaped(graph.transposed(x, order), [1, math.prod(sides), *(x.shape[axis] for axis in over)])
    found = [(x.shape[axis] + sum(pads[axis]) - windows[axis]) // strides[axis] + 1 for axis in over]
    around = [(0, 0, 0)] * 2 + [(*pads[axis], 0) for axis in over]
    padded = moves.pad(graph, {"padding_config": around}, flat, np.array(0, x.dtype))
    attributes = {"kernel_shape": [windows[axis] for axis in over], "strides": [strides[axis] for axis in over]}
    shape = [1, math.prod(sides), *found]
    mean = graph.tensor("AveragePool", [graph.whole(padded)], shape, x.dtype, **attributes)
    total = graph.elementwise("Mul", mean, _constant(x, math.prod(attributes["kernel_shape"])))
    return graph.transposed(graph.reshaped(total, [*sides, *found]), np.argsort(order))


def _sort(graph: Graph, p: Parameters, *values: Tensor) -> list[Tensor]:
    if values[1:]:
        raise Unsupported("sorting several arrays by one")
    x, axis = values[0], p["dimension"]
    names = [graph.whole(x), graph.constant(integers([x.shape[axis]]))]
    sorted_, _ = graph.node("TopK", names, 2, axis=axis, largest=0)
    return [Tensor(sorted_, x.shape, x.dtype, x.shape)]


def _top(graph: Graph, p: Parameters, x: Tensor) -> list[Tensor]:
    axis = p.get("axis", -1) % len(x.shape)
    shape = tuple(p["k"] if each == axis else size for each, size in enumerate(x.shape))
    values, places = graph.node("TopK", [graph.whole(x), graph.constant(integers([p["k"]]))], 2, axis=axis)
    return [Tensor(values, shape, x.dtype, shape), Tensor(places, shape, np.dtype(np.int32), shape)]


_UNARY = {
    "abs": "Abs",
    "ceil": "Ceil",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "neg": "Neg",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
_BINARY = {name: name.capitalize() for name in ("add", "div", "max", "min", "mul", "pow", "sub")} | {"add_any": "Add"}
_COMPARED = {"eq": "Equal", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less"}
_BITS = {name: (name.capitalize(), f"Bitwise{name.capitalize()}") for name in ("and", "or", "xor")}
_REDUCED = {name: f"Reduce{name.capitalize()}" for name in ("max", "min", "prod", "sum")}
_REDUCED |= {"and": "ReduceMin", "or": "ReduceMax"}

OPERATORS: Mapping[str, Operator] = {
    **{name: partial(_unary, operator) for name, operator in _UNARY.items()},
    **{name: partial(_binary, operator) for name, operator in _BINARY.items()},
    **{name: partial(_compared, operator) for name, operator in _COMPARED.items()},
    **{name: partial(_bits, *pair) for name, pair in _BITS.items()},
    **{f"reduce_{name}": partial(_reduced, operator) for name, operator in _REDUCED.items()},
    **dict.fromkeys(("copy", "copy_p", "optimization_barrier", "stop_gradient", "sharding_constraint"), _same),
    "argmax": partial(_place_of, "ArgMax"),
    "argmin": partial(_place_of, "ArgMin"),
    "bitcast_convert_type": random.bitcast,
    "broadcast_in_dim": moves.broadcast,
    "clamp": moves.clamp,
    "concatenate": moves.concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _converted,
    "dot_general": _dot,
    "dynamic_slice": moves.dynamic_slice,
    "erf_inv": random.erf_inv,
    "erfc": _erfc,
    "expand_dims": moves.expand,
    "expm1": _expm1,
    "gather": moves.gather,
    "integer_pow": _integer_pow,
    "is_finite": _is_finite,
    "log1p": _log1p,
    "ne": _not_equal,
    "not": partial(_unary, "Not"),
    "pad": moves.pad,
    "reduce_window_sum": _window_sum,
    "reshape": moves.reshape,
    "rev": moves.reverse,
    "round": _round,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "shift_left": partial(random.shifted, "Mul"),
    "shift_right_logical": partial(random.shifted, "Div"),
    "slice": moves.sliced,
    "sort": _sort,
    "split": moves.split,
    "square": _square,
    "squeeze": moves.squeeze,
    "stack": moves.stack,
    "threefry2x32": random.threefry,
    "tile": moves.tile,
    "top_k": _top,
    "transpose": moves.transpose,
}
"""By the name of JAX's primitive."""
