r"""VLMDiff, Table 14: the four splits of COCO-AD after 100 epochs, captions at test time too.

Command (`jaxad prepare coco_ad`, and again with --options split=split_1, split_2, split_3; one GPU):
    python -m experiments.vlmdiff.table14 --captions /data/captions --autoencoder-start kl-f8.ckpt \
        --detectors vlmdiff diad

Expected: both detectors near 59 image AUROC on average, VLMDiff ahead by AUPRO (38.8 and 30.8). Each split has a
detector of its own and is one category. `--data` replaces the splits by other data sets. Captions are COCO annotation
files `captions_{train,val}2017_{vlm}.json` of all images, or a folder of the published layout. DINO S/8 compares, as on
the other benchmarks; the command in VLMDiff's README would take ResNet-50 for COCO-AD.
"""

from __future__ import annotations

import tyro

from experiments.vlmdiff.rows import COCO_SPLITS, TITLES, Mean, RowOptions, Table

SPLITS = {f"Split-{number}": data for number, data in enumerate(COCO_SPLITS)}

PUBLISHED = {
    "Split-0, DiAD": (57.5, 67.0, 28.8),
    "Split-0, VLMDiff": (62.6, 74.3, 43.8),
    "Split-1, DiAD": (54.4, 71.3, 28.8),
    "Split-1, VLMDiff": (52.7, 71.5, 37.5),
    "Split-2, DiAD": (63.8, 68.0, 33.2),
    "Split-2, VLMDiff": (62.9, 69.3, 40.7),
    "Split-3, DiAD": (60.1, 65.9, 32.3),
    "Split-3, VLMDiff": (58.2, 60.8, 33.2),
    "Avg, DiAD": (59.0, 68.1, 30.8),
    "Avg, VLMDiff": (59.1, 69.0, 38.8),
}


def main(options: RowOptions) -> dict[str, Mean]:
    """Runs each split and prints ours beside the published values; returns the means by row."""
    table = Table(options, PUBLISHED, "Table 14")
    splits = {data: data for data in options.data} or SPLITS
    for detector in options.detectors:
        names = {f"{split}, {TITLES[detector]}": data for split, data in splits.items()}
        for name, data in names.items():
            table.row(name, data, detector=detector)
        table.average(f"Avg, {TITLES[detector]}", list(names))
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
