"""The files in which VLMDiff's captions are published, read and written.

    {dset}_captions_{vlm}_{pd|pa}/{train|test}_captions_{dset}_{vlm}[_{start}_{end}].json    a list of texts
    {dset}_captions_{vlm}_{pd|pa}/{train|test}_labels_{dset}_{vlm}[_{start}_{end}].json      the images, in that order
    annotations/captions_{train|val}2017[_{vlm}].json                                        COCO, by image number

Labels are paths that end in the image's path in the data set; those of COCO are lists of one image number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from jaxad.errors import DataError, Problem
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import LIST, Faults, parse_json, read_json
from jaxad.io.places import expanded
from jaxad.io.problems import Problems
from jaxad.io.untrusted import bytes_of

_SHARD = re.compile(r"(?P<stem>.+?)_(?P<start>\d+)_(?P<end>\d+)")
_PEOPLE = re.compile(r"captions_(train|val)2017\.json")


class CaptionList(NamedTuple):
    """Image of each text (paths, or with `numbered` COCO image numbers of twelve digits), and the texts."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    numbered: bool


def read_captions(path: Path, split: str) -> CaptionList:
    """Reads a folder, one captions file with its labels beside it, or a COCO annotation file; see `Captions.load`."""
    if path.is_dir():
        return _joined(path, _parts(path, split))
    if path.name.startswith(("train_captions_", "test_captions_")):
        return _joined(path, [_Part(path)])
    return _coco(path)


def write_captions(
    out_dir: str | Path,
    dataset: str,
    vlm: str,
    prompt: str,
    split: str,
    ids: Sequence[str],
    texts: Callable[[int], Iterable[str]],
    *,
    numbered: bool = False,
) -> Path:
    """Writes captions in the published layout; can be interrupted at any time and goes on where it stopped.

    Every text is kept in a journal as soon as it is there; the two lists are written from it when all are.

    Args:
        out_dir: where the folder `{dataset}_captions_{vlm}_{prompt}` is made.
        dataset: name of the data set.
        vlm: short name of the captioner, e.g. "internvl".
        prompt: "pd" or "pa".
        split: "train" or "test".
        ids: paths of the images, relative to the data set.
        texts: given how many captions there are already, yields the captions of `ids` from there on.
        numbered: labels are image numbers, as published for COCO.

    Returns:
        The folder, for `Captions.load`.

    Raises:
        DataError: the folder holds captions of other images, or `texts` ends too early.
    """
    folder = expanded(out_dir) / f"{dataset}_captions_{vlm}_{prompt}"
    captions_file = folder / f"{split}_captions_{dataset}_{vlm}.json"
    if folder.parent != expanded(out_dir) or _SHARD.fullmatch(captions_file.stem):
        raise DataError(f"captioner {vlm!r}: needs a short name without / and without two numbers at its end")
    part = _Part(captions_file)
    journal = captions_file.with_suffix(".journal")
    labels = [[str(int(PurePosixPath(image).stem))] if numbered else image for image in ids]
    if captions_file.exists():
        if read_json(part.labels) != labels:
            raise DataError(f"{captions_file}: holds captions of other images; give another folder")
        journal.unlink(missing_ok=True)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    done = _resume(journal, ids)
    with journal.open("a", encoding="utf-8") as lines:
        sound = lines.tell()
        for text in texts(len(done)) if len(done) < len(ids) else ():
            if len(done) == len(ids):
                # Captions that did not start where they should stand beside the wrong images.
                lines.truncate(sound)
                raise DataError(f"{journal}: more captions than the {len(ids)} images; those of this call are dropped")
            lines.write(json.dumps([ids[len(done)], text]) + "\n")
            lines.flush()
            done.append(text)
    if len(done) < len(ids):
        raise DataError(f"{journal}: {len(done)} captions for {len(ids)} images; call again for the others")
    # The captions come last: where they are, the labels are too.
    write_whole(part.labels, json.dumps(labels))
    write_whole(captions_file, json.dumps(done))
    journal.unlink()
    return folder


class _Part(NamedTuple):
    captions: Path
    start: int | None = None
    end: int | None = None

    @property
    def labels(self) -> Path:
        return self.captions.with_name(self.captions.name.replace("_captions_", "_labels_", 1))


def _parts(folder: Path, split: str) -> list[_Part]:
    """The captions files of one split, in order; refuses what leaves a doubt which they are."""
    files = sorted(folder.glob(f"{split}_captions_*.json"))
    if not files:
        raise DataError(f"{folder}: no file {split}_captions_*.json; give the folder that VLMDiff's captioner wrote")
    parts: dict[str, list[_Part]] = {}
    for file in files:
        match = _SHARD.fullmatch(file.stem)
        part = _Part(file, int(match["start"]), int(match["end"])) if match else _Part(file)
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


def _joined(source: Path, parts: Sequence[_Part]) -> CaptionList:
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
        part_ids, numbered = _images(read[1], faults[1])
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


def _images(labels: Any, faults: Faults) -> tuple[list[str], set[bool]]:
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


def _wrong_length(part: _Part, texts: int, ids: int, *, last: bool, only: bool) -> list[Problem]:
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


def _resume(journal: Path, ids: Sequence[str]) -> list[str]:
    """The captions in a journal; a last line that was cut off is dropped from it."""
    if not journal.exists():
        return []
    content = bytes_of(journal, LIST.bytes, lambda said: DataError(f"{journal}: {said}"))
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_whole(journal, whole)
    entries = [parse_json(line, journal) for line in whole.split(b"\n")[:-1]]
    faults = Faults(journal)
    for place, entry in enumerate(entries):
        if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
            faults.add(f"line {place + 1}", "must be a list of an image and its caption")
    faults.stop()
    if [image for image, _ in entries] != list(ids[: len(entries)]):
        raise DataError(f"{journal}: holds captions of other images; remove it or give another folder")
    return [text for _, text in entries]
