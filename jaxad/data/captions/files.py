"""The files in which VLMDiff's captions are published, and how they are read.

    {dset}_captions_{vlm}_{pd|pa}/{train|test}_captions_{dset}_{vlm}[_{start}_{end}].json    a list of texts
    {dset}_captions_{vlm}_{pd|pa}/{train|test}_labels_{dset}_{vlm}[_{start}_{end}].json      the images, in that order
    annotations/captions_{train|val}2017[_{vlm}].json                                        COCO, by image number

Labels are paths that end in the image's path in the data set; those of COCO are lists of one image number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from jaxad.errors import DataError, Problem
from jaxad.io.json_files import Faults, read_json
from jaxad.io.problems import Problems

SHARD = re.compile(r"(?P<stem>.+?)_(?P<start>\d+)_(?P<end>\d+)")
_PEOPLE = re.compile(r"captions_(train|val)2017\.json")
_FOLDER = re.compile(r".+_captions_(?P<vlm>[^_]+)_(?P<prompt>[^_]+)")
_COCO = re.compile(r"captions_(train|val)2017_(?P<vlm>.+)\.json")


class CaptionList(NamedTuple):
    """Image of each text (paths, or with `numbered` COCO image numbers of twelve digits), and the texts."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    numbered: bool


def read_captions(path: Path, split: str) -> CaptionList:
    """Reads a folder, one captions file with its labels beside it, or a COCO annotation file; see `Captions.load`."""
    if path.is_dir():
        return joined(path, _parts(path, split))
    if path.name.startswith(("train_captions_", "test_captions_")):
        return joined(path, [Part(path)])
    return _coco(path)


def kind_of(path: Path) -> str:
    """Captioner and prompt, such as "internvl2-8b, pd", by the published names; "" where these do not tell."""
    if (match := _COCO.fullmatch(path.name)) is not None:
        return f"{match['vlm']}, coco"
    match = _FOLDER.fullmatch((path.parent if path.suffix == ".json" else path).absolute().name)
    return "" if match is None else f"{match['vlm']}, {match['prompt']}"


class Part(NamedTuple):
    """A file of captions, whole or from one place of the data set to another."""

    captions: Path
    start: int | None = None
    end: int | None = None

    @property
    def labels(self) -> Path:
        """The file that names the images."""
        return self.captions.with_name(self.captions.name.replace("_captions_", "_labels_", 1))

    @property
    def journal(self) -> Path:
        """The file in which captions are kept until all of them are there."""
        return self.captions.with_suffix(".journal")


def _parts(folder: Path, split: str) -> list[Part]:
    """The captions files of one split, in order; refuses what leaves a doubt which they are."""
    files = sorted(folder.glob(f"{split}_captions_*.json"))
    if not files:
        raise DataError(f"{folder}: no file {split}_captions_*.json; give the folder that VLMDiff's captioner wrote")
    parts: dict[str, list[Part]] = {}
    for file in files:
        match = SHARD.fullmatch(file.stem)
        part = Part(file, int(match["start"]), int(match["end"])) if match else Part(file)
        parts.setdefault(match["stem"] if match else file.stem, []).append(part)
    if len(parts) > 1:
        raise DataError(f"{folder}: holds {', '.join(parts)}; give the file or keep one of them in the folder")
    (ordered,) = parts.values()
    ordered.sort(key=lambda part: (part.start or 0, part.end or 0))
    problems = Problems()
    for before, after in pairwise(ordered):
        if before.end is None or after.start is None:
            problems.add("whole and part", folder, "one file is whole, others are parts; keep either")
        elif after.start != before.end:
            gap = "is missing" if after.start > before.end else "is there twice"
            ends = sorted((before.end, after.start))
            problems.add("parts do not join", after.captions, f"{ends[0]} to {ends[1]} {gap}")
    if ordered[0].start:
        problems.add("parts do not join", ordered[0].captions, f"0 to {ordered[0].start} is missing")
    problems.stop(f"{folder}: the parts of {split} cannot be joined:")
    return ordered


def joined(source: Path, parts: Sequence[Part]) -> CaptionList:
    """The captions of parts in order.

    Raises:
        DataError: with every problem found.
    """
    ids: list[str] = []
    texts: list[str] = []
    kinds: set[bool] = set()
    problems = Problems()
    for part in parts:
        faults = Faults(part.captions), Faults(part.labels)
        read = None
        with problems.collected():
            read = read_json(part.captions), read_json(part.labels)
        if read is None:
            continue
        part_texts = _texts(read[0], faults[0])
        part_ids, numbered = images_of(read[1], faults[1])
        found = [*faults[0].problems, *faults[1].problems]
        if not found:
            found = _wrong_length(part, len(part_texts), len(part_ids), last=part is parts[-1], only=len(parts) == 1)
        problems += found
        ids += part_ids
        texts += part_texts
        kinds |= numbered
    if len(kinds) > 1:
        problems.add("wrong entry", source, "some labels are paths, others lists of an image number")
    problems.stop(f"{source}: the captions cannot be used:")
    return CaptionList(tuple(ids), tuple(texts), kinds == {True})


def _texts(captions: Any, faults: Faults) -> list[str]:
    if not faults.has(captions, "the file", list):
        return []
    # Some captioners answer with a list of one text.
    answers = [_only(answer) for answer in captions]
    return [answer for place, answer in enumerate(answers) if faults.has(answer, f"[{place}]", str)]


def images_of(labels: Any, faults: Faults) -> tuple[list[str], set[bool]]:
    """Paths or image numbers, and whether they are numbers."""
    if not faults.has(labels, "the file", list):
        return [], set()
    images, kinds = [], set()
    for place, label in enumerate(labels):
        numbered = isinstance(label, list)
        if not faults.has(_only(label), f"[{place}]", str, *((int,) if numbered else ())):
            continue
        image = str(_only(label))
        if numbered and not image.isdecimal():
            faults.add(f"[{place}]", f"a list holds a COCO image number, not {image!r}")
        images.append(image.zfill(12) if numbered else image.replace("\\", "/"))
        kinds.add(numbered)
    return images, kinds


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _wrong_length(part: Part, texts: int, ids: int, *, last: bool, only: bool) -> list[Problem]:
    file = str(part.captions)
    if texts != ids:
        return [Problem("unequal length", file, f"{texts} captions, but {ids} labels in {part.labels.name}")]
    if part.start is None or part.end is None or only:
        return []
    # The last part ends with the data set, wherever its name says; a file alone was written for all of it.
    span = part.end - part.start
    if texts > span or (texts < span and not last):
        return [Problem("parts do not join", file, f"{texts} captions, but {part.start} to {part.end} are {span}")]
    return []


def _coco(file: Path) -> CaptionList:
    faults = Faults(file)
    content = read_json(file)
    pairs: list[tuple[str, str]] = []
    if faults.fields(content, "the file", annotations=list):
        for place, entry in enumerate(content["annotations"]):
            if faults.fields(entry, f"annotations[{place}]", image_id=(int, str), caption=str):
                pairs.append((str(entry["image_id"]).zfill(12), entry["caption"]))
    faults.stop()
    if _PEOPLE.fullmatch(file.name):
        joined: dict[str, list[str]] = {}
        for image, text in pairs:
            joined.setdefault(image, []).append(text.strip())
        pairs = [(image, " ".join(several)) for image, several in joined.items()]
    return CaptionList(tuple(image for image, _ in pairs), tuple(text for _, text in pairs), True)
