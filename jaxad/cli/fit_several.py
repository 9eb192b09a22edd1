"""`jaxad fit --seeds`, and files of several configs: a run for each, below one workdir."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from jaxad.cli._command import Command, raise_problems
from jaxad.cli._flags import with_flags
from jaxad.config import bad_seed
from jaxad.errors import TrainingError

if TYPE_CHECKING:
    from jaxad.cli.fit import Fit
    from jaxad.io.progress import Reporter


@dataclass(frozen=True)
class FitSeveral(Command):
    """Runs of `jaxad fit`, by the names of their folders below one workdir."""

    words: ClassVar[str] = "fit"
    keeps: ClassVar[str] = "finished runs and saved steps"

    workdir: Path
    runs: Mapping[str, Fit]
    seeds: tuple[int, ...] = ()

    @classmethod
    def of(cls, commands: Mapping[str, Fit]) -> Self:
        """The runs of commands that share their flags, each with every seed.

        Args:
            commands: by name; "" for the one that has none.
        """
        first = next(iter(commands.values()))
        runs = {}
        for name, command in commands.items():
            for seed in command.seeds or (None,):
                parts = [name, "" if seed is None else f"seed-{seed}"]
                place = "/".join(part for part in parts if part)
                seeded = command if seed is None else _seeded(command, seed)
                runs[place] = dataclasses.replace(seeded, workdir=command.workdir / place)
        return cls(first.workdir, runs, first.seeds)

    @property
    def compilation_cache(self) -> Any:
        """As of every run."""
        return next(iter(self.runs.values())).compilation_cache

    def problems(self) -> list[str]:
        """What cannot work; what is said of all runs once."""
        from jaxad.inference.steps import is_run

        problems = (
            [f"workdir = {self.workdir}: is that of one run; give another for several"] if is_run(self.workdir) else []
        )
        problems += [line for seed in self.seeds for line in bad_seed("seeds", seed)]
        if len(set(self.seeds)) < len(self.seeds):
            problems.append(f"seeds = {' '.join(map(str, self.seeds))}: each must be another one")
        problems += [
            f"seeds = {' '.join(map(str, self.seeds))}: {name} draws nothing, and has no seed; leave that out"
            for name in dict.fromkeys(run.detector for run in self.runs.values() if self.seeds and not _seeds(run))
        ]
        said: dict[str, list[str]] = {}
        for name, run in self.runs.items():
            for line in run.problems():
                said.setdefault(with_flags(line, run), []).append(name)
        every = len(self.runs)
        return problems + [
            line if len(names) == every else f"{', '.join(names)}: {line}" for line, names in said.items()
        ]

    def run(self) -> None:
        """Fits those that are neither finished nor another process's, and says what became of each."""
        from jaxad import parallel
        from jaxad.features import LastFeatures
        from jaxad.io.progress import Reporter
        from jaxad.training.sweep import spread

        raise_problems(self.problems())
        parallel.start_processes()
        reporter = Reporter(quiet=not parallel.is_main_process())
        loaded, features = _Loaded(reporter), LastFeatures()
        # Data that cannot be used are no failure of single runs.
        parallel.in_all(lambda: loaded.of(next(iter(self.runs.values()))))

        def work(name: str) -> None:
            command = self.runs[name]
            dataset, own = loaded.of(command)
            reporter.say(f"{name}:")
            command.fit_on(dataset, own, reporter, features)

        swept = spread(self.workdir, tuple(self.runs), work, reporter)
        for name, holder in swept.elsewhere.items():
            reporter.say(f"{name}: {holder.partition('; ')[0]}")
        if swept.failed:
            lines = [f"{name}: {with_flags(str(error), self.runs[name])}" for name, error in swept.failed.items()]
            done = f"{len(swept.done)} of {len(self.runs)} runs are done"
            failed = TrainingError("\n  ".join([f"{done}; these failed, the same command tries them again:", *lines]))
            raise failed from next(iter(swept.failed.values()))
        reporter.say(f"next: {self._next()}")

    def _next(self) -> str:
        from jaxad.cli.fit import evaluation_command

        return evaluation_command(next(iter(self.runs.values())), self.workdir)


class _Loaded:
    """Data of the run before, which the next one has too, but for what its seed draws."""

    def __init__(self, reporter: Reporter):
        self._reporter, self._last = reporter, (None, None)

    def of(self, command: Fit) -> Any:
        """What a command loads."""
        wanted = (command.options, command.fit_data(), _with(command.settings(), "seed", 0))
        if self._last[0] != wanted:
            self._last = (wanted, command.loaded(self._reporter))
        return self._last[1]


def _seeds(command: Fit) -> list[str]:
    """The parts of a command that have a seed."""
    parts = {name: getattr(command, name) for name in ("model", "train", "options")}
    return [name for name, settings in parts.items() if settings is not None and hasattr(settings, "seed")]


def _seeded(command: Fit, seed: int) -> Fit:
    """The command with another seed of all that it draws."""
    parts = {name: _with(getattr(command, name), "seed", seed) for name in _seeds(command)}
    return dataclasses.replace(command, seeds=(), **parts)


def _with(config: Any, name: str, value: Any) -> Any:
    return dataclasses.replace(config, **{name: value}) if hasattr(config, name) else config
