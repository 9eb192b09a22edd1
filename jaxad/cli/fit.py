"""`jaxad fit`: any registered detector; its flags come from the detector's class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from jaxad.cli._choosing import choose, first_lines
from jaxad.cli._command import command_line, raise_problems
from jaxad.cli._data import licensed, skipped
from jaxad.cli._fitting import FitCommand
from jaxad.cli._reading import one_of, read, read_one, usage_error
from jaxad.cli._run_file import IMAGES, Given, read_runs
from jaxad.config import TrainConfig
from jaxad.errors import ConfigError, DataError

if TYPE_CHECKING:
    from jaxad.data import DataSet, Region, Tiling
    from jaxad.data.fit_options import FitData
    from jaxad.features import LastFeatures
    from jaxad.io.progress import Reporter
    from jaxad.training.fit import Run

AUTOENCODER = "autoencoder"
"""What `jaxad fit` takes besides detectors: VLMDiff's first stage."""


@dataclass(frozen=True, kw_only=True)
class Fit(FitCommand):
    """Fit a detector on normal images, choose its threshold, and keep all in a workdir."""

    words: ClassVar[str] = "fit"

    detector: str
    """Registered name of the detector."""
    config: Annotated[Path | None, tyro.conf.DisallowNone] = None
    """Settings from a file, which flags override: the config.json of a run, or a Python file with a function `config()`
    that returns the like; with `configs()`, a config by name, each is fitted in a folder of --workdir."""
    seeds: Annotated[tuple[int, ...], tyro.conf.DisallowNone] = ()
    """Fit once with each of these seeds, in the folders seed-N of --workdir; runs that are finished are left out, and
    those that another process is at."""
    warm_start: Annotated[Path | None, tyro.conf.arg(name="from"), tyro.conf.DisallowNone] = None
    """Run, or one step of it, with whose trained parameters this one begins, in place of random ones; the model must
    have the same."""
    false_alarm: float = 0.01
    """Share of normal images allowed above the threshold."""
    protocol: str
    """Evaluation protocol in which the threshold is measured."""
    tile: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Side in pixels of tiles that large images are cut into, so that small defects are not resized away."""
    overlap: float = 0.25
    """Share of a tile's side that neighbors have in common at least."""
    tiles_per_image: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Tiles to learn from of each image, drawn by the seed; all if not given."""
    roi: Annotated[str | None, tyro.conf.DisallowNone] = None
    """Part of the images that is judged: a mask image, a JSON file, or JSON such as `{"box": [x0, y0, x1, y1]}`, for
    all categories or by category; roi.png or roi.json in a category's folder if not given."""
    options: Any
    """What the detector asks for besides its settings."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Any:
        """As for other commands; the first word says what to fit, unless a file does, and is the only detector to be
        imported. Several seeds, and a file of several runs, give a command of its own."""
        from jaxad.cli.fit_autoencoder import FitAutoencoder
        from jaxad.cli.fit_several import FitSeveral

        prog = f"jaxad {cls.words}"
        given = Annotated[Path | None, tyro.conf.DisallowNone]
        file = read_one("config", given, words, prog=prog, default=None)
        if file is None or words[:1] == [AUTOENCODER]:
            name = choose(words, _Fitted(), prog=prog, description=first_lines(cls))
            if name == AUTOENCODER:
                return FitAutoencoder.parse(words[1:])
            command = _read_fit(cls, Given(_Fitted().get(name)), words[1:], f"{prog} {name}")
            return FitSeveral.of({"": command}) if command.seeds else command
        named = None if not words or words[0].startswith("-") else choose(words, _Fitted(), prog=prog, description="")
        rest = words if named is None else words[1:]
        runs = {
            name: _read_fit(cls, given, rest, f"{prog} {given.detector.name}")
            for name, given in read_runs(file, named, cls).items()
        }
        single = runs.get("")
        return FitSeveral.of(runs) if single is None or single.seeds else single

    @property
    def chosen_categories(self) -> tuple[str, ...] | None:
        return self.options.categories(self.categories)

    def fit_data(self) -> FitData:
        """The data that `options` load."""
        from jaxad.data.fit_options import FitData

        return FitData(self.data, self.data_dir, dataclasses.replace(self.data_config(), categories=self.categories))

    def tiling(self) -> Tiling | None:
        """How images are cut into tiles, None for whole ones. Raises ConfigError where they cannot be."""
        from jaxad.data.tiles import Tiling

        return None if self.tile is None else Tiling(self.tile, self.overlap)

    def problems(self) -> list[str]:
        """What cannot work."""
        problems = super().problems()
        if not 0 < self.false_alarm < 1:
            problems.append(f"false_alarm = {self.false_alarm}: must lie between 0 and 1")
        try:
            self.tiling()
        except ConfigError as error:
            problems.append(str(error))
        asked = {"from": self.warm_start, "profile": self.profile}
        if self.train is None and (given := [name for name, value in asked.items() if value is not None]):
            problems.append(f"--{', --'.join(given)}: {self.detector} is not trained; leave that out")
        if self.tiles_per_image is not None and (self.tile is None or self.tiles_per_image < 1):
            problems.append(f"tiles_per_image = {self.tiles_per_image}: must be at least 1, and needs tile = 448")
        try:
            self.regions()
        except DataError as error:
            problems.append(str(error))
        return [*problems, *self.options.problems(self.settings(), self.fit_data())]

    def regions(self) -> Mapping[str, Region] | None:
        """The regions that are given, None where there are none. Raises DataError where there is no such file."""
        from jaxad.data.region import given_regions

        return None if self.roi is None else given_regions(self.roi)

    def run(self) -> None:
        """Fits, and says what to do next."""
        from jaxad import parallel
        from jaxad.io.progress import Reporter
        from jaxad.training.run_folder import in_use

        raise_problems(self.problems())
        parallel.start_processes()
        reporter = Reporter(quiet=not parallel.is_main_process())
        # Before anything that takes time, so that a second run on the same workdir is refused at once.
        with in_use(self.workdir):
            dataset, own = parallel.in_all(lambda: self.loaded(reporter))
            result = self.fit_on(dataset, own, reporter)
        reporter.say(f"next: {next_command(self, dataset, result)}")

    def loaded(self, reporter: Reporter) -> tuple[DataSet, dict[str, Any]]:
        """The data, which are shown, and what the options record of them."""
        dataset, own = self.options.load(self.fit_data(), self.settings(), reporter)
        reporter.say(dataset.summary())
        reporter.warn([str(problem) for problem in dataset.problems])
        return dataset, own

    def fit_on(
        self, dataset: DataSet, own: Mapping[str, Any], reporter: Reporter, features: LastFeatures | None = None
    ) -> Run:
        """Fits on data that were `loaded`; with `features` that further runs share."""
        import jax

        from jaxad import parallel
        from jaxad.cli._threshold_table import print_threshold
        from jaxad.data.region import of_categories
        from jaxad.io.text import visible
        from jaxad.training.fit import fit

        seed, given = self.train.seed if self.train else 0, self.regions()
        regions = dataset.regions if given is None else of_categories(given, dataset.categories)
        detector, settings, test = _Fitted().get(self.detector), self.settings(), dataset.test
        if self.train is not None and self.train.eval_every is not None and self.train.eval_on == "test":
            test = self.options.watched(test, settings)
        result = fit(
            # Files of weights may be missing on one machine alone.
            parallel.in_all(lambda: detector.create(settings, key=jax.random.key(seed))),
            dataset.train,
            self.train,
            workdir=self.workdir,
            holdout=dataset.holdout,
            test=test,
            false_alarm=self.false_alarm,
            protocol=self.protocol,
            provenance={**self._asked(), **own, **licensed(dataset), "skipped": skipped(dataset)},
            features=features,
            tiling=self.tiling(),
            tiles_per_image=self.tiles_per_image,
            regions=regions,
            warm_start=self.warm_start,
            profile=self.traced(),
            workers=self.workers,
            reporter=reporter,
        )
        if result.threshold is not None and parallel.is_main_process():
            print_threshold(result.threshold)
        reporter.say(f"{visible(result.workdir)}: done in {result.seconds:.0f} s")
        return result

    def _asked(self) -> dict[str, Any]:
        """Flags that say which images these are, for config.json: with them, it is a file for --config."""
        asked: dict[str, Any] = {"preset": self.preset, "holdout": self.holdout}
        for part, names in ((self, IMAGES), (self.options, [f.name for f in dataclasses.fields(self.options)])):
            defaults = {f.name: f.default for f in dataclasses.fields(part)}
            given = {name: getattr(part, name) for name in names if getattr(part, name) != defaults[name]}
            # Tiles are recorded with what became of them.
            asked |= {
                name: value for name, value in given.items() if name not in ("tile", "overlap", "tiles_per_image")
            }
        return {name: str(value) if isinstance(value, Path) else value for name, value in asked.items()}


def next_command(command: Fit, dataset: DataSet, result: Run) -> str:
    """The command to run after a fit: evaluation where there are labels, else prediction."""
    if any(record.label is not None for record in dataset.test.records):
        return evaluation_command(command, command.workdir)
    checkpoint = ("--checkpoint", command.workdir)
    asked = result.model.inputs.needs_category and len(result.model.categories) > 1
    category = ("--category", "NAME") if asked else ()
    return command_line("predict", "IMAGE_OR_FOLDER", *checkpoint, "--out", f"{command.workdir}-predictions", *category)


def evaluation_command(command: Fit, workdir: Path) -> str:
    """The command that evaluates what a fit has left in a workdir, or several in folders below it."""
    protocol = ("--protocol", command.protocol) if command.protocol != "exact-256" else ()
    own = command.options.evaluation(command.settings())
    flags = [word for name, value in own.items() for word in (f"--{name.replace('_', '-')}", value)]
    where = ("--checkpoint", workdir, *command.data_flags(), *flags, "--out", f"{workdir}-report")
    return command_line("evaluate", *where, *protocol)


class _Fitted:
    """What can be fitted, by name: all registered detectors, and the autoencoder."""

    kind = "detector"

    def names(self) -> tuple[str, ...]:
        from jaxad.detector import detectors

        return (*detectors.names(), AUTOENCODER)

    def get(self, name: str) -> Any:
        from jaxad.cli.fit_autoencoder import FitAutoencoder
        from jaxad.detector import detectors

        return FitAutoencoder if name == AUTOENCODER else detectors.get(name)


def _read_fit(cls: type[Fit], given: Given, words: Sequence[str], prog: str) -> Fit:
    """The command with the flags that a detector's class has; what a file gives takes the place of their defaults."""
    from jaxad.data.fit_options import FitOptions
    from jaxad.detector import Trainable
    from jaxad.metrics.protocols import protocol_names

    detector = given.detector
    config, options = detector.config_class, detector.fit_options or FitOptions
    presets = config.presets()
    whole = {field.name for field in dataclasses.fields(config)} <= given.model.keys()
    if whole and any(word.partition("=")[0] == "--preset" for word in words):
        usage_error(prog, "--preset changes nothing: the file of --config gives every setting; leave it out")
    preset = read_one("preset", one_of(presets), words, prog=prog, default=given.preset or presets[0])
    types = {
        "preset": one_of(presets),
        "protocol": one_of(protocol_names()),
        "model": config,
        "options": Annotated[options, tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone, tyro.conf.arg(name="")],
    }
    defaults = {
        "protocol": detector.protocol,
        **given.flags,
        "preset": preset,
        "model": dataclasses.replace(config.preset(preset), **given.model),
        "options": options(**given.options),
    }
    fixed: dict[str, Any] = {"detector": detector.name}
    if not options.needs_data:
        defaults.setdefault("data", "")
    if issubclass(detector, Trainable):
        usual = _training(config, preset)
        types["train"] = TrainConfig
        train = dataclasses.replace(usual, **given.train)
        # A file that gives two alternatives is refused, as the flags are.
        both = len(given.train.keys() & set(TrainConfig.ALTERNATIVES)) > 1
        defaults["train"] = train if both else train.instead_of(usual)
    else:
        fixed["train"] = None
    if "image_size" not in {field.name for field in dataclasses.fields(config)}:
        fixed["image_size"] = None
    command = read(
        cls, words, prog=prog, description=first_lines(detector), types=types, defaults=defaults, fixed=fixed
    )
    if command.train is None:
        return command
    return dataclasses.replace(command, train=command.train.instead_of(defaults["train"]))


def _training(config: Any, preset: str) -> TrainConfig:
    """How a detector of that config is trained by default under a preset."""
    if hasattr(config, "training"):
        return config.training(preset)
    return TrainConfig.preset(preset) if preset in TrainConfig.presets() else TrainConfig()
