"""DPDiff-AD, Table 8: which blocks of the backbone are averaged.

Command (as published, MVTec-AD at 448 px; one GPU):
    python -m experiments.dpdiff.table8 --data folder:/data/mvtec_ad --out runs/table8
Small (two CPU cores):
    python -m experiments.dpdiff.table8 --data folder:/my/parts --out runs/table8 --preset small --steps 300

Expected: blocks 4-7 best by mAD (89.8), 6-11 best by image AUROC (99.5), 10-11 worst (86.4). Published numbers are for
MVTec-AD. Blocks are counted from 0, both ends included.
"""

from __future__ import annotations

import tyro

from experiments.dpdiff.rows import Mean, RowOptions, Table

PUBLISHED = {
    "blocks 2-5": (97.2, 98.6, 96.3, 98.4, 69.2, 67.2, 94.7, 88.8),
    "blocks 4-7": (98.9, 99.6, 98.3, 98.6, 69.4, 67.7, 95.8, 89.8),
    "blocks 6-9": (99.3, 99.7, 98.9, 98.7, 66.2, 65.8, 96.0, 89.2),
    "blocks 6-11": (99.5, 99.9, 99.1, 98.7, 65.6, 64.8, 95.9, 89.1),
    "blocks 8-11": (99.1, 99.8, 98.7, 98.3, 60.6, 62.3, 95.3, 87.7),
    "blocks 10-11": (98.7, 99.6, 98.5, 97.9, 56.6, 59.5, 94.0, 86.4),
}


def main(options: RowOptions) -> dict[str, Mean]:
    """Runs each choice of blocks and prints ours beside the published one; returns the means by row."""
    with Table(options, PUBLISHED, "Table 8") as table:
        for first, last in ((2, 5), (4, 7), (6, 9), (6, 11), (8, 11), (10, 11)):
            table.row(f"blocks {first}-{last}", blocks=tuple(range(first, last + 1)))
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
