"""The order in which training images are drawn: a pure function of seed and position, so that it resumes exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np


class TrainingOrder:
    """An endless, deterministic sequence of image numbers.

    "size" walks through random permutations of all images. "even" gives every category the same share: each round
    takes one image of every category in random order, and each category walks through permutations of its own, so that
    no image of a category is drawn again before all of it has been.

    Args:
        categories: the category of every image.
        sampling: "even" or "size".
        seed: of all permutations.
    """

    def __init__(self, categories: Sequence[str], sampling: Literal["even", "size"] = "even", seed: int = 0):
        names = np.asarray(categories)
        keys = sorted(set(categories)) if sampling == "even" else []
        self._groups = [np.flatnonzero(names == key) for key in keys] or [np.arange(len(names))]
        self._seed = seed
        self._remember_permutations()

    def __getitem__(self, position: int) -> int:
        """Image at that position, from 0 without end."""
        rounds, place = divmod(position, len(self._groups))
        group = int(self._permutation(0, rounds, len(self._groups))[place])
        members = self._groups[group]
        epoch, index = divmod(rounds, len(members))
        return int(members[self._permutation(group + 1, epoch, len(members))[index]])

    def batch(self, step: int, size: int) -> np.ndarray:
        """Image numbers int64 [size] of a training step, counted from 0."""
        return np.array([self[position] for position in range(step * size, (step + 1) * size)])

    def __getstate__(self) -> dict:
        return {"_groups": self._groups, "_seed": self._seed}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._remember_permutations()

    def _remember_permutations(self) -> None:
        self._permutation = lru_cache(maxsize=4 * len(self._groups) + 4)(self._draw)

    def _draw(self, stream: int, epoch: int, length: int) -> np.ndarray:
        return np.random.default_rng([self._seed, stream, epoch]).permutation(length)
