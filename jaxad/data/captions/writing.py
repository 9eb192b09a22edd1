"""Captions written in the published layout, by one process or a share each by several; each can be interrupted.

    {split}_captions_{dset}_{vlm}.json, {split}_labels_{dset}_{vlm}.json      all captions, and their images
    {split}_captions_{dset}_{vlm}[_{start}_{end}].journal                     a line for each caption as it comes

Further images of the data set are added at the end: none is described twice, and no caption is lost.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from jaxad.data.captions.files import SHARD, Part, read_lists
from jaxad.errors import DataError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import LIST, Faults, parse_json
from jaxad.io.places import expanded
from jaxad.io.untrusted import bytes_of

SETTINGS = "captioner.json"
"""Says how the captions in its folder were made; those that `jaxad caption` writes have it."""

Texts = Callable[[Sequence[str]], Iterable[str]]
"""Given images, yields their captions in that order."""


def write_captions(
    out_dir: str | Path,
    dataset: str,
    vlm: str,
    prompt: str,
    split: str,
    ids: Sequence[str],
    texts: Texts,
    *,
    numbered: bool = False,
) -> Path:
    """Writes captions in one process; can be interrupted at any time and goes on where it stopped.

    Args:
        out_dir, dataset, vlm, prompt, split, numbered: as of `CaptionFiles.of`.
        ids: paths of the images, relative to the data set. Those that have a caption there are left alone.
        texts: called with the others, in their order, if there are any.

    Returns:
        The folder, for `Captions.load`.

    Raises:
        DataError: damaged files, or `texts` ends too early or late.
    """
    files = CaptionFiles.of(out_dir, dataset, vlm, prompt, split, numbered=numbered)
    files.folder.mkdir(parents=True, exist_ok=True)
    lacking = files.lacking(ids)
    if files.strays(lacking):
        files.gather(())
        lacking = files.lacking(ids)
    files.write(lacking, texts)
    files.gather(lacking)
    return files.folder


@dataclass(frozen=True)
class CaptionFiles:
    """Where the captions of one split are written.

    Attributes:
        lists: the file of all captions, beside which that of their images lies.
        numbered: labels are image numbers, as published for COCO.
    """

    lists: Part
    numbered: bool = False

    @classmethod
    def of(
        cls, out_dir: str | Path, dataset: str, vlm: str, prompt: str, split: str, *, numbered: bool = False
    ) -> CaptionFiles:
        """The files of a captioner.

        Args:
            out_dir: where the folder `{dataset}_captions_{vlm}_{prompt}` lies.
            dataset: name of the data set.
            vlm: short name of the captioner, e.g. "internvl".
            prompt: "pd" or "pa".
            split: "train" or "test".
            numbered: as of the class.

        Raises:
            DataError: names that such files cannot have.
        """
        folder = expanded(out_dir) / f"{dataset}_captions_{vlm}_{prompt}"
        file = folder / f"{split}_captions_{dataset}_{vlm}.json"
        if folder.parent != expanded(out_dir) or SHARD.fullmatch(file.stem):
            raise DataError(f"captioner {vlm!r}: needs a short name without / and without two numbers at its end")
        return cls(Part(file), numbered)

    @property
    def folder(self) -> Path:
        """The folder of all splits."""
        return self.lists.captions.parent

    def lacking(self, ids: Sequence[str]) -> list[str]:
        """The images, among `ids` and in their order, whose caption is not in the lists.

        Raises:
            DataError: damaged lists, or lists in parts, which are somebody else's.
        """
        known = self._listed()
        return [image for image in ids if self._key(image) not in known]

    def strays(self, lacking: Sequence[str], bounds: Sequence[int] = ()) -> list[Path]:
        """Journals that are none of the shares of what is lacking, because they were begun for other images or shares.

        Their captions are as good as any: `gather` takes them into the lists.

        Args:
            lacking: images without a caption, as the method of that name finds them.
            bounds: places among these at which shares begin, and the end; none for one share of all.
        """
        shares = [*pairwise(bounds)] if len(bounds) > 2 else [None]
        expected = {self._journal(share): lacking[slice(*share or (None,))] for share in shares}
        return [
            journal
            for journal, entries in self._journals().items()
            if (begun := [image for image, _ in entries]) != expected.get(journal, [])[: len(begun)]
            or journal not in expected
        ]

    def write(self, images: Sequence[str], texts: Texts, share: tuple[int, int] | None = None) -> None:
        """Keeps the captions of images in a journal, each as soon as it is there; those that it has are left alone.

        Args:
            images: those of a share.
            texts: called with the images that the journal lacks, if there are any.
            share: places of the first and behind the last of them among all that are lacking; None for all.

        Raises:
            DataError: the journal is of other images, or `texts` ends too early or late.
        """
        journal = self._journal(share)
        done, sound = _entries(journal)
        if [image for image, _ in done] != list(images[: len(done)]):
            raise DataError(f"{journal}: holds captions of other images; remove it or give another folder")
        rest = images[len(done) :]
        if not rest:
            return
        with journal.open("a", encoding="utf-8") as lines:
            # A last line that was cut off goes.
            lines.truncate(sound)
            count = 0
            for text in texts(rest):
                if count == len(rest):
                    # Captions that did not start where they should stand beside the wrong images.
                    lines.truncate(sound)
                    raise DataError(f"{journal}: more captions than the {len(rest)} images that lack one; dropped")
                lines.write(json.dumps([rest[count], text]) + "\n")
                lines.flush()
                count += 1
        if count < len(rest):
            made = len(done) + count
            raise DataError(f"{journal}: {made} captions for {len(images)} images; call again for the others")

    def gather(self, wanted: Sequence[str]) -> bool:
        """Takes the captions of all journals into the lists, once those have all that is wanted.

        Only one process at a time may do this, and none while journals are written.

        Returns:
            Whether all of `wanted` have a caption.
        """
        journals = self._journals()
        texts = {self._key(image): text for entries in journals.values() for image, text in entries}
        known = self._listed()
        if any(key not in texts and key not in known for key in map(self._key, wanted)):
            return False
        if new := {key: text for key, text in texts.items() if key not in known}:
            self._write_lists({**known, **new})
        for journal in journals:
            journal.unlink()
            # Of lists in parts. After the captions, which cannot be read without.
            Part(journal).labels.unlink(missing_ok=True)
        return True

    def _key(self, image: str) -> str:
        if not self.numbered:
            return image
        number = PurePosixPath(image).stem
        if not number.isdecimal():
            raise DataError(f"{image}: is called by no COCO image number")
        return number.zfill(12)

    def _listed(self) -> dict[str, str]:
        """The captions in the lists, by image."""
        self._shards()
        if not self.lists.captions.exists():
            return {}
        # Where writing was interrupted between the two, the labels are ahead.
        found = read_lists(self.lists, ahead=True)
        return dict(zip(found.ids, found.texts, strict=True))

    def _write_lists(self, texts: Mapping[str, str]) -> None:
        labels = [[str(int(key))] if self.numbered else key for key in texts]
        # The captions come last: where they are, the labels are too.
        write_whole(self.lists.labels, json.dumps(labels))
        write_whole(self.lists.captions, json.dumps(list(texts.values())))

    def _journal(self, share: tuple[int, int] | None) -> Path:
        file = self.lists.captions
        return file.with_name(f"{file.stem}.journal" if share is None else f"{file.stem}_{share[0]}_{share[1]}.journal")

    def _journals(self) -> dict[Path, list[tuple[str, str]]]:
        """Images and captions in all journals of the split, and in the lists in parts that jaxad wrote before."""
        journals = {file: _entries(file)[0] for file in self._parts(".journal")}
        lists = {file: read_lists(Part(file)) for file in self._shards()}
        return journals | {file: [*zip(found.ids, found.texts, strict=True)] for file, found in lists.items()}

    def _shards(self) -> list[Path]:
        """Lists in parts, as jaxad wrote them before; DataError where they are somebody else's."""
        shards = [file for file in self._parts(".json") if file != self.lists.captions]
        if shards and not (self.folder / SETTINGS).is_file():
            names = ", ".join(file.name for file in shards)
            raise DataError(f"{self.folder}: holds {names}, which are written in one file here; give another folder")
        return shards

    def _parts(self, suffix: str) -> list[Path]:
        """Files of the split, whole or in parts."""
        stem = self.lists.captions.stem
        found = sorted(self.folder.glob(f"{glob.escape(stem)}*{suffix}"))
        part = re.compile(rf"{re.escape(stem)}(_\d+_\d+)?")
        return [file for file in found if part.fullmatch(file.stem)]


def _entries(journal: Path) -> tuple[list[tuple[str, str]], int]:
    """Images and captions in a journal, and where its last whole line ends; another process may be writing the next."""
    if not journal.exists():
        return [], 0
    content = bytes_of(journal, LIST.bytes, lambda said: DataError(f"{journal}: {said}"))
    end = content.rfind(b"\n") + 1
    entries: list[Any] = [parse_json(line, journal) for line in content[:end].split(b"\n")[:-1]]
    faults = Faults(journal)
    for place, entry in enumerate(entries):
        if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
            faults.add(f"line {place + 1}", "must be a list of an image and its caption")
    faults.stop()
    return [(image, text) for image, text in entries], end
