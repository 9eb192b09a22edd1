"""Which captions a run of VLMDiff takes: those of one captioner and one prompt, found by the published folder names.

Not an experiment itself; `rows.py` beside it builds on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from jaxad.cli.captions import caption_record
from jaxad.cli.captions import described as attached
from jaxad.data import ImageSource
from jaxad.data.captions.attach import Captions
from jaxad.detectors.vlmdiff.captioning import data_name
from jaxad.errors import DataError
from jaxad.io.progress import Reporter

AUTHORS = {"mvtec_ad": "mvtec", "coco_ad": "coco"}
"""Names of data sets in the folders of VLMDiff's authors, where they differ from ours by more than an underscore."""
COCO_PART = {"train": "train", "test": "val"}
"""What COCO calls its parts."""


def described(
    source: ImageSource, root: Path | None, data: str, vlm: str, split: Literal["train", "test"], reporter: Reporter
) -> tuple[ImageSource, dict[str, Any]]:
    """The images with the captions found below `root`; with their own where `root` is None.

    Args:
        source: images of `split`.
        root: folder of the caption folders.
        data: name of the data set, as `jaxad.data.load` takes it.
        vlm: how the captioner's name begins.
        split: "train" or "test".
        reporter: warns of images without caption and of captions without image.

    Returns:
        The images, and what reports say about their captions: captioner "vlm", and what `caption_record` returns.

    Raises:
        DataError: no such captions, several, or captions that do not fit the images.
    """
    captions = None if root is None else Captions.load(find(root, data, vlm, split), split)
    images = attached(source, captions)
    return images, {"vlm": vlm, **caption_record(images, captions, split, reporter)}


def find(root: Path, data: str, vlm: str, split: str) -> Path:
    """The folder or file below `root` with the captions (prompt P_D; COCO-AD's own prompt) of a data set's split.

    Raises:
        DataError: there is none, or more than one.
    """
    found = sorted({path for path in _candidates(root, data, vlm, split) if path.exists()})
    if len(found) != 1:
        what = ", ".join(map(str, found)) or "nothing"
        raise DataError(
            f"{root}: needs one folder {data_name(data)}_captions_{vlm}..._pd with {split} captions, as jaxad caption "
            f"writes it; there is {what}"
        )
    return found[0]


def _candidates(root: Path, data: str, vlm: str, split: str) -> Iterator[Path]:
    name = data.partition("/")[0]
    wanted = {_plain(data_name(data)), _plain(AUTHORS.get(name, name))}
    prompts = ("pd", "coco") if name == "coco_ad" else ("pd",)
    for prompt in prompts:
        for folder in root.glob(f"*_captions_{vlm}*_{prompt}"):
            if _plain(folder.name.partition("_captions_")[0]) in wanted and any(folder.glob(f"{split}_captions_*")):
                yield folder
    if name == "coco_ad":
        for folder in (root, root / "annotations"):
            yield from folder.glob(f"captions_{COCO_PART[split]}2017_{vlm}*.json")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
