"""Data sets that can be prepared, found by name; what they hold is known to their builders alone."""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Mapping
from typing import Protocol

from jaxad.registry import Registry


class KnownDataSet(Protocol):
    """What reading a prepared data set asks of the data set's own description.

    Attributes:
        name: of the data set, e.g. "mvtec_ad".
        subsets: by name, how many categories a subset holds in the order of their official names, and the last one.
    """

    @property
    def name(self) -> str: ...

    @property
    def subsets(self) -> Mapping[str, tuple[int, str]]: ...


class _DataSets(Registry[KnownDataSet]):
    """The packages in a package of builders, whose names are those of the data sets, underscores and all."""

    def _own(self) -> tuple[str, ...]:
        # Finding the package does not import it, and with it TFDS.
        spec = importlib.util.find_spec(self._package) if self._package else None
        if spec is None or spec.submodule_search_locations is None:
            return ()
        modules = pkgutil.iter_modules(spec.submodule_search_locations)
        return tuple(sorted(module.name for module in modules if module.ispkg))


datasets: Registry[KnownDataSet] = _DataSets("data set", group="jaxad.datasets", package="tfds_builders")
"""Those that come with jaxad, one package each in `tfds_builders`, and those of other packages."""
