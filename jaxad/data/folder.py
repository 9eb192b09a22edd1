"""Images in files as a random-access source (jaxad.types.Source)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from jaxad.data.decode import decode_image, decode_mask
from jaxad.errors import DataError
from jaxad.types import Record, Sample


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Images that lie in files, decoded when asked for.

    Attributes:
        name: name of the data set and part, e.g. "parts/train".
        records: one for each image.
    """

    name: str
    records: tuple[Record, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that occur, in the order of their first image."""
        return tuple(dict.fromkeys(record.category for record in self.records))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [h w 3] and record. Raises DataError naming the file if it cannot be decoded."""
        record = self.records[index]
        return Sample(decode_image(record.file), record)

    def mask(self, index: int) -> np.ndarray | None:
        """Defect mask bool [h w] at the mask file's own size, None where there is none."""
        file = self.records[index].mask
        return None if file is None else decode_mask(file)

    def select(self, indices: Iterable[int]) -> FolderSource:
        """The images at `indices`, in that order."""
        return FolderSource(self.name, tuple(self.records[index] for index in indices))

    def filter(self, categories: Sequence[str]) -> FolderSource:
        """The images of some categories. Raises DataError for a category that does not occur."""
        if missing := [name for name in categories if name not in self.categories]:
            raise DataError(f"{self.name}: no category {', '.join(missing)}; there are {', '.join(self.categories)}")
        return FolderSource(self.name, tuple(record for record in self.records if record.category in categories))

    def per_class(self, k: int, seed: int = 0) -> FolderSource:
        """k normal images of every category, drawn without replacement; few-shot references.

        A category's draw depends on its own images and the seed only, and the draw for k begins that for k + 1.

        Raises:
            DataError: categories with fewer than k normal images, all named at once.
        """
        chosen, short = [], []
        for category in self.categories:
            normal = [i for i, r in enumerate(self.records) if r.category == category and r.label != 1]
            normal.sort(key=lambda index: self.records[index].identity)
            if len(normal) < k:
                short.append(f"{category} has {len(normal)}")
            salt = int.from_bytes(hashlib.blake2b(category.encode(), digest_size=4).digest(), "little")
            chosen += [normal[i] for i in np.random.default_rng([seed, salt]).permutation(len(normal))[:k]]
        if short:
            raise DataError(f"{self.name}: {k} normal images per category are asked for; {', '.join(short)}")
        return self.select(chosen)
