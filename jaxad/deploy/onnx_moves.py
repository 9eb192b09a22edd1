"""What only moves numbers, in ONNX: shapes, slices, gathering."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from jaxad.deploy.onnx_graph import Graph, Parameters, Tensor, Unsupported, Value, integers


def clamp(graph: Graph, p: Parameters, low: Value, x: Value, high: Value) -> Tensor:
    """x between low and high, both included: `lax.clamp`."""
    return graph.elementwise("Min", graph.elementwise("Max", x, low, dtype=x.dtype), high)


def reshape(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """x [...] in another shape of as many elements."""
    return graph.reshaped(x, p["new_sizes"])


def broadcast(graph: Graph, p: Parameters, x: Tensor, *_: Value) -> Tensor:
    """The axes are put into place; what repeats them is left to whoever needs it."""
    shape, places = tuple(p["shape"]), p["broadcast_dimensions"]
    inner = [1] * len(shape)
    for axis, place in enumerate(places):
        inner[place] = x.held[axis]
    held = tuple(inner)
    if held != x.held:
        x = graph.reshaped(Tensor(x.name, x.held, x.dtype, x.held), held)
    return Tensor(x.name, shape, x.dtype, held)


def transpose(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """x [...] with its axes in another order."""
    return graph.transposed(x, p["permutation"])


def squeeze(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """x without axes of one element."""
    return graph.reshaped(x, [size for axis, size in enumerate(x.shape) if axis not in p["dimensions"]])


def expand(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """x with further axes of one element."""
    return graph.reshaped(x, np.expand_dims(np.empty(x.shape, np.bool_), p["dimensions"]).shape)


def sliced(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """The part of x between constant places, every so many elements: `lax.slice`."""
    return graph.cut(x, p["start_indices"], p["limit_indices"], p["strides"])


def split(graph: Graph, p: Parameters, x: Tensor) -> list[Value]:
    """x in parts of these sizes along an axis."""
    found, start, axis = [], 0, p["axis"]
    for size in p["sizes"]:
        starts, ends = [0] * len(x.shape), list(x.shape)
        starts[axis], ends[axis] = start, start + size
        found.append(graph.cut(x, starts, ends))
        start += size
    return found


def concatenate(graph: Graph, p: Parameters, *values: Value) -> Value:
    """Values side by side along an axis that they have."""
    return graph.joined(values, p["dimension"])


def stack(graph: Graph, p: Parameters, *values: Value) -> Value:
    """Values of one shape along a new axis."""
    return stacked(graph, values, p.get("axis", 0))


def stacked(graph: Graph, values: Any, axis: int = 0) -> Value:
    """Values of one shape as one, along a new axis."""
    shape = list(values[0].shape)
    shape.insert(axis, 1)
    return graph.joined([graph.reshaped(value, shape) for value in values], axis)


def tile(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """x repeated so many times along each axis."""
    reps = tuple(p["reps"])
    shape = [size * times for size, times in zip(x.shape, reps, strict=True)]
    return graph.tensor("Tile", [graph.whole(x), graph.constant(integers(reps))], shape, x.dtype)


def pad(graph: Graph, p: Parameters, x: Value, value: Value) -> Tensor:
    """x with a value around it; negative widths cut off. Raises Unsupported for padding between elements."""
    config = p["padding_config"]
    if any(inner for *_, inner in config):
        raise Unsupported("padding between elements")
    last = [size + min(high, 0) for size, (_, high, _) in zip(x.shape, config, strict=True)]
    x = graph.cut(x, [max(-low, 0) for low, _, _ in config], last)
    ends = [[max(pair[side], 0) for pair in config] for side in (0, 1)]
    shape = [n + low + high for n, low, high in zip(x.shape, *ends, strict=True)]
    names = [graph.whole(x), graph.constant(integers(ends[0] + ends[1])), graph.whole(value)]
    return graph.tensor("Pad", names, shape, x.dtype)


def reverse(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
    """x with some axes backwards."""
    axes = list(p["dimensions"])
    places = [graph.constant(integers(v)) for v in ([-1] * len(axes), [-(2**31)] * len(axes), axes, [-1] * len(axes))]
    return graph.tensor("Slice", [graph.whole(x), *places], x.shape, x.dtype)


def dynamic_slice(graph: Graph, p: Parameters, x: Value, *starts: Value) -> Value:
    """The part of x of constant size that begins at computed places, moved inside where it would not fit."""
    sizes = list(p["slice_sizes"])
    if not any(isinstance(start, Tensor) for start in starts):
        most = [n - size for n, size in zip(x.shape, sizes, strict=True)]
        first = [int(np.clip(start, 0, last)) for start, last in zip(starts, most, strict=True)]
        return graph.cut(x, first, [start + size for start, size in zip(first, sizes, strict=True)])
    most = integers(x.shape) - integers(sizes)
    begin = stacked(graph, [graph.reshaped(start, ()) for start in starts])
    begin = clamp(graph, p, np.zeros(len(sizes), np.int64), begin, most)
    end = graph.elementwise("Add", begin, integers(sizes))
    return graph.tensor("Slice", [graph.whole(x), graph.whole(begin), graph.whole(end)], sizes, x.dtype)


def gather(graph: Graph, p: Parameters, x: Value, indices: Value) -> Value:
    """By GatherND, of an operand whose indexed axes come first.

    Indices beyond the operand are moved inside; where JAX fills (`GatherScatterMode.FILL_OR_DROP`), they give its
    filling: what it was told, else not a number, of integers the least, of unsigned ones the largest.

    Raises:
        Unsupported: slices that are more than single elements of the indexed axes and all of the others.
    """
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
        places = clamp(graph, p, np.zeros_like(most), indices, most)
    else:
        places = np.clip(indices, 0, most)
    inside = _inside(graph, indices, places) if p["mode"] == GatherScatterMode.FILL_OR_DROP else None
    rows = (np.indices(batch)[axis] for axis in of_indices)
    places = graph.joined([*(integers(row)[..., None] for row in rows), places], -1)
    free = [axis for axis in kept if axis not in indexed]
    operand = graph.transposed(x, [*own, *indexed, *free])
    shape = (*batch, *(x.shape[axis] for axis in free))
    found = graph.tensor("GatherND", [graph.whole(operand), graph.whole(places)], shape, x.dtype)
    # Axes that were indexed and are kept have one element.
    offsets = [x.shape[axis] if axis in free else 1 for axis in kept]
    found = graph.reshaped(found, (*batch, *offsets))
    if inside is not None:
        inside = graph.reshaped(inside, (*batch, *[1] * len(offsets)))
        found = graph.elementwise("Where", inside, found, _filling(p["fill_value"], x.dtype), dtype=x.dtype)
    rank = len(batch) + len(offsets)
    rest = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    source = {place: len(batch) + i for i, place in enumerate(numbers.offset_dims)}
    source |= {place: i for i, place in enumerate(rest)}
    return graph.transposed(found, [source[axis] for axis in range(rank)])


def _inside(graph: Graph, indices: Value, places: Value) -> Value | None:
    """Which of the indices [... k] were not moved to make places, bool [...]; None where all of them are constant."""
    if not isinstance(indices, Tensor):
        kept = (np.asarray(indices) == np.asarray(places)).all(-1)
        return None if kept.all() else kept
    kept = graph.cast(graph.elementwise("Equal", indices, places, dtype=np.bool_), np.int32)
    names = [graph.whole(kept), graph.constant(integers([-1]))]
    return graph.cast(graph.tensor("ReduceMin", names, indices.shape[:-1], np.int32, keepdims=0), np.bool_)


def _filling(given: Any, dtype: np.dtype) -> np.ndarray:
    """What JAX gives for indices that are not there, a scalar of that type."""
    if given is None:
        kind = np.dtype(dtype).kind
        given = {"f": np.nan, "b": True}.get(kind)
        if given is None:
            given = np.iinfo(dtype).max if kind == "u" else np.iinfo(dtype).min
    return np.array(given, dtype)
