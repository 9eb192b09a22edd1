"""`jaxad predict`: a checkpoint's answers for photos."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

import tyro

from jaxad.cli._command import Command, below_one, raise_problems
from jaxad.cli._printing import show
from jaxad.cli._reading import read_known, usage_error
from jaxad.cli._region import judge_in, regions_of
from jaxad.cli._saving import METAVAR, Save
from jaxad.config import Precision
from jaxad.errors import ConfigError
from jaxad.io.locks import occupied

if TYPE_CHECKING:
    from jaxad.data import ImageList
    from jaxad.data.captions.attach import Captions
    from jaxad.inference.inspector import Inspector
    from jaxad.io.progress import Reporter


@dataclass(frozen=True)
class Predict(Command):
    """Judge images with a checkpoint: predictions.jsonl and pictures."""

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
    watch: Annotated[Path | None, tyro.conf.DisallowNone] = None
    """A folder into which images are dropped: each is judged once it is complete, until the command is stopped, and
    again only if it changes. Results are added line by line; the same command goes on where it was stopped."""
    category: str = ""
    """Which category the images show, for its own threshold; without it those in a subfolder of a category's name show
    that one."""
    classes: Annotated[tuple[str, ...] | None, tyro.conf.DisallowNone] = None
    """Names of categories in place of those of the checkpoint, for a detector that needs no images of them (clipfusion
    with --shots 0); `object` alone stands for anything."""
    threshold: Annotated[float | None, tyro.conf.DisallowNone] = None
    """Image score above which an image is anomalous, in place of the checkpoint's; outlines and colors stay its own."""
    roi: Annotated[str | None, tyro.conf.DisallowNone] = None
    """Part of the images that is judged, as of `jaxad fit --roi`; what the run recorded if not given."""
    captions: Annotated[Path | None, tyro.conf.DisallowNone] = None
    """Captions of the images in the published layout, a folder or file as `jaxad caption --split test` writes it, for a
    vlmdiff that takes captions at test time. They must be of the captioner and the prompt of the captions that its
    threshold was measured with."""
    save: Annotated[tuple[Save | Path, ...], tyro.conf.arg(metavar=METAVAR)] = ("overlay",)
    """Pictures to write for every image: overlay, map, mask and heatmap at its own size; the image as the detector sees
    it, redrawn, and from the autoencoder alone; patch features before and after reconstruction; the maps that the map
    is made of, prototypes among them. What a detector does not have is said before work starts. Paths behind the words
    are images; a folder of such a name is `./input`."""
    map_format: Literal["npy", "tiff"] = "npy"
    """Format of the raw maps, 32-bit float."""
    backbone: str | None = None
    """Folder or id to load the backbone from, where the checkpoint does not hold it; of vlmdiff also of another network
    that is to compare image and reconstruction; of clipfusion `clip=SOURCE,diffusion=SOURCE`, or one of the two."""
    precision: Annotated[Precision | None, tyro.conf.DisallowNone] = None
    """What networks compute in, in place of what the run says: auto is float32 on CPUs, bfloat16 on accelerators; CPUs
    with matrix units (AMX) are about twice as fast in bfloat16. The threshold stays."""
    batch_size: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Images at once; 16 if not given, with --watch one on each CPU and 8 on each accelerator."""
    workers: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Threads that decode images; one per CPU if not given."""
    compilation_cache: Literal["on", "off"] = "on"
    """Whether compiled programs are kept in the user's cache folder, so that the next command compiles none; the
    variable JAXAD_COMPILATION_CACHE names another folder, or is `off`."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about images that cannot be used: write no results and end with status 1, or leave them out, say why
    in problems.jsonl, and end with status 0; --watch always does the latter."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """As for other commands; images may stand anywhere, also behind `--save`, which takes all words that follow."""
        prog = f"jaxad {cls.words}"
        command, rest = read_known(cls, words, prog=prog)
        kinds = tuple(word for word in command.save if word in get_args(Save))
        behind = tuple(word for word in command.save if isinstance(word, Path))
        images = (*command.images, *behind, *map(Path, rest))
        if not images and command.watch is None:
            usage_error(prog, "no images given; name image files, or folders of them")
        if images and command.watch is not None:
            usage_error(prog, f"--watch {command.watch} takes no images besides; give its folder alone")
        if command.captions is not None and command.watch is not None:
            usage_error(prog, f"--watch {command.watch}: images to come have no captions; leave --captions out")
        return dataclasses.replace(command, images=images, save=kinds)

    def run(self) -> None:
        """Judges."""
        missing = [f"{path}: no such file or folder{_near(path)}" for path in self.images if not path.exists()]
        if self.watch is not None and not self.watch.is_dir():
            missing.append(f"watch = {self.watch}: no such folder")
        raise_problems(below_one(self, "batch_size", "workers") + missing)
        with occupied(self.out, "out"):
            self._judge()

    def _judge(self) -> None:
        from jaxad.cli._captions import described_photos, unfit, unlike_the_threshold
        from jaxad.data import ImageList
        from jaxad.inference import checkpoint
        from jaxad.inference.inspector import in_precision, of_checkpoint, renamed
        from jaxad.inference.prediction import at_once
        from jaxad.io.progress import Reporter
        from jaxad.io.text import typed

        regions = regions_of(self.roi)
        reporter = Reporter()
        given = self._given_captions(reporter)
        restored = checkpoint.restore(
            self.checkpoint, backbone=self.backbone, pass_over=True, **in_precision(self.precision)
        )
        if self.classes is not None:
            restored = renamed(restored, tuple(map(typed, self.classes)))
        detector = restored.detector
        reporter.warn(judge_in(restored, regions, detector.categories))
        category = typed(self.category, detector.categories)
        source, batch_size = None, self.batch_size
        if self.watch is None:
            source = ImageList(list(self.images), category, known=detector.categories)
            batch_size = at_once(detector, len(source), batch_size)
        how: dict[str, Any] = {"category": category, "threshold": self.threshold, "batch_size": batch_size}
        # What is to be said of the captions of images that are there already was said.
        how["told"] = (lambda text: reporter.warn([text])) if source is None else (lambda text: None)
        inspector = of_checkpoint(restored, **how)
        inspector.check_words([str(word) for word in self.save], name="save")
        reporter.warn(inspector.notes)
        captions = {} if source is None else described_photos(source, given)
        unlike = unlike_the_threshold(restored.meta, detector, captions)
        if unlike and self.threshold is None and restored.threshold is not None:
            raise unfit(unlike)
        if source is None:
            self._watch(inspector, reporter)
        else:
            self._judge_once(inspector, source, reporter)

    def _given_captions(self, reporter: Reporter) -> Captions | None:
        """The captions that are given, checked before networks are loaded."""
        from jaxad.cli._captions import are_taken, check_photos, read_given
        from jaxad.data import ImageList
        from jaxad.inference import checkpoint

        config = checkpoint.read_config(self.checkpoint)
        captions = read_given(self.captions, "test", config)
        if self.watch is None and are_taken(config):
            meta = checkpoint.read_meta(self.checkpoint)
            # Another network takes the threshold away.
            decides = self.threshold is None and self.backbone is None and meta["threshold"] is not None
            check_photos(ImageList(list(self.images)), captions, meta, reporter, decides=decides)
        return captions

    def _watch(self, inspector: Inspector, reporter: Reporter) -> None:
        from jaxad.inference.answer import Answer
        from jaxad.io.text import visible
        from jaxad.report.watched_folder import WatchedFolder

        assert self.watch is not None
        kinds: Any = self.save
        how: dict[str, Any] = {"save": kinds, "map_format": self.map_format, "told": reporter.say}
        watched = WatchedFolder(self.watch, self.out, inspector, **how)
        inspector.warm()
        reporter.say(f"watching {visible(self.watch)}; {watched.judged} files there were judged before")
        for found in watched.results():
            if isinstance(found, Answer):
                scaled = "" if found.scaled is None else f" {found.scaled:.3f}"
                show(f"{found.verdict}{scaled} {found.file}", flush=True)
            else:
                reporter.warn([str(found)])

    def _judge_once(self, inspector: Inspector, source: ImageList, reporter: Reporter) -> None:
        from jaxad.io.text import visible
        from jaxad.report.prediction_folder import LINES, PAGE, PROBLEMS, PredictionFolder

        reporter.warn(source.notes)
        self._explain_categories(inspector, source, reporter)
        files = [record.file for record in source.records]
        kinds: Any = self.save
        results = PredictionFolder(self.out, files, save=kinds, map_format=self.map_format, model=inspector.identity)
        scored, flagged = 0, 0
        with results, reporter.images("predict", len(source)) as progress:
            on_bad = results.leave_out if self.on_bad == "skip" else None
            words = inspector.check_words(kinds, name="save")
            found = inspector.stream(source, explain=words, workers=self.workers, on_bad=on_bad, progress=progress)
            for answer in results.add(found):
                scored += 1
                flagged += bool(answer.anomalous)
        if left_out := len(source) - scored:
            reporter.warn([f"{left_out} of {len(source)} images cannot be used; see {visible(self.out / PROBLEMS)}"])
        decided = f"{flagged} of {scored} images are anomalous"
        verdict = f"{scored} images scored" if inspector.threshold is None else decided
        show(f"{verdict}; see {visible(self.out / LINES)} and {visible(self.out / PAGE)}")

    def _explain_categories(self, inspector: Inspector, source: ImageList, reporter: Reporter) -> None:
        """Says by which categories images are judged; ConfigError where one is needed and images have none."""
        detector, known = inspector.detector, ", ".join(inspector.detector.categories)
        shown = Counter(record.category for record in source.records)
        if detector.inputs.needs_category and shown[""] and (self.on_bad == "stop" or len(shown) == 1):
            raise ConfigError(f"category: this {detector.name} needs it; the checkpoint knows {known}")
        if len(detector.categories) < 2 or inspector.category:
            return
        if set(shown) != {""}:
            names = ", ".join(f"{name} {number}" for name, number in sorted(shown.items()) if name)
            rest = f"; {shown['']} images lie in none and have none" if shown[""] else ""
            reporter.say(f"categories by subfolder: {names}{rest}")
        elif inspector.threshold is not None:
            reporter.say(f"one threshold for all categories; --category NAME takes that of one: {known}")


def _near(path: Path) -> str:
    """Whether a kind of picture was meant by a word behind `--save`."""
    near = difflib.get_close_matches(str(path), get_args(Save), 1)
    return f" (did you mean --save {near[0]}?)" if near else ""
