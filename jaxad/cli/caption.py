"""`jaxad caption`: texts for VLMDiff's training, and for its tests where they condition it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from jaxad.cli._command import below_one, command_line, raise_problems
from jaxad.cli._data import WorkCommand
from jaxad.cli._printing import show
from jaxad.errors import ConfigError
from jaxad.io.locks import require_writable


@dataclass(frozen=True, kw_only=True)
class Caption(WorkCommand):
    """Describe images by an image-text-to-text model (extra `caption`), in the layout of VLMDiff's published captions.

    Run the same command again to go on after an interruption.
    """

    words: ClassVar[str] = "caption"
    keeps: ClassVar[str] = "finished captions"

    model: str
    """Hub id or folder of the model, e.g. OpenGVLab/InternVL3-8B-hf; its code must be part of transformers."""
    out: Path
    """Where the folder `DATA_captions_MODEL_PROMPT` is made; chosen categories and splits have folders of their own."""
    prompt: str = "pd"
    """A published prompt: pd (describe), pa (look for defects) or coco; or a text of your own."""
    split: Literal["train", "test"] = "train"
    """Training images, all of them normal, or test images."""
    max_new_tokens: int = 1024
    """Longest caption."""
    batch_size: int = 8
    """Images at once."""

    def run(self) -> None:
        """Writes the captions."""
        from jaxad.detectors.vlmdiff import captioning
        from jaxad.io.places import expanded
        from jaxad.io.progress import Reporter
        from jaxad.io.text import visible
        from jaxad.models.captioner.hugging_face import HuggingFaceCaptioner

        raise_problems(below_one(self, "batch_size", "max_new_tokens", "workers"))
        prompt = captioning.prompt_text(self.prompt)
        if not prompt.strip():
            raise ConfigError("prompt: is empty; give pd, pa, coco or a text")
        require_writable(expanded(self.out), "out")
        reporter = Reporter()
        dataset = self.load()
        reporter.warn([str(problem) for problem in dataset.problems])
        source = getattr(dataset, self.split)
        with reporter.images("caption", len(source)) as progress:
            found = captioning.caption(
                source,
                lambda: HuggingFaceCaptioner(self.model, prompt, max_new_tokens=self.max_new_tokens),
                out_dir=self.out,
                data=self.data,
                model=self.model,
                prompt=self.prompt,
                split=self.split,
                max_new_tokens=self.max_new_tokens,
                categories=self.categories,
                batch_size=self.batch_size,
                workers=self.workers,
                progress=progress,
            )
        if found.empty:
            more = f" and {len(found.empty) - 5} more" if len(found.empty) > 5 else ""
            reporter.warn([f"{len(found.empty)} captions are empty: {', '.join(found.empty[:5])}{more}"])
        length = sum(len(text.split()) for text in found.captions.texts) / len(found.captions)
        made = f"{len(found.captions)} captions of {length:.0f} words on average, in the data set's order"
        show(f"{visible(found.folder)}: {made}")
        own = (*self.data_flags(), "--captions", found.folder)
        if self.split == "train":
            show(f"next: {command_line('fit', 'vlmdiff', *own, '--workdir', 'runs/vlmdiff')}")
        else:
            rest = ("--checkpoint", "runs/vlmdiff", "--protocol", "diad", "--out", "runs/vlmdiff-report")
            show(f"for a detector that takes captions at test time: {command_line('evaluate', *own, *rest)}")
