"""Names of categories without images: all that a zero-shot system is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from jaxad.errors import DataError
from jaxad.types import Record


class ClassNames:
    """Categories as a source (jaxad.types.Source) that holds no image.

    Args:
        categories: their names, in the order of their numbers.

    Raises:
        DataError: no name, an empty one, or one twice.
    """

    name = "class names"
    records: Sequence[Record] = ()

    def __init__(self, categories: Iterable[str]):
        self.categories = tuple(categories)
        if not self.categories or not all(self.categories) or len(set(self.categories)) < len(self.categories):
            raise DataError(f"class names {list(self.categories)}: needs one or more, all different")

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> NoReturn:
        """There is none."""
        raise IndexError(f"{self.name}: no image {index}")

    def mask(self, index: int) -> NoReturn:
        """There is none."""
        raise IndexError(f"{self.name}: no image {index}")

    def fingerprint(self, index: int) -> NoReturn:
        """There is none."""
        raise IndexError(f"{self.name}: no image {index}")
