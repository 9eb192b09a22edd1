"""`jaxad prepare`: a benchmark's official files into TFDS's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from jaxad.cli._command import Command, command_line, raise_problems
from jaxad.cli._printing import show


@dataclass(frozen=True)
class Prepare(Command):
    """Check a benchmark's official files and store them in TFDS's format, once for all detectors.

    NAME is anomaly_folder (a folder of your own), btad, coco_ad, mpdd, mvtec_ad, mvtec_loco, real_iad, real_iad_variety
    or visa. Without --source it says how to obtain the files and under which license; nothing is downloaded. Run the
    same command again to go on after an interruption.
    """

    words: ClassVar[str] = "prepare"
    keeps: ClassVar[str] = "finished categories"

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the data set."""
    source: tuple[Path, ...] = ()
    """The extracted folder, a folder of the official archives, or these archives themselves."""
    data_dir: Path | None = None
    """Folder of prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""
    categories: Annotated[tuple[str, ...] | None, tyro.conf.DisallowNone] = None
    """Categories to prepare; all if not given."""
    size: int | None = None
    """Reduce images to this length of their shorter side, for sources too large to decode while training; the source's
    bytes are stored as they are if not given."""
    options: tuple[str, ...] = ()
    """Choices that the data set offers, as NAME=VALUE."""
    captions: Path | None = None
    """Folder or file of captions in VLMDiff's published layout, to store with the images."""
    workers: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Threads that read, check and resize; one per CPU if not given."""
    partial: bool = False
    """Accept fewer images than there officially are."""
    verify: bool = True
    """Decode every image before anything is stored."""
    beam: tuple[str, ...] | None = None
    """Store by an Apache Beam pipeline with these options, e.g. `runner=DirectRunner` (extra `beam`)."""

    def run(self) -> None:
        """Prepares, or says how to obtain the files."""
        from jaxad.io.text import visible
        from tfds_builders.prepare import data_name, how_to, prepare

        if not self.source:
            show(how_to(self.name))
            return
        pairs = [word.partition("=") for word in self.options]
        raise_problems(
            [f"--options {name}: needs the form NAME=VALUE" for name, separator, _ in pairs if not separator]
        )
        options = {name: value for name, _, value in pairs}
        found = prepare(
            self.name,
            self.source,
            data_dir=self.data_dir,
            categories=self.categories,
            size=self.size,
            options=options,
            captions=self.captions,
            workers=self.workers,
            partial=self.partial,
            verify=self.verify,
            beam=self.beam,
        )
        for category in found:
            number = sum(category.counts.values())
            show(f"{visible(category.folder)}: {number} images{', kept from before' if category.kept else ''}")
        where = () if self.data_dir is None else ("--data-dir", self.data_dir)
        show(f"next: {command_line('check', '--data', data_name(self.name, self.size, options), *where)}")
