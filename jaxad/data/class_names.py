"""Names of categories without images: all that a zero-shot detector is told."""

from __future__ import annotations

import dataclasses

from jaxad.data.folder import FolderSource
from jaxad.errors import DataError
from jaxad.types import Record


@dataclasses.dataclass(frozen=True, repr=False)
class ClassNames(FolderSource):
    """Categories as a source that holds no image.

    Attributes:
        names: of the categories, in the order of their numbers.

    Raises:
        DataError: no name, an empty one, or one twice.
    """

    name: str = dataclasses.field(default="class names", init=False)
    records: tuple[Record, ...] = dataclasses.field(default=(), init=False)
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or not all(self.names) or len(set(self.names)) < len(self.names):
            raise DataError(f"class names {list(self.names)}: needs one or more, all different")

    @property
    def categories(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self.names)
