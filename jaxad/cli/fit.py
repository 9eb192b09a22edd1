"""`jaxad fit`: any registered detector; its flags come from the detector's class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from jaxad.cli._choosing import choose, first_lines
from jaxad.cli._command import command_line, raise_problems
from jaxad.cli._data import skipped
from jaxad.cli._fitting import FitCommand
from jaxad.cli._reading import one_of, read, read_one
from jaxad.config import TrainConfig
from jaxad.errors import ConfigError, DataError

if TYPE_CHECKING:
    from jaxad.data import DataSet, Region, Tiling
    from jaxad.data.fit_options import FitData
    from jaxad.io.progress import Reporter
    from jaxad.training.trainer import Run

AUTOENCODER = "autoencoder"
"""What `jaxad fit` takes besides detectors: VLMDiff's first stage."""


@dataclass(frozen=True, kw_only=True)
class Fit(FitCommand):
    """Fit a detector on normal images, choose its threshold, and keep all in a workdir."""

    words: ClassVar[str] = "fit"

    detector: str
    """Registered name of the detector."""
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
        """As for other commands; the first word says what to fit, and is the only detector to be imported."""
        from jaxad.cli.fit_autoencoder import FitAutoencoder

        prog = f"jaxad {cls.words}"
        name = choose(words, _Fitted(), prog=prog, description=first_lines(cls))
        if name == AUTOENCODER:
            return FitAutoencoder.parse(words[1:])
        return _read_fit(cls, _Fitted().get(name), words[1:], f"{prog} {name}")

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

    def run(self) -> None:
        """Fits, and says what to do next."""
        from jaxad import parallel
        from jaxad.data.region import given_regions
        from jaxad.io.progress import Reporter
        from jaxad.training.run_folder import in_use

        config, data = self.settings(), self.fit_data()
        problems = self.problems()
        if not 0 < self.false_alarm < 1:
            problems.append(f"false_alarm = {self.false_alarm}: must lie between 0 and 1")
        try:
            self.tiling()
        except ConfigError as error:
            problems.append(str(error))
        if self.tiles_per_image is not None and (self.tile is None or self.tiles_per_image < 1):
            problems.append(f"tiles_per_image = {self.tiles_per_image}: must be at least 1, and needs tile = 448")
        try:
            regions = None if self.roi is None else given_regions(self.roi)
        except DataError as error:
            regions = None
            problems.append(str(error))
        raise_problems([*problems, *self.options.problems(config, data)])

        parallel.start_processes()
        # Before anything that takes time, so that a second run on the same workdir is refused at once.
        with in_use(self.workdir):
            self._fit(config, data, regions, Reporter(quiet=not parallel.is_main_process()))

    def _fit(self, config: Any, data: FitData, regions: Mapping[str, Region] | None, reporter: Reporter) -> None:
        import jax

        from jaxad import parallel
        from jaxad.cli._threshold_table import print_threshold
        from jaxad.data.region import of_categories
        from jaxad.io.text import visible
        from jaxad.training.trainer import fit

        dataset, own = self.options.load(data, config, reporter)
        reporter.say(dataset.summary())
        reporter.warn([str(problem) for problem in dataset.problems])
        names = {field: list(given) for field, given in self.names().items() if given}
        provenance = {
            **own,
            "holdout": self.holdout,
            "names": names,
            "preset": self.preset,
            "skipped": skipped(dataset),
        }
        seed = self.train.seed if self.train else 0
        regions = dataset.regions if regions is None else of_categories(regions, dataset.categories)
        result = fit(
            _Fitted().get(self.detector).create(config, key=jax.random.key(seed)),
            dataset.train,
            self.train,
            workdir=self.workdir,
            holdout=dataset.holdout,
            false_alarm=self.false_alarm,
            protocol=self.protocol,
            provenance=provenance,
            tiling=self.tiling(),
            tiles_per_image=self.tiles_per_image,
            regions=regions,
            workers=self.workers,
            reporter=reporter,
        )
        if result.threshold is not None and parallel.is_main_process():
            print_threshold(result.threshold)
        reporter.say(f"{visible(result.workdir)}: done in {result.seconds:.0f} s")
        reporter.say(f"next: {next_command(self, dataset, result)}")


def next_command(command: Fit, dataset: DataSet, result: Run) -> str:
    """The command to run after a fit: evaluation where there are labels, else prediction."""
    checkpoint = ("--checkpoint", command.workdir)
    if any(record.label is not None for record in dataset.test.records):
        protocol = ("--protocol", command.protocol) if command.protocol != "exact-256" else ()
        own = command.options.evaluation(command.settings())
        flags = [word for name, value in own.items() for word in (f"--{name.replace('_', '-')}", value)]
        out = ("--out", f"{command.workdir}-report", *protocol)
        return command_line("evaluate", *checkpoint, *command.data_flags(), *flags, *out)
    asked = result.model.inputs.needs_category and len(result.model.categories) > 1
    category = ("--category", "NAME") if asked else ()
    return command_line("predict", "IMAGE_OR_FOLDER", *checkpoint, "--out", f"{command.workdir}-predictions", *category)


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


def _read_fit(cls: type[Fit], detector: Any, words: Sequence[str], prog: str) -> Fit:
    """The command with the flags that a detector's class has."""
    from jaxad.data.fit_options import FitOptions
    from jaxad.detector import Trainable
    from jaxad.metrics.protocols import protocol_names

    config, options = detector.config_class, detector.fit_options or FitOptions
    presets = config.presets()
    preset = read_one("preset", presets, words, prog=prog)
    types = {
        "preset": one_of(presets),
        "protocol": one_of(protocol_names()),
        "model": config,
        "options": Annotated[options, tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone, tyro.conf.arg(name="")],
    }
    defaults = {"preset": preset, "protocol": detector.protocol, "model": config.preset(preset), "options": options()}
    fixed: dict[str, Any] = {"detector": detector.name}
    if not options.needs_data:
        defaults["data"] = ""
    if issubclass(detector, Trainable):
        types["train"], defaults["train"] = TrainConfig, _training(config, preset)
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
