"""Flags that `jaxad fit` has for everything that is fitted, and their checks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxad.cli._command import below_one, no_folder
from jaxad.cli._data import WorkCommand
from jaxad.config import DataConfig
from jaxad.errors import ConfigError
from jaxad.io.places import check_storable

HOLDOUT = 0.1


@dataclass(frozen=True, kw_only=True)
class FitCommand(WorkCommand):
    """A command that fits something on the normal training images of a data set."""

    workdir: Path
    """Folder of the run; run the same command again to resume it."""
    preset: str
    """Defaults of --model and --train, by name."""
    image_size: int | None = None
    """Side of the square input in pixels; short for --model.image-size, and goes before it."""
    holdout: float = HOLDOUT
    """Share of normal training images kept out for the threshold, at least 5 per category; 0 for none."""
    compilation_cache: Literal["on", "off"] = "on"
    """Whether compiled programs are kept in the user's cache folder, so that the next command compiles none; the
    variable JAXAD_COMPILATION_CACHE names another folder, or is `off`."""
    profile: Annotated[str | None, tyro.conf.DisallowNone] = None
    """Steps to trace, the first and the last, counted from 1, such as 20:24; the trace lies in the folder profile of
    the workdir."""
    model: Any
    train: Any

    @property
    def run_folder(self) -> Path:
        return self.workdir

    def data_config(self) -> DataConfig:
        """What to load of the data set."""
        return DataConfig(self.chosen_categories, self.holdout, self.on_bad, self.workers, **self.names())

    def settings(self) -> Any:
        """The config of what is fitted."""
        return self.model if self.image_size is None else dataclasses.replace(self.model, image_size=self.image_size)

    def traced(self) -> tuple[int, int] | None:
        """The steps to trace. Raises ConfigError where they are none."""
        from jaxad.training.trace import read_range

        return None if self.profile is None else read_range(self.profile)

    def problems(self) -> list[str]:
        """What cannot work."""
        problems = below_one(self, "workers") + no_folder(self, "workdir")
        if not 0 <= self.holdout < 1:
            problems.append(f"holdout = {self.holdout}: must be at least 0 and below 1")
        checks = [lambda: check_storable("workdir", self.workdir), self.traced]
        checks += [settings.check for settings in (self.settings(), self.train) if settings is not None]
        for check in checks:
            try:
                check()
            except ConfigError as error:
                problems.append(str(error))
        return problems
