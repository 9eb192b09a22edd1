"""An ONNX graph while it is built: tensors of known shape, constants, nodes.

Integers are int64 throughout, whatever their type in JAX: runtimes have few kernels for others. Those of uint32 are
kept between 0 and 2**32 - 1 by whoever computes with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 18, 9
"""The first set of operators with bitwise ones, and the format that came with it."""
BITS = 2**32 - 1


@dataclass(frozen=True)
class Tensor:
    """A value that is known when the program runs.

    Attributes:
        name: in the graph.
        shape: what JAX takes it for.
        dtype: its type in JAX.
        held: the shape of what the graph holds, which broadcasts to `shape`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    held: tuple[int, ...]


Value = Any
"""A `Tensor`, or what is known already: a numpy array, or a JAX array of PRNG keys."""


Parameters = Mapping[str, Any]
"""What JAX gives an operation besides values."""


class Unsupported(Exception):
    """What an operation is asked for has no form in ONNX here; the message says what."""


def kind_of(dtype: Any) -> int:
    """The type in ONNX of what has a type in JAX."""
    if dtype == np.bool_:
        return TensorProto.BOOL
    if np.issubdtype(dtype, np.integer):
        return TensorProto.INT64
    return TensorProto.FLOAT


def integers(values: Any) -> np.ndarray:
    """Numbers as the graph holds them."""
    return np.array(values, np.int64)


class Graph:
    """Nodes and constants, in the order in which they are computed."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._count = 0

    def named(self, word: str) -> str:
        """A name that nothing else has."""
        self._count += 1
        return f"{word}_{self._count}"

    def tensor(self, operator: str, inputs: Sequence[str], shape: Sequence[int], dtype: Any, **given: Any) -> Tensor:
        """The one output of a node with these attributes, which has this shape."""
        name = self.node(operator, inputs, **given)[0]
        return Tensor(name, tuple(shape), np.dtype(dtype), tuple(shape))

    def node(self, operator: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """The names of a node's outputs."""
        names = [self.named(operator) for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def constant(self, array: Any) -> str:
        """The name of a constant; those of the same bytes are one."""
        array = np.asarray(array)
        if kind_of(array.dtype) == TensorProto.INT64:
            array = array.astype(np.int64)
        elif array.dtype != np.bool_:
            array = array.astype(np.float32)
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = f"constant_{hashlib.sha256(f'{array.dtype}{array.shape}'.encode() + array.tobytes()).hexdigest()[:24]}"
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, key)
        return key

    def part(self, value: Value) -> tuple[str, tuple[int, ...]]:
        """Name and shape of what stands for a value where operators broadcast."""
        if isinstance(value, Tensor):
            return value.name, value.held
        array = np.asarray(value)
        once = tuple(slice(0, 1) if step == 0 and size > 1 else slice(None) for size, step in _steps(array))
        return self.constant(array[once]), array[once].shape

    def whole(self, value: Value) -> str:
        """The name of a value in its own shape."""
        if not isinstance(value, Tensor):
            return self.constant(value)
        if value.held == value.shape:
            return value.name
        return self.node("Expand", [value.name, self.constant(integers(value.shape))])[0]

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """A value in another shape with as many elements."""
        shape = tuple(shape)
        if not isinstance(value, Tensor):
            return np.asarray(value).reshape(shape)
        if value.held == value.shape == shape:
            return value
        return self.tensor("Reshape", [self.whole(value), self.constant(integers(shape))], shape, value.dtype)

    def transposed(self, value: Value, order: Any) -> Value:
        """A value with its axes in another order."""
        order = tuple(order)
        if not isinstance(value, Tensor):
            return np.transpose(value, order)
        if order == tuple(range(len(order))):
            return value
        shape = [value.shape[axis] for axis in order]
        return self.tensor("Transpose", [self.whole(value)], shape, value.dtype, perm=order)

    def cut(self, value: Value, starts: Any, ends: Any, steps: Any = None) -> Value:
        """A part of a value, along all of its axes."""
        steps = [1] * len(starts) if steps is None else steps
        if not isinstance(value, Tensor):
            return np.asarray(value)[tuple(map(slice, starts, ends, steps))]
        shape = [-(-(end - start) // step) for start, end, step in zip(starts, ends, steps, strict=True)]
        if shape == list(value.shape):
            return value
        places = [self.constant(integers(given)) for given in (starts, ends, range(len(shape)), steps)]
        return self.tensor("Slice", [self.whole(value), *places], shape, value.dtype)

    def joined(self, values: Sequence[Value], axis: int) -> Value:
        """Values one behind the other along an axis."""
        if not any(isinstance(value, Tensor) for value in values):
            return np.concatenate([np.asarray(value) for value in values], axis)
        if len(values) == 1:
            return values[0]
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return self.tensor("Concat", [self.whole(value) for value in values], shape, values[0].dtype, axis=axis)

    def elementwise(self, operator: str, *values: Value, dtype: Any = None, **attributes: Any) -> Tensor:
        """A node whose inputs have one shape, up to broadcasting; `dtype` is that of the first unless it is given."""
        parts = [self.part(value) for value in values]
        held = np.broadcast_shapes(*(shape for _, shape in parts))
        shape = np.broadcast_shapes(*(value.shape for value in values))
        name = self.node(operator, [name for name, _ in parts], **attributes)[0]
        return Tensor(name, shape, np.dtype(values[0].dtype if dtype is None else dtype), held)

    def cast(self, value: Tensor, dtype: Any) -> Tensor:
        """A value as another type; of integers all bits that are left."""
        if kind_of(value.dtype) == kind_of(dtype) and value.dtype != np.uint8:
            same = Tensor(value.name, value.shape, np.dtype(dtype), value.held)
            return self.wrapped(same) if value.dtype != dtype else same
        found = self.elementwise("Cast", value, dtype=dtype, to=kind_of(dtype))
        return self.wrapped(found) if value.dtype != np.uint8 and value.dtype != np.bool_ else found

    def wrapped(self, value: Tensor) -> Tensor:
        """What a uint32 is after arithmetic that may have left its range; other types as they are."""
        if value.dtype != np.uint32:
            return value
        return self.elementwise("BitwiseAnd", value, np.array(BITS, np.uint32))


def _steps(array: np.ndarray) -> zip:
    return zip(array.shape, array.strides, strict=True)
