r"""VLMDiff, Tables 9 and 10: MVTec-AD and VisA after 100 and after 300 epochs.

Command (prepared data sets; one GPU; without --detectors VLMDiff alone):
    python -m experiments.vlmdiff.table9 --captions /data/captions --autoencoder-start kl-f8.ckpt \
        --detectors vlmdiff diad
One's own parts, from a finetuned autoencoder:
    python -m experiments.vlmdiff.table9 --data folder:/my/parts --captions captions --autoencoder runs/ae/autoencoder

Expected: VLMDiff behind DiAD by image AUROC (90.6 and 92.0 on MVTec-AD after 300 epochs), far ahead by AUPRO (89.4 and
64.4). Each row is a run of its own; those of 300 epochs are also rows of Tables 11 to 13 and of `results.py`, which
find them below the same --out. Both tables are the same runs on two data sets.
"""

from __future__ import annotations

import tyro

from experiments.vlmdiff.rows import EPOCHS, SHORT_EPOCHS, TITLES, Mean, RowOptions, Table

DATA = ("mvtec_ad", "visa")

PUBLISHED = {
    "mvtec_ad, DiAD, 100 epochs": (88.9, 89.3, 63.9),
    "mvtec_ad, DiAD, 300 epochs": (92.0, 89.3, 64.4),
    "mvtec_ad, VLMDiff, 100 epochs": (86.9, 94.9, 86.7),
    "mvtec_ad, VLMDiff, 300 epochs": (90.6, 95.9, 89.4),
    "visa, DiAD, 100 epochs": (84.8, 82.5, 44.5),
    "visa, DiAD, 300 epochs": (90.5, 83.4, 44.3),
    "visa, VLMDiff, 100 epochs": (79.0, 96.0, 77.0),
    "visa, VLMDiff, 300 epochs": (80.9, 97.0, 81.0),
}


def main(options: RowOptions) -> dict[str, Mean]:
    """Runs each length and prints ours beside the published values; returns the means by row."""
    table = Table(options, PUBLISHED, "Tables 9 and 10")
    for data in options.data or DATA:
        for detector in options.detectors:
            for epochs in (SHORT_EPOCHS, EPOCHS):
                table.row(f"{data}, {TITLES[detector]}, {epochs} epochs", data, detector=detector, epochs=epochs)
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
