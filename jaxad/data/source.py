"""What folders and prepared data sets have in common: encoded images with records, decoded when asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from jaxad.config.fields import bad_seed, raise_problems
from jaxad.data.decode import Decoded, decode, decode_gray_mask, decode_mask
from jaxad.data.depth import depth_of
from jaxad.data.files import Facts
from jaxad.data.references import draw, listed
from jaxad.errors import DataError
from jaxad.io.text import visible
from jaxad.types import Record, Sample, Source


class ImageSource(ABC):
    """Labeled images in a fixed order (jaxad.types.Source); immutable, picklable, safe to read from many threads.

    Attributes:
        name: name of the data set and part, e.g. "parts/train".
        records: one for each image.
        depths: at how many bits the 16-bit images of each category are read (`jaxad.data.depth`); of a category that is
            not there, the file of each image decides.
    """

    name: str
    records: tuple[Record, ...]
    depths: Mapping[str, int]

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The encoded image, as its file holds it. Raises DataError naming the image if it cannot be read."""

    @abstractmethod
    def encoded_mask(self, index: int) -> bytes | None:
        """The encoded defect mask, None where there is none. Raises DataError naming it if it cannot be read."""

    @abstractmethod
    def facts(self, index: int) -> Facts:
        """The digest of an image and the bits that it uses; nothing is opened for an image that was examined before."""

    @abstractmethod
    def fingerprint(self, index: int) -> str:
        """Text that differs where an image's content does; costs no more than looking at its file's date."""

    @abstractmethod
    def at_depths(self, depths: Mapping[str, int]) -> Self:
        """The same images, those of 16 bits read at other depths."""

    @abstractmethod
    def select(self, indices: Iterable[int], name: str | None = None) -> Self:
        """The images at `indices`, in that order, under another name if one is given."""

    def decoded(self, index: int, *, count_frames: bool = False) -> Decoded:
        """The image as `jaxad.data.decode.decode` gives it."""
        record = self.records[index]
        depth = depth_of(record.category, self.depths)
        return decode(self.encoded(index), str(record.file), depth, count_frames=count_frames)

    def examined(self, index: int) -> Decoded:
        """As `decoded`, its frames counted; its facts are remembered where that spares decoding it again."""
        return self.decoded(index, count_frames=True)

    def digest(self, index: int) -> bytes:
        """16 bytes (BLAKE2b) of the image's pixels: the same for every file that holds them, and once it is prepared.

        An image that was not examined before is decoded. One that cannot be decoded has the digest of its bytes.
        """
        return self.facts(index).digest

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels. Raises DataError naming the image if it cannot be decoded."""
        height, width = self.decoded(index).pixels.shape[:2]
        return height, width

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that occur, in the order of their first image."""
        return tuple(dict.fromkeys(record.category for record in self.records))

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {visible(self.name)}: {len(self)} images of {len(self.categories)} categories>"

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [h w 3] and record. Raises DataError naming the image if it cannot be decoded."""
        return Sample(self.decoded(index).pixels, self.records[index])

    def mask(self, index: int) -> np.ndarray | None:
        """Defect mask bool [h w] at the mask's own size by the rule of `decode_mask`, None where there is none."""
        encoded = self.encoded_mask(index)
        return None if encoded is None else decode_mask(encoded, str(self.records[index].mask))

    def gray_mask(self, index: int) -> np.ndarray | None:
        """The same with the gray values of its file, uint8 [h w], by the rule of `decode_gray_mask`."""
        encoded = self.encoded_mask(index)
        return None if encoded is None else decode_gray_mask(encoded, str(self.records[index].mask))

    def filter(self, categories: Sequence[str]) -> Self:
        """The images of some categories. Raises DataError for a category that does not occur."""
        if missing := [name for name in categories if name not in self.categories]:
            raise DataError(f"{self.name}: no category {', '.join(missing)}; there are {', '.join(self.categories)}")
        return self.select(index for index, record in enumerate(self.records) if record.category in categories)

    def per_class(self, k: int, seed: int = 0, *, lists: Path | str | None = None) -> Self:
        """k normal images of every category: the references of few-shot detectors.

        Args:
            k: images of each category.
            seed: of the draw without replacement; a category's draw depends on its own images and the seed only, and
                the draw for k begins that for k + 1. With `lists`, number of the run.
            lists: folder of published choices, CATEGORY/selected_samples_per_run.txt (`jaxad.data.references`); load
                the data set with holdout = 0, so that every image they name is there.

        Raises:
            ConfigError: a seed below 0 or above 2**32 - 1.
            DataError: categories with fewer than k normal images, or lists that do not fit; all named at once.
        """
        raise_problems("per_class", bad_seed("seed", seed))
        normal = {name: [] for name in self.categories}
        for index, record in enumerate(self.records):
            if record.label != 1:
                normal[record.category].append(index)
        names = {name: sorted(own, key=lambda i: self.records[i].identity) for name, own in normal.items()}
        if lists is not None:
            stems = {name: [Path(self.records[i].identity).stem for i in own] for name, own in names.items()}
            chosen = listed(Path(lists), stems, k, run=seed)
        else:
            if short := [f"{name} has {len(own)}" for name, own in names.items() if len(own) < k]:
                raise DataError(f"{self.name}: {k} normal images per category are asked for; {', '.join(short)}")
            chosen = {name: draw(name, len(own), k, seed) for name, own in names.items()}
        return self.select(names[name][place] for name in names for place in chosen[name])


def gray_mask_of(source: Source, index: int) -> np.ndarray | None:
    """The defect mask of any source's image: uint8 [h w], its gray values, where the source knows them, else bool."""
    return getattr(source, "gray_mask", source.mask)(index)


def size_of(source: Source, index: int) -> tuple[int, int]:
    """Height and width of any source's image, which is decoded only where the source does not know them."""
    known = getattr(source, "size", None)
    return known(index) if known is not None else source[index].image.shape[:2]
