"""Captions written in the published layout, all by one process or in parts by several; each can be interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from jaxad.data.captions.files import SHARD, Part, images_of, joined
from jaxad.errors import DataError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import LIST, Faults, parse_json, read_json
from jaxad.io.places import expanded
from jaxad.io.untrusted import bytes_of


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
    cuts: Sequence[int] = (),
    part: int = 0,
) -> Path:
    """Writes captions in the published layout; can be interrupted at any time and goes on where it stopped.

    Every text is kept in a journal as soon as it is there; the two lists are written from it when all are. Several
    processes may write a part each, as files that are published in parts; see `join_captions`.

    Args:
        out_dir: where the folder `{dataset}_captions_{vlm}_{prompt}` is made.
        dataset: name of the data set.
        vlm: short name of the captioner, e.g. "internvl".
        prompt: "pd" or "pa".
        split: "train" or "test".
        ids: paths of the images, relative to the data set.
        texts: given how many captions there are already, yields the captions of `ids` from there on; of a part, given
            the place of the first that it lacks, those from there on up to its end.
        numbered: labels are image numbers, as published for COCO.
        cuts: places among `ids`, in order, at which another part begins; none for one whole.
        part: which part to write, counted from 0.

    Returns:
        The folder, for `Captions.load`.

    Raises:
        DataError: the folder holds captions of other images or other parts, or `texts` ends too early.
    """
    whole = _whole(out_dir, dataset, vlm, prompt, split)
    labels = _labels(ids, numbered)
    whole.captions.parent.mkdir(parents=True, exist_ok=True)
    parts = _cut(whole, len(ids), cuts)
    if not whole.captions.exists():
        _refuse_others(whole, parts)
        mine = parts[part]
        start, end = mine.start or 0, len(ids) if mine.end is None else mine.end
        _write_part(mine, ids[start:end], labels[start:end], lambda done: texts(start + done))
    elif read_json(whole.labels) != labels:
        raise DataError(f"{whole.captions}: holds captions of other images; give another folder")
    whole.journal.unlink(missing_ok=True)
    return whole.captions.parent


def join_captions(
    out_dir: str | Path,
    dataset: str,
    vlm: str,
    prompt: str,
    split: str,
    ids: Sequence[str],
    *,
    numbered: bool = False,
    cuts: Sequence[int] = (),
) -> bool:
    """Makes one whole of the parts that `write_captions` wrote with these arguments, as soon as all are there.

    Only one process at a time may do this.

    Returns:
        Whether the whole is there.

    Raises:
        DataError: a part is damaged, or of other images.
    """
    whole = _whole(out_dir, dataset, vlm, prompt, split)
    parts = [part for part in _cut(whole, len(ids), cuts) if part != whole]
    if not whole.captions.exists():
        if not all(part.captions.exists() for part in parts):
            return False
        found = joined(whole.captions.parent, parts)
        labels = _labels(ids, numbered)
        if list(found.ids) != images_of(labels, Faults(whole.labels))[0]:
            raise DataError(f"{whole.captions.parent}: its parts are of other images; remove them")
        _write_lists(whole, labels, list(found.texts))
    for part in parts:
        # The labels last: captions without them cannot be read.
        part.captions.unlink(missing_ok=True)
        part.labels.unlink(missing_ok=True)
    return True


def _whole(out_dir: str | Path, dataset: str, vlm: str, prompt: str, split: str) -> Part:
    """Where all captions of a split lie."""
    folder = expanded(out_dir) / f"{dataset}_captions_{vlm}_{prompt}"
    captions_file = folder / f"{split}_captions_{dataset}_{vlm}.json"
    if folder.parent != expanded(out_dir) or SHARD.fullmatch(captions_file.stem):
        raise DataError(f"captioner {vlm!r}: needs a short name without / and without two numbers at its end")
    return Part(captions_file)


def _labels(ids: Sequence[str], numbered: bool) -> list[Any]:
    return [[str(int(PurePosixPath(image).stem))] if numbered else image for image in ids]


def _cut(whole: Part, count: int, cuts: Sequence[int]) -> list[Part]:
    """The parts of so many captions, in order; the whole itself where it is not cut."""
    if not cuts:
        return [whole]
    file = whole.captions
    return [
        Part(file.with_name(f"{file.stem}_{start}_{end}.json"), start, end)
        for start, end in pairwise((0, *cuts, count))
    ]


def _refuse_others(whole: Part, parts: Sequence[Part]) -> None:
    """Raises DataError where captions were begun in other parts."""
    ours = {file for part in parts for file in (part.captions, part.journal)}
    stem = whole.captions.stem
    begun = {file for suffix in (".json", ".journal") for file in whole.captions.parent.glob(f"{stem}*{suffix}")}
    others = sorted(
        file.name
        for file in begun - ours
        if file.stem == stem or ((match := SHARD.fullmatch(file.stem)) and match["stem"] == stem)
    )
    if others:
        raise DataError(
            f"{whole.captions.parent}: holds {', '.join(others)}; go on with as many shards and images at once as "
            "before, or give another folder"
        )


def _write_part(part: Part, ids: Sequence[str], labels: Sequence[Any], texts: Callable[[int], Iterable[str]]) -> None:
    """Writes captions that can be interrupted; `texts` is given how many there are already."""
    if part.captions.exists():
        if read_json(part.labels) != labels:
            raise DataError(f"{part.captions}: holds captions of other images; give another folder")
        return
    journal = part.journal
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
    _write_lists(part, labels, done)
    journal.unlink()


def _write_lists(part: Part, labels: Sequence[Any], texts: Sequence[str]) -> None:
    # The captions come last: where they are, the labels are too.
    write_whole(part.labels, json.dumps(labels))
    write_whole(part.captions, json.dumps(texts))


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
