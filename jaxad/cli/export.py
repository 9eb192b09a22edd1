"""`jaxad export`: a run as a program that needs no jaxad, or as a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from jaxad.cli._command import Command
from jaxad.cli._printing import show


@dataclass(frozen=True)
class Export(Command):
    """Write a detector as StableHLO or ONNX, which run without jaxad, or as a bundle without optimizer state.

    Beside a program lie detector.json, which describes its inputs, outputs and threshold, and run.py, which judges
    images with it.
    """

    words: ClassVar[str] = "export"

    run_: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A workdir (its newest step) or one step's folder."""
    out: Path
    """Folder to write to."""
    format: Literal["stablehlo", "onnx", "bundle"] = "stablehlo"
    """`stablehlo` runs by jax, `onnx` by ONNX Runtime and others (extra `onnx`); a `bundle` is given to --checkpoint in
    place of the run."""
    platforms: tuple[Literal["cpu", "cuda", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """What StableHLO is to run on."""
    backbone: str | None = None
    """Folder or id to load the backbone from, where the checkpoint does not hold it."""

    def run(self) -> None:
        """Exports, and says how to run it."""
        from jaxad.deploy.exporting import RUNNER, export
        from jaxad.io.progress import Reporter
        from jaxad.io.text import visible

        how = {"format": self.format, "platforms": self.platforms, "backbone": self.backbone}
        out = export(self.run_, self.out, **how, reporter=Reporter())  # type: ignore[arg-type]
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        show(f"{visible(out)}: {size / 1e6:.1f} MB")
        bundle = f"next: jaxad predict IMAGE_OR_FOLDER --checkpoint {visible(out)} --out predictions"
        show(bundle if self.format == "bundle" else f"next: python {visible(out / RUNNER)} IMAGE_OR_FOLDER...")
