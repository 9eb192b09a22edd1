"""What a checkpoint records besides its arrays: every field's type, checked before any is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxad.data.depth import DEPTHS
from jaxad.data.region import Region
from jaxad.data.tiles import Tiling
from jaxad.errors import CheckpointError, ConfigError, DataError
from jaxad.io.json_files import Faults

DIGEST = 16
"""Bytes of an image's digest."""
_EVERY: Mapping[str, Any] = {"format": int, "jaxad": str, "system": str, "step": int, "config": dict}
_DETECTOR: Mapping[str, Any] = {
    "class": str,
    "categories": list,
    "pretrained": (dict, None),
    "threshold": (dict, None),
    "complete": bool,
}
_OPTIONAL: Mapping[str, Any] = {
    "train": (dict, None),
    "micro_batch": int,
    "data": dict,
    "protocol": str,
    "false_alarm": (int, float),
    "weights": dict,
    "versions": dict,
    "depths": dict,
    "update": dict,
    "learned": list,
    "tiling": (dict, None),
    "regions": dict,
    "from": (dict, None),
}
_PRETRAINED: Mapping[str, Any] = {
    "attribute": str,
    "id": str,
    "sha256": str,
    "bytes": int,
    "config": dict,
    "swaps": bool,
    "embedded": bool,
}


def check_meta(record: Mapping[str, Any], file: Path, *, of_detector: bool) -> None:
    """Checks the types of all fields.

    Args:
        record: as saved.
        file: that it was read from.
        of_detector: whether the step holds a detector; else the state of another training.

    Raises:
        CheckpointError: lists every field that is missing or of a wrong type.
    """
    faults = Faults(file)
    optional = {name: kind for name, kind in _OPTIONAL.items() if name in record}
    faults.fields(record, "meta", **_EVERY, **(_DETECTOR if of_detector else {}), **optional)
    for name, least in (("step", 0), ("micro_batch", 1)):
        if isinstance(record.get(name), int) and record[name] < least:
            faults.add(f"meta.{name}", f"must be at least {least}")
    if of_detector and isinstance(record.get("categories"), list):
        for number, name in enumerate(record["categories"]):
            faults.has(name, f"meta.categories[{number}]", str)
    if isinstance(record.get("learned"), list):
        for number, digests in enumerate(record["learned"]):
            place = f"meta.learned[{number}]"
            if faults.has(digests, place, str) and not re.fullmatch(f"([0-9a-f]{{{2 * DIGEST}}})*", digests):
                faults.add(place, f"must hold digests of {DIGEST} bytes in hexadecimal, one after the other")
    if isinstance(record.get("depths"), dict):
        for name, depth in record["depths"].items():
            if type(depth) is not int or depth not in DEPTHS:
                faults.add(f"meta.depths.{name}", f"must be one of {', '.join(map(str, DEPTHS))}")
    if isinstance(record.get("tiling"), dict) and faults.fields(
        record["tiling"], "meta.tiling", side=int, overlap=(int, float)
    ):
        try:
            Tiling.from_json(record["tiling"])
        except ConfigError as error:
            faults.add("meta.tiling", str(error))
    if isinstance(record.get("regions"), dict):
        for name, region in record["regions"].items():
            try:
                Region.from_json(region)
            except (DataError, ValueError) as error:
                faults.add(f"meta.regions.{name}", str(error))
    if of_detector and isinstance(record.get("pretrained"), dict):
        faults.fields(record["pretrained"], "meta.pretrained", **_PRETRAINED)
    if faults.count:
        problems = [f"  {problem.detail}" for problem in faults.problems]
        raise CheckpointError("\n".join([f"{file}: not what jaxad records of a checkpoint:", *problems]))


def digests_text(digests: Iterable[bytes]) -> str:
    """Digests of images (`jaxad.types.Source.digest`), each once, as the field "learned" holds those of a data set."""
    return "".join(sorted({digest.hex() for digest in digests}))


def learned_digests(meta: Mapping[str, Any]) -> list[set[bytes]]:
    """Digests of the images that a detector has learned, for each of the data sets that it has learned from.

    Args:
        meta: of a step; empty of one that has learned from no data set, or whose digests were not recorded.
    """
    texts = meta.get("learned", [])
    return [{bytes.fromhex(text[i : i + 2 * DIGEST]) for i in range(0, len(text), 2 * DIGEST)} for text in texts]
