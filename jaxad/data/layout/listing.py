"""What a folder or a list holds, whichever way it was read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jaxad.errors import DataError, Problem
from jaxad.io.text import typed
from jaxad.types import Record


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        root: the folder.
        train, validation, test: records in the order of their identities.
        problems: what the names tell: empty categories, masks without image, notes on what is left out.
        regions: by category the file that says which part of its images is judged.
    """

    root: Path
    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    problems: tuple[Problem, ...] = field(default=())
    regions: dict[str, Path] = field(default_factory=dict)


def chosen_categories(root: Path, wanted: tuple[str, ...] | None, there: Collection[str]) -> tuple[str, ...]:
    """Those of the categories that are wanted, as `jaxad.io.text` has them; all for None.

    Raises:
        DataError: one is not there.
    """
    if wanted is None:
        return tuple(there)
    wanted = tuple(typed(name, there) for name in wanted)
    if missing := [name for name in wanted if name not in there]:
        raise DataError(f"{root}: no category {', '.join(missing)}; there are {', '.join(there)}")
    return wanted


def ordered(records: Iterable[Record]) -> tuple[Record, ...]:
    """Records in the order of their identities."""
    return tuple(sorted(records, key=lambda record: record.identity))
