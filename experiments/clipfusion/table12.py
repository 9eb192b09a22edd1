"""CLIPFusion, Tables 8, 12 and 13: one bank for all categories, with 1, 2 and 4 references of each.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table12 --out runs/clipfusion-table12

Expected: near the banks of single categories, e.g. 94.5 for 95.4 image AUROC on MVTec-AD with one reference. All three
are the same runs: segmentation (Table 12) in the pixel metrics, classification (Tables 8 and 13, alone: `table8.py` and
`table13.py`) in the image metrics. What Table 12 calls AUPR has the values of AUPRO and is printed as such. IIPAD, with
which the paper compares, is not built here; its published rows are printed behind the others.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.rows import Row, RowOptions, run

ROWS = tuple(Row(f"one for all, {shots}-shot", shots=shots, changes={"per_category": False}) for shots in (1, 2, 4))

PUBLISHED = {
    "mvtec_ad": {
        "one for all, 1-shot": (94.5, 97.3, 96.0, 91.1),
        "one for all, 2-shot": (96.0, 97.9, 96.4, 91.9),
        "one for all, 4-shot": (96.4, 98.2, 96.8, 92.5),
    },
    "visa": {
        "one for all, 1-shot": (85.5, 88.1, 97.2, 87.3),
        "one for all, 2-shot": (86.8, 89.3, 97.4, 88.1),
        "one for all, 4-shot": (88.3, 90.0, 98.1, 88.6),
    },
}

BESIDE = {
    "mvtec_ad": {
        "IIPAD, 1-shot": (94.2, 97.2, 96.4, 89.8),
        "IIPAD, 2-shot": (95.7, 97.9, 96.7, 90.3),
        "IIPAD, 4-shot": (96.1, 98.1, 97.0, 91.2),
    },
    "visa": {
        "IIPAD, 1-shot": (85.4, 87.5, 96.9, 87.3),
        "IIPAD, 2-shot": (86.7, 88.6, 97.2, 87.9),
        "IIPAD, 4-shot": (88.3, 89.6, 97.4, 88.3),
    },
}
"""Published rows that are not run here."""

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 12", beside=BESIDE)
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
