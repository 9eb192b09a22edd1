"""The compute type of networks; parameters, norms, softmax, schedules and metrics stay float32."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import Precision
from jaxad.nn.platforms import target_platform
from jaxad.types import Array


def compute_dtype(precision: Precision) -> Literal["float32", "bfloat16"]:
    """ "float32" or "bfloat16"; "auto" is float32 on CPU and bfloat16 on GPU and TPU."""
    if precision != "auto":
        return precision
    return "float32" if target_platform() == "cpu" else "bfloat16"


class Linear(nnx.Linear):
    """A linear layer whose products run in `dtype` and accumulate and come out in float32, forwards and backwards.

    In bfloat16 that is the form that matrix units are made for; the gradient of the kernel stays float32.
    """

    def __call__(self, inputs: Array) -> jax.Array:
        """[... i] -> float32 [... o]."""
        product: Any = _matmul(inputs, self.kernel[...], str(jnp.dtype(self.dtype or jnp.float32)))
        if self.bias is None:
            return product
        return product + self.bias[...].reshape((1,) * (product.ndim - 1) + (-1,))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(x, kernel, dtype):
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)


def _matmul_forward(x, kernel, dtype):
    low, kernel_low = x.astype(dtype), kernel.astype(dtype)
    # An empty array carries the type of x, which its gradient must have.
    return jnp.matmul(low, kernel_low, preferred_element_type=jnp.float32), (low, kernel_low, jnp.zeros(0, x.dtype))


def _matmul_backward(dtype, saved, gradient):
    x, kernel, like = saved
    gradient = gradient.astype(dtype)
    to_x = jnp.matmul(gradient, kernel.T, preferred_element_type=jnp.float32).astype(like.dtype)
    rows, columns = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    return to_x, jnp.matmul(rows.T, columns, preferred_element_type=jnp.float32)


_matmul.defvjp(_matmul_forward, _matmul_backward)
