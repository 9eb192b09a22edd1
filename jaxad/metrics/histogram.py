"""A streaming histogram of scores, finer toward the top: small, mergeable, of bounded error for any scores.

Scores become order-preserving 32-bit keys. A *cell* is a range of 2^shift keys that starts at a multiple of 2^shift,
and the mass found in it: the number of pixels, or the sum of their region weights. New scores enter at full resolution
(shift 0). Whenever cells have become too many, each is widened to the largest such range whose whole mass is at most

    (mass above the range) / resolution

so that a cell holds one single score, or a 1 / resolution share of what outranks it. Precision and recall depend on
just these ranks, hence the error of every metric is of the order of 1 / resolution whatever the distribution: offset,
tied, heavy-tailed, a narrow peak in a wide spread. The condition never tightens as data come in, so an old wide cell
stays valid when much falls into it later: the newcomers form narrow cells inside it.

After Q-digest (Shrivastava et al. 2004) with the relative-rank criterion of Cormode et al. 2021 (arXiv 2004.01668).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RESOLUTION = 1 << 13
SIGN = np.uint32(0x80000000)


class ScoreHistogram:
    """Mass by score in 13 bytes for each cell.

    n distinct scores need about 1.8 resolution (1 + ln(n / resolution)) cells after a compaction and half as many more
    between two of them: with the default resolution 1.6 and 2.4 MB for n = 1e7. Tied scores need fewer.

    Args:
        resolution: how finely ranks are told apart.
        exact: scores, repeats included, of which each is kept as it is; 4 resolution if that is more.
    """

    def __init__(self, resolution: int = RESOLUTION, exact: int = 0):
        self.resolution, self.exact = resolution, exact
        self.keys = np.empty(0, np.uint32)
        """Lowest key of each cell, uint32 [m] ascending; among equal ones the widest cell first."""
        self.shifts = np.empty(0, np.uint8)
        """Width of each cell as a power of two, uint8 [m]."""
        self.mass = np.empty(0)
        """Mass of each cell, float64 [m]."""
        self.range: tuple[float, float] | None = None
        """Lowest and highest score seen, None before the first."""
        self._compact_above = max(4 * resolution, exact)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self.keys.nbytes + self.shifts.nbytes + self.mass.nbytes

    @property
    def lower(self) -> np.ndarray:
        """Lowest score each cell can hold, float64 [m]."""
        return self._scores(self.keys)

    @property
    def upper(self) -> np.ndarray:
        """Highest score each cell can hold, float64 [m]; equal to `lower` where the cell is one score."""
        return self._scores(self.keys + (np.left_shift(np.uint32(1), self.shifts.astype(np.uint32)) - np.uint32(1)))

    def add(self, scores: np.ndarray, mass: np.ndarray | None = None) -> None:
        """Count scores. Working memory is about 40 bytes for each of them: feed half a million at a time.

        Args:
            scores: float32 [n], finite.
            mass: float64 [n], positive; None for 1 each.
        """
        if not len(scores):
            return
        keys = score_keys(scores)
        if mass is None:
            keys = np.sort(keys)
            few = len(self.keys) + len(keys) <= self._compact_above
            shifts = np.zeros(len(keys), np.uint8) if few else self._widened(keys)
            keys, shifts, mass = _grouped(keys & _kept_bits(shifts), shifts)
        else:
            order = np.argsort(keys, kind="stable")
            keys, shifts, mass = _grouped(keys[order], np.zeros(len(keys), np.uint8), mass[order])
        low, high = float(scores.min()), float(scores.max())
        self._absorb(keys, shifts, mass, (low, high))
        if len(self.keys) > self._compact_above:
            self._compact()

    def merge(self, other: ScoreHistogram) -> ScoreHistogram:
        """The histogram of both data sets. Cells are united, not widened, so that merging is associative."""
        if other.resolution != self.resolution:
            raise ValueError(f"resolution differs: {self.resolution} and {other.resolution}; build both with the same")
        whole = ScoreHistogram(self.resolution, self.exact)
        for part in (self, other):
            whole._absorb(part.keys, part.shifts, part.mass, part.range)
        return whole

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as plain arrays; the inverse of `from_arrays`."""
        return {
            "keys": self.keys,
            "shifts": self.shifts,
            "mass": self.mass,
            "resolution": np.array(self.resolution, np.int64),
            "exact": np.array(self.exact, np.int64),
            "range": np.array(self.range if self.range is not None else (), np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ScoreHistogram:
        """A histogram from the arrays of `to_arrays`."""
        histogram = cls(int(arrays["resolution"]), int(arrays["exact"]))
        low_high = tuple(float(value) for value in arrays["range"])
        parts = np.asarray(arrays["keys"]), np.asarray(arrays["shifts"]), np.asarray(arrays["mass"])
        histogram._absorb(*parts, (low_high[0], low_high[1]) if low_high else None)
        return histogram

    def _scores(self, keys: np.ndarray) -> np.ndarray:
        if self.range is not None:
            keys = np.clip(keys, *score_keys(np.array(self.range)))
        return key_scores(keys).astype(np.float64)

    def _absorb(
        self, keys: np.ndarray, shifts: np.ndarray, mass: np.ndarray, scores: tuple[float, float] | None
    ) -> None:
        """Unite with other cells."""
        if scores is not None:
            low, high = self.range or scores
            self.range = min(low, scores[0]), max(high, scores[1])
        keys, shifts = np.concatenate([self.keys, keys]), np.concatenate([self.shifts, shifts])
        # Two sorted runs, which the stable sort merges in linear time.
        order = np.argsort(keys.astype(np.uint64) << np.uint64(6) | (np.uint64(63) - shifts), kind="stable")
        self.keys, self.shifts, self.mass = _grouped(
            keys[order], shifts[order], np.concatenate([self.mass, mass])[order]
        )

    def _compact(self) -> None:
        shifts = self._widened(self.keys, self.shifts, self.mass)
        self.keys, self.shifts, self.mass = _grouped(self.keys & _kept_bits(shifts), shifts, self.mass)
        self._compact_above = max(4 * self.resolution, len(self.keys) * 3 // 2)

    def _widened(
        self, keys: np.ndarray, shifts: np.ndarray | None = None, mass: np.ndarray | None = None
    ) -> np.ndarray:
        """Largest shift that each cell may have, uint8 [m]; without `shifts` and `mass`, of single scores of mass 1.

        A range of cells i..j is too heavy if its mass exceeds (mass above j) / resolution. With the cumulated mass c
        from the lowest cell up and c = T at the top, that is c_j > (resolution c_{i-1} + T) / (resolution + 1). Let
        j(i) be the first such j: a range is too heavy if it holds i and j(i) for some i. Those of them that hold cell k
        hold either an i and j(i) around it, or k and the last i whose j(i) lies before it.
        """
        m, r = len(keys), self.resolution
        index = np.arange(m)
        if mass is None:
            last = np.minimum((r * index + m) // (r + 1), m - 1)
            first = np.maximum(-((m - (r + 1) * index) // r), 0)
        else:
            total = np.cumsum(mass)
            limit = (r * (total - mass) + total[-1]) / (r + 1)
            last = np.minimum(np.maximum(np.searchsorted(total, limit, side="right"), index), m - 1)
            first = np.concatenate([[0], np.cumsum(np.bincount(last, minlength=m))[:-1]])

        def differing(other: np.ndarray) -> np.ndarray:
            """Bits in which each cell and the other differ: a range that holds both needs a shift of their length."""
            bits = keys ^ keys[other]
            if shifts is None:
                return bits
            return bits | np.left_shift(np.uint32(1), np.maximum(shifts, shifts[other]).astype(np.uint32)) >> np.uint32(
                1
            )

        around = _window_minimum(differing(last), first)
        before = np.where(first > 0, differing(np.maximum(first - 1, 0)), np.uint32(0xFFFFFFFF))
        widest = np.maximum(_bit_length(np.minimum(around, before)), 1) - np.uint8(1)
        return widest if shifts is None else np.maximum(widest, shifts)


def score_keys(scores: np.ndarray) -> np.ndarray:
    """Order-preserving uint32 keys of finite float32 scores; both zeros share one key."""
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.int32)
    return (bits ^ (bits >> 31 & np.int32(0x7FFFFFFF))).view(np.uint32) ^ SIGN


def key_scores(keys: np.ndarray) -> np.ndarray:
    """The float32 scores of uint32 keys; the inverse of `score_keys`."""
    bits = (np.asarray(keys, np.uint32) ^ SIGN).view(np.int32)
    return (bits ^ (bits >> 31 & np.int32(0x7FFFFFFF))).view(np.float32)


def _kept_bits(shifts: np.ndarray) -> np.ndarray:
    return np.left_shift(np.uint32(0xFFFFFFFF), shifts.astype(np.uint32))


def _bit_length(keys: np.ndarray) -> np.ndarray:
    """Position of the highest set bit counted from 1, 0 for 0, uint8; read from the exponent of float64."""
    exponents = (keys.astype(np.float64).view(np.int64) >> 52) - 1022
    return np.maximum(exponents, 0).astype(np.uint8)


def _window_minimum(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Minimum of values[first[k] : k + 1] for every k, by tables of minima over 1, 2, 4, ... values."""
    index = np.arange(len(values))
    widths = index - first + 1
    power = (_bit_length(np.arange(widths.max(initial=0) + 1)) - 1)[widths]
    result, table = values.copy(), values
    for level in range(1, int(power.max(initial=0)) + 1):
        half = 1 << (level - 1)
        table = np.minimum(table[:-half], table[half:])
        chosen = np.flatnonzero(power == level)
        result[chosen] = np.minimum(table[first[chosen]], table[chosen - 2 * half + 1])
    return result


def _grouped(
    keys: np.ndarray, shifts: np.ndarray, mass: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted cells with equal ones summed; without `mass` each is 1."""
    new = np.ones(len(keys), bool)
    new[1:] = (keys[1:] != keys[:-1]) | (shifts[1:] != shifts[:-1])
    starts = np.flatnonzero(new)
    if mass is None:
        sums = np.diff(starts, append=len(keys)).astype(np.float64)
    else:
        sums = np.add.reduceat(mass, starts) if len(starts) else mass
    return keys[starts], shifts[starts], sums
