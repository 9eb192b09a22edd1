r"""VLMDiff, Table 13: the network whose features of image and reconstruction are compared.

Command (prepared MVTec-AD; one GPU; weights come from the hub, those of DINO R50 from its authors' file):
    python -m experiments.vlmdiff.table13 --captions /data/captions --autoencoder-start kl-f8.ckpt \
        --dino-resnet50 dino_resnet50_pretrain.pth
Some networks, on one's own parts:
    python -m experiments.vlmdiff.table13 --data folder:/my/parts --autoencoder runs/ae/autoencoder \
        --networks facebook/dino-vits16 /weights/resnet18

Expected: DINO ViT-S/8 best (90.6 image AUROC, 89.4 AUPRO). Training does not depend on that network: one detector is
evaluated with all of them. The published code showed DINOv2 its pixels in a wrong order, so that its row cannot be
compared. A network whose patch does not divide the image sees it resized to the nearest multiple: DINOv2 252 of 256 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from experiments.vlmdiff.rows import Mean, RowOptions, Table

DATA = "mvtec_ad"
NETWORKS = {
    "ImageNet R50": "timm/resnet50.a1_in1k",
    "DINO-v2 ViTS/14": "facebook/dinov2-small",
    "DINO R50": None,
    "DINO ViTB/16": "facebook/dino-vitb16",
    "DINO ViTS/16": "facebook/dino-vits16",
    "DINO ViTB/8": "facebook/dino-vitb8",
    "DINO ViTS/8": "facebook/dino-vits8",
}
"""What jaxad takes for the rows; DINO R50 is not on the hub under its authors' name."""

STAGES = {"DINO R50": (1, 2, 3)}
"""The published code compares other stages of this network than of ImageNet's: those of strides 8, 16 and 32."""
PUBLISHED = {
    "ImageNet R50": (88.8, 92.6, 81.0),
    "DINO-v2 ViTS/14": (64.6, 61.3, 16.8),
    "DINO R50": (86.8, 90.3, 71.0),
    "DINO ViTB/16": (89.8, 92.8, 79.3),
    "DINO ViTS/16": (85.1, 90.2, 74.3),
    "DINO ViTB/8": (87.5, 93.6, 82.6),
    "DINO ViTS/8": (90.6, 95.9, 89.4),
}


@dataclass(frozen=True)
class Table13(RowOptions):
    """Evaluate one detector with several networks."""

    networks: tuple[str, ...] = ()
    """Folders, files or hub ids of networks in place of the published rows."""
    dino_resnet50: str | None = None
    """DINO's dino_resnet50_pretrain.pth; its row is left out if not given."""


def main(options: Table13) -> dict[str, Mean]:
    """Evaluates each network and prints ours beside the published values; returns the means by row."""
    table = Table(options, PUBLISHED, "Table 13")
    rows = {name: name for name in options.networks} or {**NETWORKS, "DINO R50": options.dino_resnet50}
    for data in options.data or (DATA,):
        workdirs = table.train(data)
        for name, source in rows.items():
            title = name if data == DATA else f"{data}, {name}"
            if source is None:
                print(f"{title}: left out; give its weights with --dino-resnet50", flush=True)
                continue
            table.evaluate(title, data, workdirs, backbone=source, stages=STAGES.get(name))
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(Table13, description=__doc__))
