"""Weight files in, tensors out: `read_tensors` of one file; more is in the modules of this package."""

from jaxad.models.weights.loader import read_tensors

__all__ = ["read_tensors"]
