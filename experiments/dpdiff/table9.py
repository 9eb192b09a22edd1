"""DPDiff-AD, Table 9: architecture of the denoiser.

Command (as published, MVTec-AD at 448 px; one GPU):
    python -m experiments.dpdiff.table9 --data folder:/data/mvtec_ad --out runs/table9
Small (two CPU cores):
    python -m experiments.dpdiff.table9 --data folder:/my/parts --out runs/table9 --preset small --steps 300

Expected: little difference, mAD 88.8, 88.5 and 89.1. Published numbers are for MVTec-AD. The paper gives no sizes; here
all have about as many parameters as the DiT (docs/decisions.md#dpdiff-other-denoisers).
"""

from __future__ import annotations

import tyro

from experiments.dpdiff.rows import Mean, RowOptions, Table

PUBLISHED = {
    "U-Net": (99.3, 99.8, 98.7, 98.4, 64.3, 65.1, 96.2, 88.8),
    "U-ViT": (99.3, 99.7, 98.7, 98.4, 63.3, 64.8, 95.3, 88.5),
    "DiT": (99.5, 99.9, 99.1, 98.7, 65.6, 64.8, 95.9, 89.1),
}


def main(options: RowOptions) -> dict[str, Mean]:
    """Runs each architecture and prints ours beside the published one; returns the means by row."""
    with Table(options, PUBLISHED, "Table 9", shares=True) as table:
        for name, denoiser in (("U-Net", "unet"), ("U-ViT", "uvit"), ("DiT", "dit")):
            table.row(name, denoiser=denoiser)
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
