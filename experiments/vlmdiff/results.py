"""VLMDiff, the results table of its README: seven metrics on four benchmarks, one detector for all categories of each.

Command (prepared data sets, see `jaxad prepare`; captions by `jaxad caption`; one GPU):
    python -m experiments.vlmdiff.results --captions /data/captions --autoencoder-start kl-f8.ckpt
Small (two CPU cores; an untrained Stable Diffusion, so that numbers only show that all of it runs):
    python -m experiments.vlmdiff.results --data folder:/my/parts --preset small --out runs/vlmdiff-small

Expected: image AUROC 90.6 on MVTec-AD, 80.9 on VisA, 78.0 on Real-IAD, 59.1 on COCO-AD. MVTec-AD and VisA are trained
for 300 epochs, Real-IAD and COCO-AD for 100. COCO-AD is the mean over its four splits, each with a detector of its own,
and has captions at test time too. Published values are macro means over the categories.
"""

from __future__ import annotations

import tyro

from experiments.vlmdiff.rows import COCO_SPLITS, Mean, RowOptions, Table

COLUMNS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")

PUBLISHED = {
    "real_iad": (78.0, 73.2, 69.8, 97.1, 25.5, 32.3, 87.7),
    "coco_ad": (59.1, 51.2, 62.9, 69.0, 15.3, 22.4, 38.8),
    "mvtec_ad": (90.6, 95.7, 94.2, 95.9, 51.8, 53.6, 89.4),
    "visa": (80.9, 83.9, 80.7, 97.0, 28.3, 33.6, 81.0),
}


def main(options: RowOptions) -> dict[str, Mean]:
    """Runs each benchmark and prints ours beside the published values; returns the means by benchmark."""
    table = Table(options, PUBLISHED, "results of its README", COLUMNS)
    for data in options.data or PUBLISHED:
        if data != "coco_ad":
            table.row(data, data)
            continue
        splits = {f"coco_ad, split {number}": split for number, split in enumerate(COCO_SPLITS)}
        for name, split in splits.items():
            table.row(name, split)
        table.average(data, list(splits))
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
