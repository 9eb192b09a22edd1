"""The files in which VLMDiff's captions are published, and how they are read.

    {dset}_captions_{vlm}_{pd|pa}/{train|test}_captions_{dset}_{vlm}[_{start}_{end}].json    a list of texts
    {dset}_captions_{vlm}_{pd|pa}/{train|test}_labels_{dset}_{vlm}[_{start}_{end}].json      the images, in that order
    annotations/captions_{train|val}2017[_{vlm}].json                                        COCO, by image number

Labels are paths that end in the image's path in the data set; those of COCO are image numbers, alone or in a list.
The authors' captioner writes all test images again beside every part of the training images, under that part's name.
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
_FOLDER = re.compile(r"(?P<data>.+)_captions_(?P<vlm>[^_]+)_(?P<prompt>[^_]+)")
_COCO = re.compile(r"captions_(train|val)2017_(?P<vlm>.+)\.json")
_AUTHORS = {"internvl": "internvl2-8b", "blip": "blip2-flan-t5-xxl", "deepseekvl": "deepseek-vl-1.3b-chat"}
"""What VLMDiff's authors call their captioners, and how their folders would name them if `jaxad caption` made them."""


class CaptionList(NamedTuple):
    """Image of each text (paths, or with `numbered` COCO image numbers of twelve digits), and the texts."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    numbered: bool


def read_captions(path: Path, split: str) -> CaptionList:
    """Reads a folder, one captions file with its labels beside it, or a COCO annotation file; see `Captions.load`."""
    if path.is_dir():
        return _joined(path, _parts(path, split), split)
    if path.name.startswith(("train_captions_", "test_captions_")):
        return _joined(path, [Part(path)], "")
    return _coco(path)


def kind_of(path: Path) -> str:
    """Captioner and prompt, such as "internvl2-8b, pd", by the published names; "" where these do not tell."""
    if (match := _COCO.fullmatch(path.name)) is not None:
        return named(f"{match['vlm']}, coco")
    match = _FOLDER.fullmatch((path.parent if path.suffix == ".json" else path).absolute().name)
    if match is None:
        return ""
    # The authors' captioner has one prompt for COCO, whatever its folder is called.
    prompt = "coco" if match["data"] == "coco" else match["prompt"]
    return named(f"{match['vlm']}, {prompt}")


def named(kind: str) -> str:
    """A kind as `kind_of` says it, of one with the name that the authors have for the captioner, as older runs have."""
    vlm, comma, prompt = kind.partition(", ")
    return f"{_AUTHORS.get(vlm, vlm)}{comma}{prompt}"


class Part(NamedTuple):
    """A file of captions, whole or from one place of the data set to another."""

    captions: Path
    start: int | None = None
    end: int | None = None

    @property
    def labels(self) -> Path:
        """The file that names the images."""
        return self.captions.with_name(self.captions.name.replace("_captions_", "_labels_", 1))


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
    return sorted(ordered, key=lambda part: (part.start or 0, part.end or 0))


def _joined(source: Path, parts: Sequence[Part], split: str) -> CaptionList:
    """The captions of parts in order.

    Raises:
        DataError: with every problem found.
    """
    problems = Problems()
    read = []
    for part in parts:
        with problems.collected():
            read.append((part, read_lists(part)))
    problems.stop(f"{source}: the captions cannot be used:")
    lists = [found for _, found in read]
    if split == "test" and all(found.ids == lists[0].ids for found in lists):
        # Each of the files has all images: the authors' captioner writes those of the test again with every part.
        return lists[0]
    problems += _gaps(source, parts)
    if len(lists) > 1:
        problems += [problem for part, found in read for problem in _wrong_span(part, len(found.ids), parts[-1])]
    if len({found.numbered for found in lists if found.ids}) > 1:
        problems.add("wrong entry", source, "some labels are paths, others image numbers")
    problems.stop(f"{source}: the captions cannot be used:")
    ids, texts = ([entry for found in lists for entry in found[column]] for column in (0, 1))
    return CaptionList(tuple(ids), tuple(texts), any(found.numbered for found in lists))


def read_lists(part: Part, *, ahead: bool = False) -> CaptionList:
    """The captions of one file, and their images.

    Args:
        part: the file.
        ahead: whether there may be further labels, whose captions are still to be written.

    Raises:
        DataError: with every problem found.
    """
    problems, contents = Problems(), []
    for file in (part.captions, part.labels):
        with problems.collected():
            contents.append(read_json(file))
    problems.stop(f"{part.captions}: cannot be used:")
    faults = Faults(part.captions), Faults(part.labels)
    texts = _texts(contents[0], faults[0])
    ids, kinds = _images(contents[1], faults[1])
    problems += [*faults[0].problems, *faults[1].problems]
    if len(kinds) > 1:
        problems.add("wrong entry", part.labels, "some labels are paths, others image numbers")
    if not problems and ahead:
        ids = ids[: len(texts)]
    if not problems and len(texts) != len(ids):
        detail = f"{len(texts)} captions, but {len(ids)} labels in {part.labels.name}"
        problems.add("unequal length", part.captions, detail)
    problems.stop(f"{part.captions}: cannot be used:")
    return CaptionList(tuple(ids), tuple(texts), kinds == {True})


def _gaps(folder: Path, parts: Sequence[Part]) -> Problems:
    """What parts leave out or have twice, by their names."""
    problems = Problems()
    for before, after in pairwise(parts):
        if before.end is None or after.start is None:
            problems.add("whole and part", folder, "one file is whole, others are parts; keep either")
        elif after.start != before.end:
            gap = "is missing" if after.start > before.end else "is there twice"
            ends = sorted((before.end, after.start))
            problems.add("parts do not join", after.captions, f"{ends[0]} to {ends[1]} {gap}")
    if parts[0].start:
        problems.add("parts do not join", parts[0].captions, f"0 to {parts[0].start} is missing")
    return problems


def _wrong_span(part: Part, number: int, last: Part) -> list[Problem]:
    """Whether a part holds another number of captions than its name says."""
    if part.start is None or part.end is None:
        return []
    # The last part ends with the data set, wherever its name says.
    span = part.end - part.start
    if number > span or (number < span and part is not last):
        detail = f"{number} captions, but {part.start} to {part.end} are {span}"
        return [Problem("parts do not join", str(part.captions), detail)]
    return []


def _texts(captions: Any, faults: Faults) -> list[str]:
    if not faults.has(captions, "the file", list):
        return []
    # Some captioners answer with a list of one text.
    answers = [_only(answer) for answer in captions]
    return [answer for place, answer in enumerate(answers) if faults.has(answer, f"[{place}]", str)]


def _images(labels: Any, faults: Faults) -> tuple[list[str], set[bool]]:
    """Paths or image numbers, and whether they are numbers."""
    if not faults.has(labels, "the file", list):
        return [], set()
    images, kinds = [], set()
    for place, label in enumerate(labels):
        listed = isinstance(label, list)
        if not faults.has(_only(label), f"[{place}]", str, *((int,) if listed else ())):
            continue
        image = str(_only(label))
        # The authors' captioner for DeepSeek-VL leaves out the list.
        numbered = listed or image.isdecimal()
        if numbered and not image.isdecimal():
            faults.add(f"[{place}]", f"a list holds a COCO image number, not {image!r}")
        images.append(image.zfill(12) if numbered else image.replace("\\", "/"))
        kinds.add(numbered)
    return images, kinds


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


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
