"""What the sheets of DPDiff-AD and VLMDiff share: checkpoints side by side on defective images.

Not an experiment itself; `dpdiff/figure3.py` and `vlmdiff/figure6.py` are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxad
from experiments.rows import DataOptions
from experiments.vlmdiff.caption_rows import described
from jaxad.inference.sheet import defective
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
    test, captioned = options.load(options.data).test, None
    if options.captions is not None:
        captioned, _ = described(test, options.captions, options.data, options.vlm, "test", Reporter())
    chosen = defective(test, options.categories, options.images)
    how: dict[str, Any] = {"names": options.names, "protocol": options.protocol, "captioned": captioned}
    return jaxad.sheet(test, options.checkpoints, chosen, **how).save(options.out)
