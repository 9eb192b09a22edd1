"""The version of jaxad that is installed, which its build took from git (`pyproject.toml`), and those of others."""

from __future__ import annotations

import platform
from importlib import metadata

UNKNOWN = "0.0"
"""Version of sources that are not installed, or that were installed without a trace of git."""


def _installed() -> str:
    try:
        return metadata.version("jaxad")
    except metadata.PackageNotFoundError:
        return UNKNOWN


__version__ = _installed()


def versions() -> dict[str, str]:
    """Versions of Python, of jaxad and of the libraries that its numbers depend on."""
    others = ("jax", "jaxlib", "flax", "optax", "ott-jax", "numpy")
    own = {"python": platform.python_version(), "jaxad": __version__}
    return own | {name: metadata.version(name) for name in others}
