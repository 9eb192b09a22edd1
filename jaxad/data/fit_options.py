"""What a detector asks of `jaxad fit` besides its settings: a dataclass of further flags that say what it is fitted on.

A detector names its class as `Detector.fit_options`; the fields become flags of `jaxad fit NAME`, without a prefix.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jaxad.config import DataConfig, bad_seed
from jaxad.data.captions.attach import Captions
from jaxad.data.captions.record import caption_record, described, record_of
from jaxad.data.class_names import ClassNames
from jaxad.data.dataset import DataSet, Draw, load
from jaxad.data.folder import FolderSource
from jaxad.data.source import ImageSource
from jaxad.errors import DataError
from jaxad.io.progress import Reporter
from jaxad.io.text import typed


@dataclass(frozen=True)
class FitData:
    """Which images a detector is fitted on; the arguments of `jaxad.data.load`.

    Attributes:
        name: of the data set; "" for none.
        folder: of prepared data sets, None for the usual one.
        config: categories as given, hold-out, what to do about bad images, threads.
    """

    name: str
    folder: Path | None = None
    config: DataConfig = field(default_factory=DataConfig)

    def load(self, draw: Draw | None = None, **changes: Any) -> DataSet:
        """The data set, with changes to `config`; `draw` as of `jaxad.data.load`.

        Raises:
            DataError: no such data, or problems with it.
        """
        return load(self.name, self.folder, config=dataclasses.replace(self.config, **changes), draw=draw)


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Base of these options, and all that there is to say for a detector that takes no more than images."""

    needs_data: ClassVar[bool] = True
    """Whether there must be a data set."""

    def categories(self, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """The categories to load, None for all, where `given` ones were asked for."""
        return given

    def problems(self, config: Any, data: FitData) -> list[str]:
        """What cannot work under a detector's config: a line for each problem, which names the parameter."""
        return []

    def load(self, data: FitData, config: Any, reporter: Reporter) -> tuple[DataSet, dict[str, Any]]:
        """The data to fit a detector of that config on, and JSON values to record with the run.

        Raises:
            DataError: unusable data, or data that do not fit these options.
        """
        return data.load(), {}

    def watched(self, test: Any, config: Any) -> Any:
        """The test images as the detector takes them, for evaluations while it is trained.

        Raises:
            DataError: what these options name does not describe them.
        """
        return test

    def evaluation(self, config: Any) -> dict[str, object]:
        """What to evaluate the fitted detector with, by the names of the parameters of `jaxad evaluate`."""
        return {}


@dataclass(frozen=True, kw_only=True)
class CaptionOptions(FitOptions):
    """Of a detector that learns from captions.

    Its config says when they are used, in `captions` ("train", "always" or "never"), and whether it comes `trained`.
    """

    captions: Path | None = None
    """Captions of the training images in the published layout, a folder or file as `jaxad caption` writes it; those
    stored with a prepared data set if not given."""

    def problems(self, config: Any, data: FitData) -> list[str]:
        """Captions that are not used."""
        if self.captions is not None and config.captions == "never":
            return [f'captions = {self.captions}: not used by a config with captions "never", which DiAD\'s preset has']
        return []

    def load(self, data: FitData, config: Any, reporter: Reporter) -> tuple[DataSet, dict[str, Any]]:
        """The data with the captions, and what to record of those of the training images."""
        dataset = data.load()
        if config.trained and len(dataset.holdout):
            reporter.warn(
                [
                    "the threshold is chosen on images that the checkpoint's authors may have trained on, and may be "
                    "too low; take images that they cannot have had, or a hold-out of 0 for no threshold"
                ]
            )
        if config.captions == "never" or (config.captions == "train" and config.trained):
            return dataset, {"captions": record_of(None, ())}
        captions = None if self.captions is None else Captions.load(self.captions, "train")
        train, holdout = (described(part, captions) for part in (dataset.train, dataset.holdout))
        record = caption_record(train, captions, "train", reporter, besides=holdout.records)
        return dataclasses.replace(dataset, train=train, holdout=holdout), {"captions": record}

    def watched(self, test: Any, config: Any) -> Any:
        """With their captions, where these condition the detector too; a file has those of training images alone."""
        if self.captions is None or config.captions != "always" or not self.captions.is_dir():
            return test
        return described(test, Captions.load(self.captions, "test"))

    def evaluation(self, config: Any) -> dict[str, object]:
        """The captions of the test images, where they condition the detector too."""
        if self.captions is None or config.captions != "always":
            return {}
        # A folder holds those of both parts; a file those of the training images alone.
        return {"captions": self.captions if self.captions.is_dir() else "TEST_CAPTIONS"}


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions(FitOptions):
    """Of a detector that remembers a few normal images, or only the names of categories; its config has `models`."""

    needs_data: ClassVar[bool] = False

    shots: int = 0
    """Normal images of each category that are remembered, chosen before any is held out; with 0 only the categories'
    names matter."""
    seed: int = 0
    """Seed of the draw of these images; with --reference-lists the number of the run."""
    classes: tuple[str, ...] | None = None
    """Names of the categories; those of the data if not given."""
    reference_lists: Path | None = None
    """Folder of published choices, CATEGORY/selected_samples_per_run.txt, in place of the draw."""

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(map(typed, self.classes)))

    def categories(self, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """The given ones, or those whose names were given."""
        return given or self.classes

    def problems(self, config: Any, data: FitData) -> list[str]:
        """Everything about shots and names that cannot work."""
        found = [f"shots = {self.shots}: must be at least 0"] if self.shots < 0 else []
        found += self._choice_problems(data)
        if self.shots > 0 and not data.name:
            found.append(f"shots = {self.shots}: needs images to take them from; give data = NAME")
        if not data.name and not self.classes:
            found.append("classes: give the names of the categories, or data that have them")
        if "diffusion" not in config.models and config.image_size != type(config).image_size:
            found.append(
                f"image_size = {config.image_size}: not used by {config.label}, which has no diffusion model; give "
                f"clip_image_size = {config.image_size}"
            )
        if self.reference_lists is not None and not self.shots:
            found.append(f"reference_lists = {self.reference_lists}: not used with shots = 0")
        return found

    def _choice_problems(self, data: FitData) -> list[str]:
        """What cannot work of how images are chosen, whatever becomes of them."""
        found = bad_seed("seed", self.seed)
        if self.classes and data.config.categories:
            found.append("classes, categories: mean the same here; give one of them")
        return found

    def load(self, data: FitData, config: Any, reporter: Reporter) -> tuple[DataSet, dict[str, Any]]:
        """The data with what is remembered as its training part, and what to record of the choice."""
        if data.name:
            dataset = data.load(self._draw, categories=self.categories(data.config.categories))
        else:
            none = FolderSource("no images", ())
            dataset = DataSet("class names", none, none, none, self.classes or ())
        if self.shots:
            self._check_all_have_images(dataset, data.name)
        else:
            dataset = dataclasses.replace(dataset, train=ClassNames(dataset.categories))
        lists = None if self.reference_lists is None else str(self.reference_lists)
        names = {name: [] for name in dataset.categories}
        for record in dataset.train.records:
            names[record.category].append(record.identity or str(record.file))
        return dataset, {"shots": self.shots, "seed": self.seed, "reference_lists": lists, "references": names}

    def _draw(self, images: ImageSource) -> ImageSource:
        """What is remembered of all normal images."""
        return images.per_class(self.shots, self.seed, lists=self.reference_lists) if self.shots else images.select(())

    def _check_all_have_images(self, dataset: DataSet, name: str) -> None:
        if without := [category for category in dataset.categories if category not in dataset.train.categories]:
            others = [category for category in dataset.categories if category not in without]
            parameter = "classes" if self.classes else "categories"
            leave = f"leave them out ({parameter} = {' '.join(others)})" if others else ""
            ways = ("add normal ones (CATEGORY/train/good)", leave, "look at none (shots = 0)")
            raise DataError(
                f"{name}: shots = {self.shots} needs training images of every category, and there are none of "
                f"{', '.join(without)}: {', or '.join(way for way in ways if way)}"
            )


@dataclass(frozen=True, kw_only=True)
class LearnedReferenceOptions(ReferenceOptions):
    """Of a detector that is trained on a few normal images of each category."""

    needs_data: ClassVar[bool] = True

    shots: int = 1
    """Normal images of each category that are learned from, chosen before any is held out."""

    def problems(self, config: Any, data: FitData) -> list[str]:
        """Everything about shots and names that cannot work."""
        found = [f"shots = {self.shots}: must be at least 1"] if self.shots < 1 else []
        return found + self._choice_problems(data)
