"""The official lists of Real-IAD and Real-IAD Variety: one JSON file for each category.

    {"meta": {...}, "train": [entry, ...], "test": [entry, ...]}
    entry = {"category", "anomaly_class", "image_path", "mask_path"}

Paths are relative to the category's folder. `anomaly_class` is "OK" or a two-letter code; `mask_path` may be null.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from jaxad.errors import DataError, Problem
from jaxad.io.json_files import Faults, read_json
from jaxad.io.untrusted import path_fault
from tfds_builders.listing import Sample

DEFECTS = {
    "AK": "pit",
    "BX": "deformation",
    "CH": "abrasion",
    "HS": "scratch",
    "PS": "damage",
    "QS": "missing parts",
    "YW": "foreign objects",
    "ZW": "contamination",
}
"""Meaning of the codes of `anomaly_class`."""

NORMAL, DEFECTIVE = "OK", "NG"
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
_VIEW = re.compile(r"_C0?([1-5])(?=_|$)")


class Rules(NamedTuple):
    """What differs between the data sets and protocols.

    Attributes:
        hidden_defects: an anomalous entry without mask shows a view in which the defect does not show; it is normal.
            Otherwise such an entry is an error.
        noisy_training: training lists may hold anomalous images.
    """

    hidden_defects: bool = False
    noisy_training: bool = False


def samples(json_file: Path, images: Path, category: str, rules: Rules) -> list[Sample]:
    """The images of one category in the order of its list.

    Args:
        json_file: the category's list.
        images: folder that holds all categories' images; those of the list are not looked for one by one.
        category: official name.
        rules: what the list may hold.

    Returns:
        Samples with `image_id` "<category>/<image_path>", `object_id` its folder (the views of an object lie in one),
        `view` 1..5 from the file name; `defect` as in `DEFECTS`, of a normal view of a defective object "good (its
        object: pit)". None if the category has no folder of images.

    Raises:
        DataError: with every entry that is wrong, by its place in the list.
    """
    folder = _image_folder(images, category)
    if folder is None:
        return []
    content = read_json(json_file)
    faults = Faults(json_file)
    found = []
    if faults.fields(content, "the file", train=list, test=list):
        seen: dict[str, str] = {}
        for split in SPLITS:
            for number, entry in enumerate(content[split]):
                place = f"{split}[{number}]"
                if _is_sound(entry, place, split, rules, faults):
                    if (earlier := seen.setdefault(entry["image_path"], place)) != place:
                        faults.add(f"{place}.image_path", f"{entry['image_path']} is listed before, at {earlier}")
                    found.append(_sample(entry, split, folder, category))
    faults.stop()
    return found


def find_folder(root: Path, candidates: Sequence[str], what: str) -> Path:
    """The first folder in `root` that exists. Raises DataError naming all that were looked for."""
    for name in candidates:
        if (root / name).is_dir():
            return root / name
    detail = f"{what}; looked for {', '.join(candidates)}"
    raise DataError("a folder is missing:", [Problem("missing folder", str(root), detail)])


def _image_folder(root: Path, category: str) -> Path | None:
    """Folder of a category's images, which hold the category in their names.

    Its archive may hold `<category>/OK` or `OK`, and be unpacked in a folder of the category's name or beside the
    others: `root/<category>/<category>`, `root/<category>` or `root` itself.
    """
    for folder in (root / category / category, root / category, root):
        if (folder / NORMAL).is_dir() or (folder / DEFECTIVE).is_dir():
            return folder
    return None


def _is_sound(entry: Any, place: str, split: str, rules: Rules, faults: Faults) -> bool:
    if not faults.fields(entry, place, anomaly_class=str, image_path=str, mask_path=(str, None)):
        return False
    before = faults.count
    for name in ("image_path", "mask_path"):
        path = entry[name]
        if path is not None and (not path or path_fault(path)):
            faults.add(f"{place}.{name}", f"{path!r} is no path inside the category's folder")
    if _VIEW.search(PurePosixPath(entry["image_path"]).stem) is None:
        faults.add(f"{place}.image_path", f"{entry['image_path']} names no view _C1_ to _C5_")
    anomalous = entry["anomaly_class"] != NORMAL
    if not anomalous and entry["mask_path"] is not None:
        faults.add(f"{place}.mask_path", f"{entry['mask_path']} for an image of class {NORMAL}, which has no mask")
    if anomalous and entry["mask_path"] is None and not rules.hidden_defects:
        faults.add(f"{place}.mask_path", f"is null for an image of class {entry['anomaly_class']}, which has a mask")
    if split == "train" and _label(entry) and not rules.noisy_training:
        faults.add(f"{place}.anomaly_class", f"{entry['anomaly_class']}, but only normal images are for training")
    return faults.count == before


def _label(entry: dict[str, Any]) -> int:
    return int(entry["anomaly_class"] != NORMAL and entry["mask_path"] is not None)


def _sample(entry: dict[str, Any], split: Literal["train", "test"], images: Path, category: str) -> Sample:
    code, path = entry["anomaly_class"], PurePosixPath(entry["image_path"])
    label = _label(entry)
    defect = "good" if code == NORMAL else DEFECTS.get(code, str(code))
    return Sample(
        split=split,
        image=images / path,
        category=category,
        label=label,
        defect=defect if label or code == NORMAL else f"good (its object: {defect})",
        image_id=f"{category}/{path}",
        mask=images / entry["mask_path"] if label else None,
        object_id=f"{category}/{path.parent}",
        view=int(_VIEW.findall(path.stem)[-1]),
    )
