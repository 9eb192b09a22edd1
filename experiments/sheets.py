"""What the sheets of DPDiff-AD and VLMDiff share: checkpoints side by side on defective images.

Not an experiment itself; `dpdiff/figure3.py` and `vlmdiff/figure6.py` are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jaxad
from experiments.drawing import defective, write_sheet
from experiments.rows import DataOptions
from experiments.vlmdiff.caption_rows import described
from jaxad.io.progress import Reporter


@dataclass(frozen=True)
class SheetOptions(DataOptions):
    """Checkpoints of any detectors, and the data set on whose test images they are compared."""

    checkpoints: tuple[Path, ...]
    """Workdirs or single steps, in the order of the columns."""
    data: str
    """Prepared data set, `folder:PATH` of categories in MVTec layout, or `demo`."""
    out: Path
    """The sheet, a .png."""
    names: tuple[str, ...] = ()
    """Heads of the columns; the detectors' names if not given."""
    categories: tuple[str, ...] | None = None
    """Only these; all if not given."""
    images: int = 2
    """Defective images of each category."""
    protocol: str = "exact-256"
    """Evaluation protocol, which says how maps are smoothed."""
    captions: Path | None = None
    """Folder of caption folders, for detectors that take captions at test time; see `vlmdiff/rows.py`."""
    vlm: str = "internvl"
    """Captioner: how its name begins in the names of these folders."""


def main(options: SheetOptions) -> Path:
    """Draws the sheet; returns its file."""
    test = options.load(options.data).test
    detectors = [jaxad.restore(checkpoint).detector for checkpoint in options.checkpoints]
    names = options.names or tuple(detector.title for detector in detectors)
    # Two runs of one detector are told apart by their numbers.
    heads = [name if names.count(name) == 1 else f"{name} {place + 1}" for place, name in enumerate(names)]
    columns, sources = dict(zip(heads, detectors, strict=True)), {}
    if options.captions is not None:
        told, _ = described(test, options.captions, options.data, options.vlm, "test", Reporter())
        sources = {name: told for name, detector in columns.items() if detector.inputs.captions == "always"}
    chosen = defective(test, options.categories, options.images)
    return write_sheet(test, chosen, columns, options.out, options.protocol, sources)
