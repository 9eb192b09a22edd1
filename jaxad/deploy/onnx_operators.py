"""What the operations of JAX are in ONNX, one function for each: (graph, parameters, values) -> value or values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from jaxad.deploy.onnx_graph import Graph, Tensor, Value, integers

Parameters = Mapping[str, Any]
Operator = Callable[..., Any]


class Unsupported(Exception):
    """What an operation is asked for has no form in ONNX here; the message says what."""


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


def _shifted(operator: str, graph: Graph, p: Parameters, x: Tensor, by: Value) -> Tensor:
    if isinstance(by, Tensor) or x.dtype != np.uint32:
        raise Unsupported("shifting by what is not constant, or what is not of type uint32")
    return graph.wrapped(graph.elementwise(operator, x, np.left_shift(np.int64(1), np.asarray(by, np.int64))))


def _select(graph: Graph, p: Parameters, which: Value, *cases: Value) -> Tensor:
    if which.dtype != np.bool_ or len(cases) != 2:
        raise Unsupported("selecting among more than two")
    return graph.elementwise("Where", which, cases[1], cases[0], dtype=cases[0].dtype)


def _clamp(graph: Graph, p: Parameters, low: Value, x: Value, high: Value) -> Tensor:
    return graph.elementwise("Min", graph.elementwise("Max", x, low, dtype=x.dtype), high)


def _converted(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    if p["new_dtype"] not in (np.float32, np.bool_, np.int32, np.uint32, np.uint8, np.int8):
        raise Unsupported(f"the type {np.dtype(p['new_dtype'])}")
    return graph.cast(x, p["new_dtype"])


def _bitcast(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """The float32 of these bits: (2**23 + mantissa) 2**(exponent - 150), the powers from a table."""
    if (x.dtype, p["new_dtype"]) != (np.dtype(np.uint32), np.dtype(np.float32)):
        raise Unsupported(f"the bits of {x.dtype} as {np.dtype(p['new_dtype'])}")
    exponents = np.arange(512)
    table = np.ldexp(np.float32(1), (exponents & 255) - 150).astype(np.float32) * np.where(exponents < 256, 1, -1)
    unit = np.array(2**23, np.uint32)
    place = graph.elementwise("Div", x, unit)
    mantissa = graph.elementwise("Add", graph.elementwise("Mod", x, unit), unit)
    power = graph.tensor("Gather", [graph.constant(np.float32(table)), graph.whole(place)], x.shape, np.float32, axis=0)
    return graph.elementwise("Mul", graph.cast(mantissa, np.float32), power)


_CENTRAL = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503)
_CENTRAL += (-0.00417768164, 0.246640727, 1.50140941)
_TAILS = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613)
_TAILS += (0.00943887047, 1.00167406, 2.83297682)


def _erf_inv(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """The polynomials that XLA takes (M. Giles, "Approximating the erfinv function")."""

    def do(operator: str, a: Value, b: Value) -> Tensor:
        return graph.elementwise(operator, a, b, dtype=np.float32)

    def number(value: float) -> np.ndarray:
        return np.array(value, np.float32)

    def polynomial(factors: tuple[float, ...], at: Tensor) -> Tensor:
        found: Value = number(factors[0])
        for factor in factors[1:]:
            found = do("Add", do("Mul", found, at), number(factor))
        return found

    inside = do("Mul", do("Sub", number(1), x), do("Add", number(1), x))
    w = graph.elementwise("Neg", graph.elementwise("Log", inside))
    central = polynomial(_CENTRAL, do("Sub", w, number(2.5)))
    # Where it is not taken its root may not be a number, which does no harm.
    tails = polynomial(_TAILS, do("Sub", graph.elementwise("Sqrt", w), number(3)))
    return do("Mul", graph.elementwise("Where", _compared("Less", graph, p, w, number(5)), central, tails), x)


def _reshape(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.reshaped(x, p["new_sizes"])


def _broadcast(graph: Graph, p: Parameters, x: Tensor, *_: Value) -> Tensor:
    """The axes are put into place; what repeats them is left to whoever needs it."""
    shape, places = tuple(p["shape"]), p["broadcast_dimensions"]
    inner = [1] * len(shape)
    for axis, place in enumerate(places):
        inner[place] = x.held[axis]
    held = tuple(inner)
    if held != x.held:
        x = graph.reshaped(Tensor(x.name, x.held, x.dtype, x.held), held)
    return Tensor(x.name, shape, x.dtype, held)


def _transpose(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.transposed(x, p["permutation"])


def _squeeze(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.reshaped(x, [size for axis, size in enumerate(x.shape) if axis not in p["dimensions"]])


def _expand(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.reshaped(x, np.expand_dims(np.empty(x.shape, np.bool_), p["dimensions"]).shape)


def _slice(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    return graph.cut(x, p["start_indices"], p["limit_indices"], p["strides"])


def _split(graph: Graph, p: Parameters, x: Tensor) -> list[Value]:
    found, start, axis = [], 0, p["axis"]
    for size in p["sizes"]:
        starts, ends = [0] * len(x.shape), list(x.shape)
        starts[axis], ends[axis] = start, start + size
        found.append(graph.cut(x, starts, ends))
        start += size
    return found


def _concatenate(graph: Graph, p: Parameters, *values: Value) -> Value:
    return graph.joined(values, p["dimension"])


def _stack(graph: Graph, p: Parameters, *values: Value) -> Value:
    return stacked(graph, values, p.get("axis", 0))


def stacked(graph: Graph, values: Any, axis: int = 0) -> Value:
    """Values of one shape as one, along a new axis."""
    shape = list(values[0].shape)
    shape.insert(axis, 1)
    return graph.joined([graph.reshaped(value, shape) for value in values], axis)


def _tile(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    reps = tuple(p["reps"])
    shape = [size * times for size, times in zip(x.shape, reps, strict=True)]
    return graph.tensor("Tile", [graph.whole(x), graph.constant(integers(reps))], shape, x.dtype)


def _pad(graph: Graph, p: Parameters, x: Value, value: Value) -> Tensor:
    config = p["padding_config"]
    if any(inner for *_, inner in config):
        raise Unsupported("padding between elements")
    last = [size + min(high, 0) for size, (_, high, _) in zip(x.shape, config, strict=True)]
    x = graph.cut(x, [max(-low, 0) for low, _, _ in config], last)
    ends = [[max(pair[side], 0) for pair in config] for side in (0, 1)]
    shape = [n + low + high for n, low, high in zip(x.shape, *ends, strict=True)]
    names = [graph.whole(x), graph.constant(integers(ends[0] + ends[1])), graph.whole(value)]
    return graph.tensor("Pad", names, shape, x.dtype)


def _reversed(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    axes = list(p["dimensions"])
    places = [graph.constant(integers(v)) for v in ([-1] * len(axes), [-(2**31)] * len(axes), axes, [-1] * len(axes))]
    return graph.tensor("Slice", [graph.whole(x), *places], x.shape, x.dtype)


def _dynamic_slice(graph: Graph, p: Parameters, x: Value, *starts: Value) -> Value:
    sizes = list(p["slice_sizes"])
    if not any(isinstance(start, Tensor) for start in starts):
        most = [n - size for n, size in zip(x.shape, sizes, strict=True)]
        first = [int(np.clip(start, 0, last)) for start, last in zip(starts, most, strict=True)]
        return graph.cut(x, first, [start + size for start, size in zip(first, sizes, strict=True)])
    most = integers(x.shape) - integers(sizes)
    begin = stacked(graph, [graph.reshaped(start, ()) for start in starts])
    begin = _clamp(graph, p, np.zeros(len(sizes), np.int64), begin, most)
    end = graph.elementwise("Add", begin, integers(sizes))
    return graph.tensor("Slice", [graph.whole(x), graph.whole(begin), graph.whole(end)], sizes, x.dtype)


def _gather(graph: Graph, p: Parameters, x: Value, indices: Value) -> Value:
    """By GatherND, of an operand whose indexed axes come first."""
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    own, of_indices = list(numbers.operand_batching_dims), list(numbers.start_indices_batching_dims)
    indexed = list(numbers.start_index_map)
    gone = [*numbers.collapsed_slice_dims, *own]
    kept = [axis for axis in range(len(x.shape)) if axis not in gone]
    if any(sizes[axis] != 1 for axis in indexed) or set(kept) & set(own):
        raise Unsupported("gathering slices of more than one element along an axis that is indexed")
    if any(sizes[axis] != x.shape[axis] for axis in kept if axis not in indexed):
        raise Unsupported("gathering parts of axes that are not indexed")
    batch = indices.shape[:-1]
    most = integers([x.shape[axis] - 1 for axis in indexed])
    if isinstance(indices, Tensor):
        places = _clamp(graph, p, np.zeros_like(most), indices, most)
    else:
        places = np.clip(indices, 0, most)
    rows = (np.indices(batch)[axis] for axis in of_indices)
    places = graph.joined([*(integers(row)[..., None] for row in rows), places], -1)
    free = [axis for axis in kept if axis not in indexed]
    operand = graph.transposed(x, [*own, *indexed, *free])
    shape = (*batch, *(x.shape[axis] for axis in free))
    found = graph.tensor("GatherND", [graph.whole(operand), graph.whole(places)], shape, x.dtype)
    # Axes that were indexed and are kept have one element.
    offsets = [x.shape[axis] if axis in free else 1 for axis in kept]
    found = graph.reshaped(found, (*batch, *offsets))
    rank = len(batch) + len(offsets)
    rest = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    source = {place: len(batch) + i for i, place in enumerate(numbers.offset_dims)}
    source |= {place: i for i, place in enumerate(rest)}
    return graph.transposed(found, [source[axis] for axis in range(rank)])


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
    x = _pad(graph, {"padding_config": behind}, x, np.array(0, x.dtype))
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
    padded = _pad(graph, {"padding_config": around}, flat, np.array(0, x.dtype))
    attributes = {"kernel_shape": [windows[axis] for axis in over], "strides": [strides[axis] for axis in over]}
    shape = [1, math.prod(sides), *found]
    mean = graph.tensor("AveragePool", [graph.whole(padded)], shape, x.dtype, **attributes)
    total = graph.elementwise("Mul", mean, _constant(x, math.prod(attributes["kernel_shape"])))
    return graph.transposed(graph.reshaped(total, [*sides, *found]), np.argsort(order))


def _sort(graph: Graph, p: Parameters, *values: Tensor) -> list[Tensor]:
    if len(values) > 1:
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


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(graph: Graph, p: Parameters, *values: Value) -> list[Tensor]:
    """Threefry-2x32 of 20 rounds (J. Salmon et al., SC 2011), as `jax.random` has it."""

    def do(operator: str, a: Value, b: Value) -> Tensor:
        return graph.wrapped(graph.elementwise(operator, a, b, dtype=np.uint32))

    def rotated(x: Tensor, by: int) -> Tensor:
        parts = [_shifted("Mul", graph, p, x, np.uint32(by)), _shifted("Div", graph, p, x, np.uint32(32 - by))]
        return graph.elementwise("BitwiseOr", *parts)

    first, second, x, y = values
    mixed = graph.elementwise("BitwiseXor", first, second, dtype=np.uint32)
    keys = [first, second, graph.elementwise("BitwiseXor", mixed, np.uint32(0x1BD11BDA))]
    x, y = do("Add", x, keys[0]), do("Add", y, keys[1])
    for group in range(5):
        for by in _ROTATIONS[group % 2]:
            x = do("Add", x, y)
            y = graph.elementwise("BitwiseXor", rotated(y, by), x)
        x = do("Add", x, keys[(group + 1) % 3])
        y = do("Add", do("Add", y, keys[(group + 2) % 3]), np.uint32(group + 1))
    return [x, y]


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
    "bitcast_convert_type": _bitcast,
    "broadcast_in_dim": _broadcast,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _converted,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "erf_inv": _erf_inv,
    "erfc": _erfc,
    "expand_dims": _expand,
    "expm1": _expm1,
    "gather": _gather,
    "integer_pow": _integer_pow,
    "is_finite": _is_finite,
    "log1p": _log1p,
    "ne": _not_equal,
    "not": partial(_unary, "Not"),
    "pad": _pad,
    "reduce_window_sum": _window_sum,
    "reshape": _reshape,
    "rev": _reversed,
    "round": _round,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "shift_left": partial(_shifted, "Mul"),
    "shift_right_logical": partial(_shifted, "Div"),
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "square": _square,
    "squeeze": _squeeze,
    "stack": _stack,
    "threefry2x32": _threefry,
    "tile": _tile,
    "top_k": _top,
    "transpose": _transpose,
}
"""By the name of JAX's primitive."""
