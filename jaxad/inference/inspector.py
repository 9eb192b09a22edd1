"""A checkpoint that is loaded once and asked often.

inspector = jaxad.load("runs/parts")
answer = inspector("photo.jpg", category="bottle")
answer.verdict, answer.score, answer.threshold, answer.scaled, answer.box, answer.mask, answer.overlay
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from PIL import Image

from jaxad import parallel
from jaxad.config import Precision
from jaxad.data import ImageList
from jaxad.detector import Detector
from jaxad.errors import ConfigError, Problem
from jaxad.inference.answer import Answer, Answers
from jaxad.inference.checkpoint import Restored, restore
from jaxad.inference.prediction import OnBad, answers, outcomes, protocol_of
from jaxad.inference.predictor import Predictor
from jaxad.inference.threshold import Threshold, overridden
from jaxad.inference.uncaptioned import Told, Uncaptioned, describe
from jaxad.types import Source

PER_ACCELERATOR = 8
"""Images of a batch for each accelerator; a CPU, which gains nothing by more, gets one."""


class Inspector:
    """A detector that is ready to judge: compiled once, for one batch size, and safe to ask from several threads.

    Fewer images than a batch are filled up to it, more are divided, so that no number of images compiles anything.

    Args:
        detector: trained, or with its memory filled.
        threshold: decides; None gives scores and maps alone.
        protocol: how maps are smoothed and scored; None takes the threshold's, else "exact-256".
        category: what images show where a call does not say.
        batch_size: images that are judged at once; None for `PER_ACCELERATOR` on each GPU or TPU, one on each CPU.
        mesh: devices; None for all.
        restored: the checkpoint that the detector is of, for its identity.
        told: called once where images have no caption and the detector is conditioned by them; None for a Python
            warning.

    Attributes:
        detector, threshold, category: as given.
        batch_size: images of a batch.
        identity: which model judges, JSON-ready (`jaxad.inference.checkpoint.Restored.identity`); empty without
            `restored`.
        model: short form of that, which each answer bears; "" without `restored`.
        notes: what users should know of the detector and its checkpoint.

    Raises:
        ConfigError: a protocol other than the threshold's, or a category that the detector does not know.
    """

    def __init__(
        self,
        detector: Detector,
        threshold: Threshold | None = None,
        *,
        protocol: str | None = None,
        category: str = "",
        batch_size: int | None = None,
        mesh: Mesh | None = None,
        restored: Restored | None = None,
        told: Told | None = None,
    ):
        self.detector, self.threshold = detector, threshold
        self.category = self.known_category(category)
        self.identity = {} if restored is None else restored.identity()
        self.model = "" if restored is None else restored.short_hash
        self.notes = (*(() if restored is None else restored.notes), *detector.notes)
        if threshold is None:
            how = "run fit with --holdout above 0 to its end"
            self.notes += (f"the checkpoint has no threshold ({how}): scores only, no decisions",)
        measured = None
        if restored is not None and threshold is not None and threshold.value is None:
            measured = restored.meta.get("data", {}).get("captions")
        self._uncaptioned = Uncaptioned(detector, measured, told)
        name = protocol_of(threshold, protocol)
        mesh = mesh or parallel.make_mesh()
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        batch_size = batch_size or mesh.size * (1 if on_cpu else PER_ACCELERATOR)
        self._predictor = Predictor(detector, name, batch_size=batch_size, mesh=mesh)
        self.batch_size = self._predictor.batch_size

    def __repr__(self) -> str:
        model = f", checkpoint {self.model}" if self.model else ""
        rule = "no threshold" if self.threshold is None else f"threshold at {self.threshold.source}"
        return f"<Inspector: {self.detector!r}, {rule}{model}>"

    def warm(self) -> Inspector:
        """Compiles the program, so that the first image does not wait for it; returns the inspector itself."""
        self._predictor.warm(self.category)
        return self

    def __call__(
        self,
        images: Any,
        *,
        category: str | None = None,
        captions: str | Sequence[str] | None = None,
        explain: Sequence[str] = (),
        workers: int | None = None,
    ) -> Any:
        """Judges an image, or several.

        Args:
            images: path of a file or a folder, PIL image, uint8 array [h w 3] or [h w], or a list of these.
            category: what they show; None takes the inspector's, else that of the subfolder of a category's name in
                which an image lies, else the only one that the detector knows.
            captions: texts of the images, one for each, for a detector that they condition; None where there are none.
            explain: words for pictures of the method, as of `jaxad.predict`; a program of its own is compiled for them.
            workers: threads that decode several images; None for one per CPU.

        Returns:
            An `Answer` for one image, a list of them, `Answers`, in the order given, for a list or a folder.

        Raises:
            DataError: no images, or some that cannot be used; lists all of them.
            ConfigError: a category that the detector does not know, captions that it does not take, or pictures that it
                does not have.
        """
        folder = isinstance(images, str | Path) and Path(images).is_dir()
        one = not folder and (isinstance(images, str | Path | Image.Image) or hasattr(images, "__array_interface__"))
        source = self.source(images, category)
        if captions is not None:
            describe(source, captions, self.detector)
        # Threads for a single image would take longer to start than it to decode.
        found = Answers(self.stream(source, explain=explain, workers=workers if len(source) > 1 else 0))
        return found[0] if one else found

    def source(self, images: Any, category: str | None = None, *, root: Path | None = None) -> ImageList:
        """Images with the categories that a call would give them; arguments and errors as of a call.

        Files that lie below `root` are taken for those of this folder.
        """
        return ImageList(images, self.category_of(category), known=self.detector.categories, root=root)

    def stream(
        self,
        source: Source,
        *,
        explain: Sequence[str] = (),
        workers: int | None = None,
        on_bad: OnBad | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Answer]:
        """Judges images one by one in memory that does not grow; as `jaxad.inference.prediction.answers`."""
        self._uncaptioned.look(source)
        how: dict[str, Any] = {"explain": explain, "workers": workers, "on_bad": on_bad, "progress": progress}
        return answers(self._predictor, source, threshold=self.threshold, model=self.model, **how)

    def outcomes(
        self, source: Source, *, explain: Sequence[str] = (), workers: int | None = 0
    ) -> list[Answer | tuple[Problem, ...]]:
        """For each image, in order, its answer, or what is wrong with it; `explain` and `workers` as of a call."""
        self._uncaptioned.look(source)
        how: dict[str, Any] = {"threshold": self.threshold, "model": self.model, "explain": explain}
        found = outcomes(self._predictor, source, **how, workers=workers)
        return [outcome for _, outcome in found]

    def check_words(self, words: Sequence[str], *, name: str = "explain") -> tuple[str, ...]:
        """As `Predictor.check_words`."""
        return self._predictor.check_words(words, name=name)

    def category_of(self, category: str | None = None) -> str:
        """What images show: the category named, else the inspector's, else the only one that the detector knows.

        "" where that leaves it open; then a folder of a category's name may tell (`jaxad.data.ImageList`).

        Args:
            category: as named; None where nothing is said, "" for one that is unknown.

        Raises:
            ConfigError: a category that the detector does not know.
        """
        known = self.detector.categories
        named = self.category if category is None else self.known_category(category)
        return named or (known[0] if len(known) == 1 else "")

    @property
    def unlike_uncaptioned(self) -> str:
        """Why the checkpoint's threshold does not hold for an image that comes without caption; "" where it does."""
        return self._uncaptioned.unlike

    def known_category(self, category: str) -> str:
        """The category, if the detector knows it or there is none; else ConfigError."""
        if category and category not in self.detector.categories:
            known = ", ".join(self.detector.categories)
            raise ConfigError(f"category = {category}: the checkpoint knows {known}")
        return category


def load(
    run: Path | str,
    *,
    category: str = "",
    threshold: float | Threshold | None = None,
    classes: Sequence[str] | None = None,
    backbone: str | None = None,
    precision: Precision | None = None,
    batch_size: int | None = None,
    warm: bool = True,
    told: Told | None = None,
) -> Inspector:
    """Loads a checkpoint to be asked often.

    Args:
        run: a workdir (its newest whole step), or one step's folder.
        category: what images show where a call does not say.
        threshold: image score above which an image is anomalous, or a whole rule, in place of the checkpoint's.
        classes: names of categories in place of those of the checkpoint, whose threshold then goes, for detectors that
            need no images of them (`Detector.rename`); "object" alone for anything.
        backbone: folder or id of the pretrained networks, where the checkpoint does not hold them.
        precision: what networks compute in, in place of what the checkpoint says; the threshold stays.
        batch_size: as of `Inspector`.
        warm: whether to compile now; else the first call does.
        told: as of `Inspector`.

    Raises:
        CheckpointError: missing or damaged.
        ConfigError: an unknown category, a threshold where the checkpoint has none, classes that need images, or a
            precision where the detector has no such setting.
    """
    restored = restore(run, backbone=backbone, pass_over=True, **in_precision(precision))
    if classes is not None:
        restored = renamed(restored, classes)
    how: dict[str, Any] = {"category": category, "threshold": threshold, "batch_size": batch_size}
    return of_checkpoint(restored, **how, warm=warm, told=told)


def in_precision(precision: Precision | None) -> dict[str, Any]:
    """The change of settings (`config_changes`) that this precision is; none for None."""
    return {} if precision is None else {"precision": precision}


def renamed(restored: Restored, classes: Sequence[str]) -> Restored:
    """A checkpoint whose detector judges other categories, by their names alone.

    Raises:
        ConfigError: classes that need images (`Detector.rename`).
    """
    known = ", ".join(restored.detector.categories)
    restored.detector.rename(classes)
    if restored.threshold is None:
        return restored
    note = f"the threshold is that of other categories ({known}), and left out"
    return replace(restored, threshold=None, notes=(*restored.notes, note))


def of_checkpoint(
    restored: Restored,
    *,
    category: str = "",
    threshold: float | Threshold | None = None,
    batch_size: int | None = None,
    warm: bool = False,
    told: Told | None = None,
) -> Inspector:
    """The inspector of a checkpoint that is read already; arguments and errors as of `load`."""
    protocol = restored.meta.get("protocol")
    if isinstance(threshold, int | float):
        restored = replace(restored, threshold=overridden(restored.threshold, float(threshold), protocol=protocol))
    elif threshold is not None:
        restored, protocol = replace(restored, threshold=threshold), threshold.protocol
    inspector = Inspector(
        restored.detector,
        restored.threshold,
        protocol=protocol,
        category=category,
        batch_size=batch_size,
        restored=restored,
        told=told,
    )
    return inspector.warm() if warm else inspector
