"""What an array of a detector is, told by the type of its variable: trained, frozen, a statistic, or memory.

`flax.nnx.Param` is what training changes. The others are below; filters of `jaxad.nn.module_state.split` choose among
them, never lists of paths.
"""

from __future__ import annotations

from typing import TypeVar

import jax.numpy as jnp
from flax import nnx

Module = TypeVar("Module", bound=nnx.Module)


class Pretrained(nnx.Variable):
    """An array of a pretrained network, which training leaves as it is."""


class Frozen(Pretrained):
    """Of a network that makes features or judges them: the training step does not read it and does not hold it."""


class Fixed(Pretrained):
    """Of a network that the loss runs through: the training step reads it, and does not change it."""


class Statistic(nnx.Variable):
    """What training data say, found before the first step or after the last, such as the mean of a channel."""


class Memory(nnx.Variable):
    """What a detector remembers of images; its shape depends on what was seen. A vector while it is empty."""

    @classmethod
    def empty(cls) -> Memory:
        """One that nothing has filled yet."""
        return cls(jnp.zeros(1, jnp.float32))

    @property
    def filled(self) -> bool:
        """Whether something has."""
        return self[...].ndim > 1


def freeze(module: Module, kind: type[Pretrained] = Frozen) -> Module:
    """Makes every array of a module one of `kind`, in place, and returns the module; statistics of norms too.

    A module that other modules share is frozen for all of them. Statistics and memories of detectors stay as they are.
    """
    for _, node in list(nnx.iter_graph(module)):
        if isinstance(node, nnx.Module):
            for name, value in list(vars(node).items()):
                if isinstance(value, nnx.Variable) and not isinstance(value, kind | Statistic | Memory):
                    setattr(node, name, kind(value.get_value()))
    return module
