"""VLMDiff, Table 12: captions at test time, too, make it worse.

Command (prepared data sets; one GPU; captions of training and test images):
    python -m experiments.vlmdiff.table12 --captions /data/captions --autoencoder-start kl-f8.ckpt

Expected: worse by 2.2 points of image AUROC on MVTec-AD, 8.1 on VisA. Evaluates the detectors of 300 epochs without
captions (as published) and with those of the test images and guidance 9. Only the differences are published; they are
taken for points.
"""

from __future__ import annotations

import tyro

from experiments.vlmdiff.rows import METRICS, Mean, RowOptions, Table

DATA = ("mvtec_ad", "visa")

PUBLISHED = {
    "mvtec_ad, difference": (-2.2, -2.4, -6.5),
    "visa, difference": (-8.1, -2.9, -9.9),
}


def main(options: RowOptions) -> dict[str, Mean]:
    """Evaluates both ways and prints our difference beside the published one; returns the means by row."""
    table = Table(options, PUBLISHED, "Table 12")
    for data in options.data or DATA:
        workdirs = table.train(data)
        table.evaluate(f"{data}, no text", data, workdirs)
        table.evaluate(f"{data}, captions", data, workdirs, captions="always")
        without, given = (table.reports[f"{data}, {what}"] for what in ("no text", "captions"))
        pairs = [(before["mean"], after["mean"]) for before, after in zip(without, given, strict=True)]
        changes = [{m: None if None in (a[m], b[m]) else b[m] - a[m] for m in METRICS} for a, b in pairs]
        table.show(f"{data}, difference", changes)
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
