"""Flags that say which images a command reads, and the data set that they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxad.cli._command import Command
from jaxad.cli._flags import flag
from jaxad.config import DataConfig
from jaxad.config.training import NAMES

if TYPE_CHECKING:
    from jaxad.data import DataSet


@dataclass(frozen=True, kw_only=True)
class DataCommand(Command):
    """A command that reads a data set."""

    data: str
    """`folder:PATH` of categories in MVTec layout or the like, `csv:FILE` of a table of images, `demo`, or what
    `jaxad prepare` made: `NAME` or `NAME/CATEGORY`."""
    categories: Annotated[tuple[str, ...] | None, tyro.conf.DisallowNone] = None
    """Categories to use; all if not given."""
    data_dir: Path | None = None
    """Folder of prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""
    workers: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Threads that decode images; one per CPU if not given."""

    good_names: tuple[str, ...] = ()
    """Further names of folders, or labels of a table, of normal images; `good`, `ok` and the like are known."""
    test_good_names: tuple[str, ...] = ()
    """Names of folders of normal images to test on that lie in no folder `test`."""
    defect_names: tuple[str, ...] = ()
    """Names of all folders, or labels, of defective images, if others are to be left out."""
    mask_names: tuple[str, ...] = ()
    """Names of folders of masks; `ground_truth`, `masks` and the like are known."""

    @property
    def chosen_categories(self) -> tuple[str, ...] | None:
        """The categories to load, None for all."""
        return self.categories

    def data_config(self) -> DataConfig:
        """What to load of the data set: here all of it, whatever is wrong with it."""
        return DataConfig(self.chosen_categories, 0.0, "skip", self.workers, **self.names())

    def names(self) -> dict[str, tuple[str, ...]]:
        """What the flags say of names of folders."""
        return {field: getattr(self, field) for field in NAMES}

    def load(self, *, verify: bool | None = None) -> DataSet:
        """The data set, as `jaxad.data.load` gives it.

        Raises:
            DataError: no such data, or problems with it.
        """
        from jaxad import data

        return data.load(self.data, self.data_dir, config=self.data_config(), verify=verify)


@dataclass(frozen=True, kw_only=True)
class WorkCommand(DataCommand):
    """A command that works on the images, so that unusable ones are in its way."""

    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about unusable images: stop before any work, or leave them out and record them."""

    def data_config(self) -> DataConfig:
        """What to load of the data set."""
        return DataConfig(self.chosen_categories, 0.0, self.on_bad, self.workers, **self.names())

    def data_flags(self) -> tuple[object, ...]:
        """The flags that say which images these are, for the command to run next."""
        where = () if self.data_dir is None else ("--data-dir", self.data_dir)
        categories = ("--categories", *self.chosen_categories) if self.chosen_categories else ()
        names = [word for field, given in self.names().items() if given for word in (flag(field), *given)]
        skip = ("--on-bad", "skip") if self.on_bad == "skip" else ()
        return ("--data", self.data, *where, *categories, *names, *skip)


def licensed(dataset: DataSet) -> dict[str, str]:
    """What the license files of the images say, for a run to record."""
    return {"license": dataset.license} if dataset.license else {}


def skipped(dataset: DataSet) -> list[str]:
    """Files left out because they cannot be used."""
    return [problem.file for problem in dataset.problems if problem.fatal]
