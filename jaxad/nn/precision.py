"""The compute type of networks; parameters, norms, softmax, schedules and metrics stay float32."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from jaxad.config import Precision
from jaxad.nn.platforms import target_platform
from jaxad.types import Array


def compute_dtype(precision: Precision) -> Literal["float32", "bfloat16"]:
    """ "float32" or "bfloat16"; "auto" is float32 on CPU and bfloat16 on GPU and TPU."""
    if precision != "auto":
        return precision
    return "float32" if target_platform() == "cpu" else "bfloat16"


class Linear(nnx.Linear):
    """A linear layer whose products run in `dtype` and accumulate in float32, forwards and backwards.

    In bfloat16 that is the form that matrix units are made for; the gradient of the kernel stays float32.

    Args:
        inputs, outputs: widths.
        rounded: whether the output is of type `dtype`: for what follows in that type anyway, such as attention, it is
            half as much to write and to keep. Else it is float32.
        dtype: compute type, None for float32.
        options: of `flax.nnx.Linear`.
    """

    def __init__(self, inputs: int, outputs: int, *, rounded: bool = False, dtype: Any = None, **options: Any):
        super().__init__(inputs, outputs, dtype=dtype, **options)
        self.rounded = rounded

    def __call__(self, inputs: Array) -> jax.Array:
        """[... i] -> [... o]."""
        dtype = str(jnp.dtype(self.dtype or jnp.float32))
        output = dtype if self.rounded else "float32"
        y = product(inputs, self.kernel[...], dtype, output)
        if self.bias is None:
            return y
        return (y + self.bias[...].reshape((1,) * (y.ndim - 1) + (-1,))).astype(output)


class Conv(nnx.Conv):
    """A convolution of images [b h w c] that runs in `dtype`; the gradient of its kernel is summed in float32.

    Args:
        inputs, outputs: channels.
        kernel_size: rows and columns.
        strides, padding, use_bias, kernel_init: as `flax.nnx.Conv` has them; padding in zeros.
        dtype: compute type, None for float32.
        rngs: keys of the parameters.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: tuple[int, int],
        *,
        strides: int = 1,
        padding: Any = "SAME",
        use_bias: bool = True,
        kernel_init: Any = None,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        options: Any = {"padding": padding, "use_bias": use_bias, "dtype": dtype, "rngs": rngs}
        options |= {} if kernel_init is None else {"kernel_init": kernel_init}
        super().__init__(inputs, outputs, kernel_size, strides, **options)

    def __call__(self, inputs: Array) -> jax.Array:
        """[b h w i] -> [b h' w' o] of type `dtype`."""
        dtype = str(jnp.dtype(self.dtype or jnp.float32))
        strides: Any = (self.strides,) * 2
        padding: Any = self.padding
        if isinstance(padding, int):
            padding = ((padding, padding),) * 2
        elif not isinstance(padding, str):
            padding = tuple(tuple(pair) for pair in padding)
        y: Any = _convolve(jnp.asarray(inputs), self.kernel[...], dtype, strides, padding)
        # In float32 for the sake of the bias's gradient, which is a sum over all positions.
        return y if self.bias is None else (y + self.bias[...].reshape(1, 1, 1, -1)).astype(dtype)


def with_rounded_parameters(module: nnx.Module, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of a module, the large ones that it rounds as it reads them in the type in which it computes: outputs stay
    the same, bit for bit.

    For what is only read: no program rounds it anew, or even at every step of a loop, and devices that divide it send
    16 bits to each other. Of linear layers and convolutions it is the kernel; other modules name such arrays in
    `ROUNDED`, and have the type in `dtype`.

    Args:
        module: whose layers say the types.
        arrays: some or all of its arrays by path, as `jaxad.nn.module_state.split` gives them, or their shapes alone.

    Returns:
        All of `arrays`; the others as they are, the rounded ones where they lie, on the host or on devices.
    """
    low = {
        "/".join(map(str, (*path, name))): jnp.dtype(node.dtype)
        for path, node in nnx.iter_graph(module)
        for name in (("kernel",) if isinstance(node, nnx.Linear | nnx.Conv) else getattr(type(node), "ROUNDED", ()))
        if node.dtype
    }
    # In the order of `arrays`, which is the same in all processes of a run on several hosts.
    types = {path: str(low[path]) for path in arrays if path in low and low[path] != arrays[path].dtype}
    placed = {path: arrays[path] for path in types if isinstance(arrays[path], jax.Array)}
    found = _cast(placed, tuple(types[path] for path in placed)) if placed else {}

    def rounded(path: str) -> Any:
        if isinstance(array := arrays[path], jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(array.shape, types[path])
        return array.astype(types[path])

    return {**arrays, **found, **{path: rounded(path) for path in types if path not in placed}}


@partial(jax.jit, static_argnums=1)
def _cast(arrays: dict[str, jax.Array], types: tuple[str, ...]) -> dict[str, jax.Array]:
    """Arrays in these types, by one program for all."""
    return {path: array.astype(dtype) for (path, array), dtype in zip(arrays.items(), types, strict=True)}


def whole(kernel: jax.Array) -> jax.Array:
    """What is multiplied with images that are divided over devices: each device has all of it while it does.

    Left to itself, the compiler divides the channels of small images instead and sends the images to and fro, and
    gathers kernels before they are rounded.

    Returns:
        The same array of any shape.
    """
    if jax.sharding.get_abstract_mesh().size <= 1:
        return kernel
    return jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(kernel), PartitionSpec())


def rounded(kernel: jax.Array, dtype: str) -> jax.Array:
    """A kernel as products in `dtype` see it, but float32, whole on every device; its gradient is not rounded."""
    found: Any = _rounded(kernel, dtype)
    return found


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _rounded(kernel, dtype):
    return whole(kernel.astype(dtype)).astype(jnp.float32)


_rounded.defvjp(lambda kernel, dtype: (_rounded(kernel, dtype), None), lambda dtype, saved, gradient: (gradient,))


def product(x: Array, y: Array, dtype: Any, output: Any) -> jax.Array:
    """A product of matrices, which runs in `dtype` and accumulates in float32, forwards and backwards.

    Args:
        x: [... n i].
        y: a stack [... i o] as x has it, or one kernel [i o] for all, which every device has whole (`whole`); its
            gradient is float32 until it is cast to the type of y.
        dtype: compute type.
        output: type of the result.

    Returns:
        [... n o].
    """
    found: Any = _product(x, y, str(jnp.dtype(dtype)), str(jnp.dtype(output)))
    return found


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x, y, dtype, output):
    return _matmul(x.astype(dtype), _gathered(y.astype(dtype)), output)


def _product_forward(x, y, dtype, output):
    # Empty arrays carry the types of x and y, which their gradients must have.
    types = jnp.zeros(0, x.dtype), jnp.zeros(0, y.dtype)
    return _product(x, y, dtype, output), (x.astype(dtype), y.astype(dtype), *types)


def _product_backward(dtype, output, saved, gradient):
    x, y, like_x, like_y = saved
    gradient = gradient.astype(dtype)
    to_x = _matmul(gradient, _gathered(y).mT, like_x.dtype)
    if y.ndim == 2:
        x, gradient = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    # Over several devices this is also the type in which a kernel's sums are added.
    return to_x, jnp.matmul(x.mT, gradient, preferred_element_type=jnp.float32).astype(like_y.dtype)


_product.defvjp(_product_forward, _product_backward)


def _matmul(x: jax.Array, y: jax.Array, output: Any) -> jax.Array:
    """x @ y of that type. On CPUs float32 rounded to it: XLA has their matrix units write nothing narrower."""
    if target_platform() == "cpu":
        return jnp.matmul(x, y, preferred_element_type=jnp.float32).astype(output)
    return jnp.matmul(x, y, preferred_element_type=output)


def _gathered(y: jax.Array) -> jax.Array:
    """A kernel [i o] whole on each device; a stack of matrices, which is divided as the images are, as it is."""
    return whole(y) if y.ndim == 2 else y


def _conv(x, kernel, strides, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, dtype, strides, padding):
    return _conv(x.astype(dtype), whole(kernel.astype(dtype)), strides, padding)


def _convolve_forward(x, kernel, dtype, strides, padding):
    types = jnp.zeros(0, x.dtype), jnp.zeros(0, kernel.dtype)
    return _convolve(x, kernel, dtype, strides, padding), (x.astype(dtype), kernel.astype(dtype), *types)


def _convolve_backward(dtype, strides, padding, saved, gradient):
    x, kernel, like_x, like_kernel = saved
    _, to_x = jax.vjp(lambda x: _conv(x, whole(kernel), strides, padding), x)
    # A convolution of 16-bit arrays would round the sums of each device; matrix units take the wider ones as fast.
    wide = x.astype(jnp.float32)
    _, to_kernel = jax.vjp(lambda kernel: _conv(wide, kernel, strides, padding), kernel.astype(jnp.float32))
    (found,) = to_kernel(gradient.astype(jnp.float32))
    return to_x(gradient)[0].astype(like_x.dtype), found.astype(like_kernel.dtype)


_convolve.defvjp(_convolve_forward, _convolve_backward)
