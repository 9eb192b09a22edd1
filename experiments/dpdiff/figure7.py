"""DPDiff-AD, Figures 7 and 8: t-SNE of patch features before and after reconstruction, and similarity to prototypes.

Command (a checkpoint of a table's run, or of `jaxad fit dpdiff`):
    python -m experiments.dpdiff.figure7 --checkpoint runs/mvtec --data folder:/data/mvtec_ad --out runs/figure7

Expected: anomalous patches among normal ones after reconstruction; local prototypes that answer to details, global ones
to the shape of the object, both to what is normal. Leaves the report of the evaluation with both figures, report.html,
and Figure 7 as figure7-before.svg and figure7-after.svg. Which images the paper shows is not said: of each category the
defective image of median score and one normal image are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

import jaxad
from experiments.records import run_record
from experiments.rows import DataOptions
from jaxad.inference.evaluation import make_report, score
from jaxad.inference.figures import figures
from jaxad.io.atomic import write_whole
from jaxad.io.progress import Reporter
from jaxad.report.figures import tsne


@dataclass(frozen=True, kw_only=True)
class Figure7(DataOptions):
    """Evaluate a checkpoint and draw what lies between image and anomaly map."""

    checkpoint: Path
    """A workdir or one step's folder."""
    data: str
    """Prepared data set, `folder:PATH` of categories in MVTec layout, or `demo`."""
    out: Path
    """Folder of the report."""
    categories: tuple[str, ...] | None = None
    """Only these; all if not given."""


def main(options: Figure7) -> list[Path]:
    """Draws the figures; returns their files."""
    restored = jaxad.restore(options.checkpoint)
    dataset = options.load(options.data, categories=options.categories)
    with Reporter().images("evaluate", len(dataset.test)) as progress:
        scored = score(restored.detector, dataset.test, progress=progress)
    evaluation = figures(scored)
    report = make_report(scored, dataset, provenance=run_record(restored.meta))
    written = [jaxad.write_report(options.out, report, evaluation=evaluation)]
    if (found := tsne(evaluation.tsne)) is not None:
        for view in found["views"]:
            written.append(write_whole(options.out / f"figure7-{view['title']}.svg", f"{view['svg']}\n"))
    return written


if __name__ == "__main__":
    print(*main(tyro.cli(Figure7, description=__doc__)), sep="\n")
