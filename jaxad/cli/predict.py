"""`jaxad predict`: a checkpoint's answers for photos."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

import tyro

from jaxad.cli._command import Command, below_one, raise_problems
from jaxad.cli._printing import show
from jaxad.cli._reading import read_known, usage_error
from jaxad.cli._region import judge_in, regions_of
from jaxad.errors import ConfigError
from jaxad.io.locks import occupied

if TYPE_CHECKING:
    from jaxad.inference.checkpoint import Restored
    from jaxad.io.progress import Reporter

Save = Literal["overlay", "map", "mask"]


@dataclass(frozen=True)
class Predict(Command):
    """Judge images with a checkpoint: predictions.jsonl and pictures.

    Images have no captions here; for a vlmdiff that takes captions at test time, "" stands for them.
    """

    words: ClassVar[str] = "predict"

    images: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE_OR_FOLDER...", help_behavior_hint="(one or more, before or behind the options)"),
    ]
    """Images, or folders of images."""
    checkpoint: Path
    """A workdir (its newest step) or one step's folder."""
    out: Path
    """Folder of the results."""
    category: str = ""
    """Which category the images show, for its own threshold."""
    roi: Annotated[str | None, tyro.conf.DisallowNone] = None
    """Part of the images that is judged, as of `jaxad fit --roi`; what the run recorded if not given."""
    save: Annotated[tuple[Save | Path, ...], tyro.conf.arg(metavar="{overlay,map,mask}...")] = ("overlay",)
    """Pictures to write for every image, at its own size; paths behind them are images."""
    map_format: Literal["npy", "tiff"] = "npy"
    """Format of the raw maps, 32-bit float."""
    backbone: str | None = None
    """Folder or id to load the backbone from, where the checkpoint does not hold it; of vlmdiff also of another network
    that is to compare image and reconstruction; of clipfusion `clip=SOURCE,diffusion=SOURCE`, or one of the two."""
    batch_size: int = 16
    """Images at once."""
    workers: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Threads that decode images; one per CPU if not given."""
    compilation_cache: Literal["on", "off"] = "on"
    """Whether compiled programs are kept in the user's cache folder, so that the next command compiles none; the
    variable JAXAD_COMPILATION_CACHE names another folder, or is `off`."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about images that cannot be used: write no results and end with status 1, or leave them out, say why
    in problems.jsonl, and end with status 0."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """As for other commands; images may stand anywhere, also behind `--save`, which takes all words that follow."""
        prog = f"jaxad {cls.words}"
        command, rest = read_known(cls, words, prog=prog)
        kinds = tuple(word for word in command.save if word in get_args(Save))
        behind = tuple(word for word in command.save if isinstance(word, Path))
        images = (*command.images, *behind, *map(Path, rest))
        if not images:
            usage_error(prog, "no images given; name image files, or folders of them")
        return dataclasses.replace(command, images=images, save=kinds)

    def run(self) -> None:
        """Judges."""
        missing = [f"{path}: no such file or folder{_near(path)}" for path in self.images if not path.exists()]
        raise_problems(below_one(self, "batch_size", "workers") + missing)
        with occupied(self.out, "out"):
            self._judge()

    def _judge(self) -> None:
        from jaxad.data import ImageList
        from jaxad.inference import checkpoint
        from jaxad.inference.prediction import predict_stream
        from jaxad.io.progress import Reporter
        from jaxad.io.text import typed, visible
        from jaxad.report.prediction_folder import LINES, PROBLEMS, PredictionFolder

        regions = regions_of(self.roi)
        reporter = Reporter()
        restored = checkpoint.restore(self.checkpoint, backbone=self.backbone, pass_over=True)
        reporter.warn(judge_in(restored, regions))
        category = typed(self.category, restored.detector.categories)
        source = ImageList(list(self.images), category)
        self._explain(restored, category, reporter)
        files = [record.file for record in source.records]
        kinds: Any = self.save
        results = PredictionFolder(
            self.out, files, save=kinds, map_format=self.map_format, threshold=restored.threshold
        )
        scored, flagged = 0, 0
        with results, reporter.images("predict", len(source)) as progress:
            stream = predict_stream(
                restored.detector,
                source,
                threshold=restored.threshold,
                protocol=restored.meta["protocol"],
                batch_size=self.batch_size,
                workers=self.workers,
                on_bad=results.leave_out if self.on_bad == "skip" else None,
                progress=progress,
            )
            for prediction in results.add(stream):
                scored += 1
                flagged += bool(prediction.anomalous)
        if left_out := len(source) - scored:
            reporter.warn([f"{left_out} of {len(source)} images cannot be used; see {visible(self.out / PROBLEMS)}"])
        decided = f"{flagged} of {scored} images are anomalous"
        verdict = f"{scored} images scored" if restored.threshold is None else decided
        show(f"{verdict}; see {visible(self.out / LINES)}")

    def _explain(self, restored: Restored, category: str, reporter: Reporter) -> None:
        """Says what to know of the checkpoint before it judges; ConfigError where it cannot."""
        from jaxad.cli._captions import takes_captions

        detector, threshold = restored.detector, restored.threshold
        reporter.warn([*restored.notes, *detector.notes])
        if takes_captions(detector):
            reporter.warn(['this detector takes captions at test time; predict has none, and "" stands for them'])
        known = ", ".join(detector.categories)
        if category and category not in detector.categories:
            raise ConfigError(f"category = {category}: the checkpoint knows {known}")
        if detector.inputs.needs_category and not category:
            raise ConfigError(f"category: this {detector.name} needs it; the checkpoint knows {known}")
        if threshold is None:
            how = "run fit with --holdout above 0 to its end"
            reporter.warn([f"the checkpoint has no threshold ({how}): scores only, no decisions"])
        elif not category and len(detector.categories) > 1:
            reporter.say(f"one threshold for all categories; --category NAME takes that of one: {known}")


def _near(path: Path) -> str:
    """Whether a kind of picture was meant by a word behind `--save`."""
    near = difflib.get_close_matches(str(path), get_args(Save), 1)
    return f" (did you mean --save {near[0]}?)" if near else ""
