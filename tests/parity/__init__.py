"""Comparisons with torch and the libraries built on it, which `torch_oracles` makes importable before any test does."""

from tests.parity import torch_oracles  # noqa: F401
