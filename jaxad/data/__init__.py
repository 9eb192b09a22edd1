"""Images in: folders and prepared data sets, loaded by name, examined and split.

    load("folder:/my/parts") -> DataSet       its parts are sources: FolderSource, or PreparedSource
    ImageList([...])                          loose images
    ClassNames([...])                         categories without images

Names are imported when they are first used. Batches are in `jaxad.data.batches`, decoding in `jaxad.data.decode`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ClassNames": "class_names",
    "DataSet": "dataset",
    "FolderSource": "folder",
    "ImageList": "images",
    "ImageSource": "source",
    "PreparedSource": "prepared",
    "datasets": "registry",
    "load": "dataset",
    "make_demo": "demo.dataset",
}

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from jaxad.data.class_names import ClassNames as ClassNames
    from jaxad.data.dataset import DataSet as DataSet
    from jaxad.data.dataset import load as load
    from jaxad.data.demo.dataset import make_demo as make_demo
    from jaxad.data.folder import FolderSource as FolderSource
    from jaxad.data.images import ImageList as ImageList
    from jaxad.data.prepared import PreparedSource as PreparedSource
    from jaxad.data.registry import datasets as datasets
    from jaxad.data.source import ImageSource as ImageSource


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxad.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxad.data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
