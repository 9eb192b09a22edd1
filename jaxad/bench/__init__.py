"""Benchmarks: one file for each, whose function `main` becomes `jaxad bench NAME`, with its parameters as flags.

The name of a detector is the name of its benchmark. Other packages add theirs as entry points of the group
`jaxad.benchmarks`, each a function that prints its results.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxad.registry import Registry

benchmarks: Registry[Callable[..., None]] = Registry("benchmark", group="jaxad.benchmarks", package="jaxad.bench")
