"""`jaxad caption`: texts for VLMDiff's training, and for its tests where they condition it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from jaxad.cli._command import below_one, command_line, raise_problems
from jaxad.cli._data import WorkCommand
from jaxad.cli._printing import show
from jaxad.errors import ConfigError
from jaxad.io.locks import require_writable

if TYPE_CHECKING:
    from jaxad.io.progress import Reporter
    from jaxad.models.captioner.hugging_face import Captioner
    from jaxad.types import Source


@dataclass(frozen=True, kw_only=True)
class Caption(WorkCommand):
    """Describe images by a vision-language model, in the layout of VLMDiff's published captions.

    InternVL 2 to 3 runs in JAX. Other models run in torch (extra `caption`). Run the same command again to go on after
    an interruption, or to describe what has come to the data since; no image is described twice.
    """

    words: ClassVar[str] = "caption"
    keeps: ClassVar[str] = "finished captions"

    model: str
    """Hub id or folder, e.g. OpenGVLab/InternVL2-8B. Code of it is never run: beside InternVL it must be a model of
    transformers."""
    out: Path
    """Where the folder `DATA_captions_MODEL_PROMPT` is made; chosen categories and splits have folders of their own."""
    prompt: Annotated[str | None, tyro.conf.DisallowNone] = None
    """A published prompt: pd (describe), pa (look for defects) or coco; or a text of your own. If not given coco for
    COCO-AD, all prepared splits of which are described at once, and pd for other data."""
    split: Literal["train", "test"] = "train"
    """Training images, all of them normal, or test images."""
    max_new_tokens: int = 1024
    """Longest caption."""
    batch_size: int = 4
    """Images at once; for InternVL a multiple of the number of devices. With 4 InternVL2-8B fits a GPU of 24 GB."""
    fsdp: int = 1
    """Devices that share the parameters of an InternVL, where one is too small for them."""
    shard: Annotated[str | None, tyro.conf.DisallowNone] = None
    """This process's share of the images, such as 0/2 and 1/2 of two; the last to end joins them. Processes of a run on
    several hosts divide them by themselves."""

    def run(self) -> None:
        """Writes the captions."""
        from jaxad import parallel
        from jaxad.detectors.vlmdiff import captioning
        from jaxad.io.places import expanded
        from jaxad.io.progress import Reporter
        from jaxad.io.text import visible

        raise_problems(below_one(self, "batch_size", "max_new_tokens", "workers", "fsdp"))
        asked = captioning.published_prompt(self.data) if self.prompt is None else self.prompt
        prompt = captioning.prompt_text(asked)
        if not prompt.strip():
            raise ConfigError("prompt: is empty; give pd, pa, coco or a text")
        require_writable(expanded(self.out), "out")
        parallel.start_processes()
        shard = self._shard()
        reporter = Reporter()
        source = self._source(reporter)
        found = captioning.caption(
            source,
            lambda: self._captioner(prompt),
            out_dir=self.out,
            data=self.data,
            model=self.model,
            prompt=asked,
            split=self.split,
            max_new_tokens=self.max_new_tokens,
            categories=self.categories,
            batch_size=self.batch_size,
            workers=self.workers,
            reporter=reporter,
            shard=shard,
        )
        if found.captions is None:
            show(f"{visible(found.folder)}: shard {shard[0]}/{shard[1]} is done; others are not yet")
            return
        if found.empty:
            more = f" and {len(found.empty) - 5} more" if len(found.empty) > 5 else ""
            reporter.warn([f"{len(found.empty)} captions are empty: {', '.join(found.empty[:5])}{more}"])
        length = sum(len(text.split()) for text in found.captions.texts) / len(found.captions)
        show(f"{visible(found.folder)}: {len(found.captions)} captions of {length:.0f} words on average")
        own = (*self.data_flags(), "--captions", found.folder)
        if self.split == "train":
            show(f"next: {command_line('fit', 'vlmdiff', *own, '--workdir', 'runs/vlmdiff')}")
        else:
            rest = ("--checkpoint", "runs/vlmdiff", "--protocol", "diad", "--out", "runs/vlmdiff-report")
            show(f"for a detector that takes captions at test time: {command_line('evaluate', *own, *rest)}")

    def _source(self, reporter: Reporter) -> Source:
        """The images to describe: of a data set whose splits overlap those of all that are prepared, each once."""
        from jaxad.data.joined import union
        from jaxad.data.prepared import prepared_configs
        from jaxad.detectors.vlmdiff.captioning import family, is_numbered

        configs = prepared_configs(family(self.data), self.data_dir) if is_numbered(self.data) else ()
        datasets = [replace(self, data=config).load() for config in configs] or [self.load()]
        reporter.warn(list(dict.fromkeys(str(problem) for dataset in datasets for problem in dataset.problems)))
        parts = [getattr(dataset, self.split) for dataset in datasets]
        if len(parts) == 1:
            return parts[0]
        joined = union(parts, self.data)
        reporter.say(f"{len(joined)} {self.split} images of {', '.join(configs)}, each once")
        return joined

    def _captioner(self, prompt: str) -> Captioner:
        from jaxad.detectors.vlmdiff import internvl
        from jaxad.models.captioner.hugging_face import HuggingFaceCaptioner

        if internvl.captions_in_jax(self.model):
            return internvl.InternVLCaptioner(
                self.model,
                prompt,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                fsdp=self.fsdp,
            )
        if self.fsdp > 1:
            raise ConfigError(f"fsdp = {self.fsdp}: {self.model} runs in torch, on one device; leave it out")
        return HuggingFaceCaptioner(self.model, prompt, max_new_tokens=self.max_new_tokens)

    def _shard(self) -> tuple[int, int]:
        """Number of this process's share, and how many there are."""
        import jax

        # Asking a single process would take the accelerator's memory, which another captioner needs for torch.
        processes = jax.process_count() if jax.distributed.is_initialized() else 1
        if self.shard is None:
            return (jax.process_index(), processes) if processes > 1 else (0, 1)
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard)
        if match is None or int(match[1]) >= int(match[2]):
            raise ConfigError(f"shard = {self.shard}: must be a number from 0, /, and how many there are, such as 0/2")
        if processes > 1:
            raise ConfigError(f"shard = {self.shard}: the {processes} processes of this run divide the images already")
        return int(match[1]), int(match[2])
