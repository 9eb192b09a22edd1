"""DPDiff-AD, Table 7: feature extractors.

Command (as published, MVTec-AD; one GPU; weights come from the hub):
    python -m experiments.dpdiff.table7 --data folder:/data/mvtec_ad --out runs/table7
One row, or weights that lie elsewhere:
    python -m experiments.dpdiff.table7 --data folder:/my/parts --out runs/table7 --preset small --backbone resnet18

Expected: DINOv2-B best (89.1 mAD), then DINOv2-S, DINOv1, EfficientNets, ResNets and supervised ViTs (82.0). Published
numbers are for MVTec-AD. Input is 448 px for every network; those with another patch have another token grid. Which
blocks and stages stand for "layers 6-11": docs/decisions.md#dpdiff-feature-layers.
"""

from __future__ import annotations

import tyro

from experiments.dpdiff.rows import Mean, RowOptions, Table

BACKBONES = {
    "ResNet18": "microsoft/resnet-18",
    "ResNet34": "microsoft/resnet-34",
    "ResNet50": "microsoft/resnet-50",
    "ResNet101": "microsoft/resnet-101",
    "EfficientNet-B0": "google/efficientnet-b0",
    "EfficientNet-B2": "google/efficientnet-b2",
    "EfficientNet-B4": "google/efficientnet-b4",
    "EfficientNet-B6": "google/efficientnet-b6",
    "ViT-B/16": "google/vit-base-patch16-224",
    "ViT-L/16": "google/vit-large-patch16-224",
    "DINOv1-S": "facebook/dino-vits8",
    "DINOv1-B": "facebook/dino-vitb8",
    "DINOv2-S": "facebook/dinov2-with-registers-small",
    "DINOv2-B": "facebook/dinov2-with-registers-base",
}
"""Our reading of the rows; the paper does not name checkpoints, nor the patch of its DINOv1 networks."""

PUBLISHED = {
    "ResNet18": (94.2, 98.4, 95.7, 96.8, 50.6, 54.7, 91.8, 83.2),
    "ResNet34": (93.2, 98.0, 95.2, 97.1, 51.7, 55.2, 92.3, 83.2),
    "ResNet50": (92.6, 97.7, 95.1, 97.1, 52.0, 55.8, 92.2, 83.2),
    "ResNet101": (92.0, 97.4, 95.4, 97.2, 51.1, 54.9, 92.4, 82.9),
    "EfficientNet-B0": (97.8, 99.3, 97.6, 97.3, 53.9, 58.1, 92.5, 85.2),
    "EfficientNet-B2": (98.1, 99.4, 98.0, 97.2, 49.7, 55.8, 92.5, 84.4),
    "EfficientNet-B4": (98.3, 99.6, 98.0, 97.6, 54.4, 57.7, 94.4, 85.7),
    "EfficientNet-B6": (98.2, 99.5, 98.1, 97.7, 54.4, 57.8, 94.4, 85.7),
    "ViT-B/16": (94.1, 98.2, 95.9, 96.8, 48.6, 53.2, 86.9, 82.0),
    "ViT-L/16": (94.9, 98.1, 95.9, 97.1, 49.9, 54.0, 87.2, 82.4),
    "DINOv1-S": (94.5, 97.6, 95.2, 98.0, 62.8, 62.6, 92.2, 86.1),
    "DINOv1-B": (93.8, 97.1, 95.6, 98.1, 62.7, 63.3, 92.8, 86.2),
    "DINOv2-S": (99.0, 99.7, 98.7, 98.5, 64.3, 63.9, 95.7, 88.5),
    "DINOv2-B": (99.5, 99.9, 99.1, 98.7, 65.6, 64.8, 95.9, 89.1),
}


def main(options: RowOptions) -> dict[str, Mean]:
    """Runs each backbone, or `--backbone` alone, and prints ours beside the published one; the means by row."""
    with Table(options, PUBLISHED, "Table 7") as table:
        for name, backbone in {options.backbone: options.backbone}.items() if options.backbone else BACKBONES.items():
            table.row(name, backbone=backbone, blocks=None)
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
