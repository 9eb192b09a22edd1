"""What `jax.random` is made of, in ONNX: bits by Threefry, and normal noise from them."""

from __future__ import annotations

import numpy as np

from jaxad.deploy.onnx_graph import Graph, Parameters, Tensor, Unsupported, Value

_CENTRAL = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503)
_CENTRAL += (-0.00417768164, 0.246640727, 1.50140941)
_TAILS = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613)
_TAILS += (0.00943887047, 1.00167406, 2.83297682)


def shifted(operator: str, graph: Graph, p: Parameters, x: Tensor, by: Value) -> Tensor:
    """x, uint32 [...], with its bits moved by a constant: a product with a power of 2 ("Mul") or a quotient ("Div")."""
    if isinstance(by, Tensor) or x.dtype != np.uint32:
        raise Unsupported("shifting by what is not constant, or what is not of type uint32")
    return graph.wrapped(graph.elementwise(operator, x, np.left_shift(np.int64(1), np.asarray(by, np.int64))))


def bitcast(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
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


def erf_inv(graph: Graph, p: Parameters, x: Tensor) -> Tensor:
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
    inner = graph.elementwise("Less", w, number(5), dtype=np.bool_)
    return do("Mul", graph.elementwise("Where", inner, central, tails, dtype=np.float32), x)


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(graph: Graph, p: Parameters, *values: Value) -> list[Tensor]:
    """Threefry-2x32 of 20 rounds (J. Salmon et al., SC 2011), as `jax.random` has it."""

    def do(operator: str, a: Value, b: Value) -> Tensor:
        return graph.wrapped(graph.elementwise(operator, a, b, dtype=np.uint32))

    def rotated(x: Tensor, by: int) -> Tensor:
        parts = [shifted("Mul", graph, p, x, np.uint32(by)), shifted("Div", graph, p, x, np.uint32(32 - by))]
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
