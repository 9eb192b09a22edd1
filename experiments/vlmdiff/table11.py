"""VLMDiff, Table 11: which vision-language model describes the training images.

Command (prepared data sets; one GPU; three folders of captions for each data set):
    python -m experiments.vlmdiff.table11 --captions /data/captions --autoencoder-start kl-f8.ckpt

Expected: hardly any difference, 89.8 to 90.7 image AUROC on MVTec-AD, 80.9 to 82.3 on VisA. The captions of a row are
those of `{data}_captions_{vlm}..._pd` whose captioner's name begins as CAPTIONERS says, which holds for the authors'
folders and for those of `jaxad caption`. The row of InternVL-2 is the run of `results.py`.

The published captioner OpenGVLab/InternVL2-8B brings its own code, which `jaxad caption` never runs. Without captions
that it made elsewhere, those of OpenGVLab/InternVL3-8B-hf stand in for them, since both names begin alike. Each row
therefore names the folder of its captions.
"""

from __future__ import annotations

import tyro

from experiments.vlmdiff.caption_rows import find
from experiments.vlmdiff.rows import Mean, RowOptions, Table
from jaxad.errors import ConfigError

DATA = ("mvtec_ad", "visa")
CAPTIONERS = {"Blip2": "blip", "DeepSeekv3-1.3B": "deepseek", "InternVL-2-8B": "internvl"}

PUBLISHED = {
    "mvtec_ad, Blip2": (89.8, 95.7, 88.6),
    "mvtec_ad, DeepSeekv3-1.3B": (90.7, 95.5, 89.0),
    "mvtec_ad, InternVL-2-8B": (90.6, 95.9, 89.4),
    "visa, Blip2": (82.3, 97.0, 80.7),
    "visa, DeepSeekv3-1.3B": (81.8, 96.8, 81.0),
    "visa, InternVL-2-8B": (80.9, 97.0, 81.0),
}
"""The paper writes DeepSeekv3-1.3B; its code loads deepseek-vl-1.3b-chat."""


def main(options: RowOptions) -> dict[str, Mean]:
    """Runs each captioner and prints ours beside the published values; returns the means by row.

    Raises:
        ConfigError: no folder of captions; without one every row would be the same.
        DataError: those of a captioner are missing.
    """
    if options.captions is None:
        raise ConfigError("--captions: Table 11 compares captions; name the folder that holds those of every captioner")
    table = Table(options, PUBLISHED, "Table 11")
    captioners = [(data, name, vlm) for data in options.data or DATA for name, vlm in CAPTIONERS.items()]
    folders = [find(options.captions, data, vlm, "train") for data, _, vlm in captioners]
    for (data, name, vlm), folder in zip(captioners, folders, strict=True):
        table.row(f"{data}, {name}", data, vlm=vlm)
        print(f"{'':32} {'captions':10} {folder}", flush=True)
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
