"""DPDiff-AD, Figure 1: image AUROC and AUPRO over the number of categories, beside other detectors.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.dpdiff.figure1 --out runs/benchmarks

Expected: DPDiff-AD level from 30 to 160 categories of Real-IAD Variety, the others falling. The runs are those of
`table2.py`; under the same --out none is trained twice. Published curves are drawn broken; they are columns of the
paper's Table 2, whose rows of CFLOW on S2 and S3 are the same.
"""

from __future__ import annotations

from pathlib import Path

import tyro

import jaxad
from experiments.dpdiff import table2
from experiments.dpdiff.table2 import SIZES, Table2
from experiments.drawing import Panel, write_curves
from jaxad.metrics import LABELS

PUBLISHED = {
    "SimpleNet": ((75.4, 67.9, 61.0, 53.7), (52.7, 46.0, 41.8, 29.5)),
    "CFLOW": ((77.9, 72.5, 72.5, 63.8), (63.2, 61.3, 61.3, 59.5)),
    "UniAD": ((78.5, 71.6, 70.2, 67.5), (67.1, 64.8, 64.3, 62.8)),
    "OneNIP": ((82.8, 78.7, 76.5, 73.3), (69.0, 67.2, 66.5, 64.5)),
    "MambaAD": ((87.4, 76.2, 72.5, 81.7), (75.0, 68.1, 66.5, 73.5)),
    "LGC": ((84.1, 82.7, 82.4, 81.0), (73.7, 76.6, 75.0, 74.6)),
    "Dinomaly": ((91.4, 89.7, 87.9, 85.4), (79.8, 79.7, 78.2, 75.6)),
    "Dinomaly+": ((92.4, 90.8, 89.4, 87.1), (79.3, 79.6, 78.4, 76.4)),
    "DPDiff-AD": ((93.5, 93.2, 92.4, 92.4), (77.7, 79.0, 79.8, 80.1)),
}
"""Image AUROC and AUPRO in percent, of 30, 60, 100 and 160 categories."""
METRICS = ("image_auroc", "aupro")


def main(options: Table2) -> list[Path]:
    """Runs each data set and draws the curves, --out/figure1.svg and .pdf; returns the files."""
    rows = table2.main(options)
    counts = {
        name: SIZES.get(name) or len(jaxad.data.load(name, options.data_dir).categories) for name in options.benchmarks
    }
    panels = []
    for place, metric in enumerate(METRICS):
        ours = {counts[name]: rows[name][metric] for name in options.benchmarks}
        theirs = {
            f"{name} (published)": {x: y / 100 for x, y in zip(SIZES.values(), own[place], strict=True)}
            for name, own in PUBLISHED.items()
        }
        curves = {"jaxad": ours, **theirs}
        panels.append(Panel(LABELS[metric].short, "categories", curves, tuple(theirs)))
    return write_curves(panels, options.out, "figure1")


if __name__ == "__main__":
    print(*main(tyro.cli(Table2, description=__doc__)), sep="\n")
