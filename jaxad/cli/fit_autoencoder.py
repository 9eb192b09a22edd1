"""`jaxad fit autoencoder`: VLMDiff's first stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from jaxad.cli._command import command_line, raise_problems
from jaxad.cli._data import skipped
from jaxad.cli._fitting import HOLDOUT, FitCommand
from jaxad.cli._reading import one_of, read, read_one
from jaxad.config import FirstStageConfig, FirstStageTrainConfig, VLMDiffConfig

if TYPE_CHECKING:
    from jaxad.io.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class FitAutoencoder(FitCommand):
    """Finetune Stable Diffusion's autoencoder, VLMDiff's first stage; leaves it in the workdir's folder autoencoder."""

    words: ClassVar[str] = "fit autoencoder"

    holdout: float = HOLDOUT
    """Share of normal training images kept out, the same ones that `fit vlmdiff` keeps out for its threshold, which
    would be too low on images that the autoencoder knows; 0 for none."""
    model: FirstStageConfig
    train: FirstStageTrainConfig

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """As for other commands."""
        prog, presets = f"jaxad {cls.words}", FirstStageConfig.presets()
        preset = read_one("preset", one_of(presets), words, prog=prog, default=presets[0])
        train = FirstStageTrainConfig.preset(preset)
        defaults = {"preset": preset, "model": FirstStageConfig.preset(preset), "train": train}
        command = read(cls, words, prog=prog, types={"preset": one_of(presets)}, defaults=defaults)
        return dataclasses.replace(command, train=command.train.instead_of(train))

    def run(self) -> None:
        """Finetunes."""
        from jaxad import parallel
        from jaxad.io.progress import Reporter
        from jaxad.training.run_folder import in_use

        raise_problems(self.problems())
        config = self.settings()
        parallel.start_processes()
        with in_use(self.workdir):
            self._fit(config, Reporter(quiet=not parallel.is_main_process()))

    def _fit(self, config: FirstStageConfig, reporter: Reporter) -> None:
        from jaxad import parallel
        from jaxad.training.autoencoder import trainer

        dataset = parallel.in_all(self.load)
        reporter.warn([str(problem) for problem in dataset.problems])
        steps, kept = self.train.steps_for(len(dataset.train)), len(dataset.holdout)
        reporter.say(f"{len(dataset.train)} images ({kept} kept out), {steps} steps of {self.train.images} images")
        run = trainer.fit_autoencoder(
            dataset.train,
            config,
            self.train,
            workdir=self.workdir,
            holdout=dataset.holdout,
            profile=self.traced(),
            provenance={"holdout": self.holdout, "preset": self.preset, "skipped": skipped(dataset)},
            workers=self.workers,
            reporter=reporter,
        )
        before, after = run.errors
        reporter.say(
            f"mean absolute error of reconstructions: {before:.2f} before, {after:.2f} after, of 255 gray levels"
        )
        reporter.say(f"see {self.workdir / trainer.PICTURE}: images, before, after")
        factor = run.autoencoder.config.scaling_factor
        origin = "measured" if config.measures_scale else f"that of {config.source}"
        reporter.say(f"scaling factor of the latents: {factor:.5g} ({origin}), in {run.folder / 'config.json'}")
        words = (*self.data_flags(), "--workdir", "runs/vlmdiff", *self._second_stage(config))
        reporter.say(f"next: {command_line('fit', 'vlmdiff', *words, '--model.autoencoder', run.folder)}")

    def _second_stage(self, config: FirstStageConfig) -> tuple[object, ...]:
        """Flags of `jaxad fit vlmdiff` that make it see the images that this autoencoder does, as it does."""
        preset = () if self.preset == FirstStageConfig.presets()[0] else ("--preset", self.preset)
        second = VLMDiffConfig.preset(self.preset)
        size = () if config.image_size == second.image_size else ("--image-size", config.image_size)
        holdout = () if self.holdout == HOLDOUT else ("--holdout", self.holdout)
        return (*preset, *holdout, *size, *(() if config.pixels == "imagenet" else ("--model.pixels", config.pixels)))
