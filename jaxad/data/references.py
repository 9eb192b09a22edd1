"""Which normal images a few-shot detector sees: a seeded draw, or the choices that others published.

Published choices lie in one file for each category, CATEGORY/selected_samples_per_run.txt, one line for each choice:

    <run>-<k>: <entries>        WinCLIP's reimplementation; run from 0
    #<k>: <entries>             PromptAD; one choice for all runs

Entries are separated by spaces, tabs or commas. They are stems of the category's training images ("018"), or, where
none is one, positions from 0 in their sorted list, written without leading zeros.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxad.errors import DataError
from jaxad.io.problems import Problems
from jaxad.io.untrusted import MEBIBYTE, bytes_of

_LONGEST = 16 * MEBIBYTE
FILE = "selected_samples_per_run.txt"


def draw(category: str, images: int, k: int, seed: int) -> list[int]:
    """k of a category's images, drawn without replacement, as positions in their sorted list.

    The draw for k begins that for k + 1, and does not depend on other categories; CLIPFusion's paper says only that
    the references are random. `Generator.choice` has neither property: hence a permutation, and a seed that holds the
    category's name.
    """
    salt = int.from_bytes(hashlib.blake2b(category.encode(), digest_size=4).digest(), "little")
    return np.random.default_rng([seed, salt]).permutation(images)[:k].tolist()


def listed(folder: Path, stems: Mapping[str, Sequence[str]], k: int, run: int = 0) -> dict[str, list[int]]:
    """The published choices of k images.

    Args:
        folder: holds CATEGORY/selected_samples_per_run.txt.
        stems: file names without ending of each category's normal training images, sorted.
        k: how many.
        run: which run, where a file tells runs apart.

    Returns:
        Positions in `stems` by category, in the order of the file.

    Raises:
        DataError: files that are missing or lack this choice, and entries that are no image; all at once.
    """
    chosen, problems = {}, Problems()
    for category, own in stems.items():
        file = folder / category / FILE
        try:
            chosen[category] = _positions(_entries(file, k, run), own)
        except (DataError, ValueError) as error:
            problems.add("reference list", file, str(error))
    problems.stop(f"{folder}: the reference images of {k} per category, run {run}, cannot be taken:")
    return chosen


def _entries(file: Path, k: int, run: int) -> list[str]:
    keys = (f"{run}-{k}", f"#{k}")
    text = bytes_of(file, _LONGEST, lambda said: DataError(said)).decode()
    lines = [line.partition(":") for line in text.splitlines()]
    found = {key.strip(): rest.strip() for key, _, rest in lines}
    for key in keys:
        if key in found:
            entries = re.split(r"[\s,]+", found[key])
            if len(entries) != k:
                raise ValueError(f"line {key} has {len(entries)} entries, not {k}")
            return entries
    raise ValueError(f"has no line {' or '.join(keys)}")


def _positions(entries: Sequence[str], stems: Sequence[str]) -> list[int]:
    places = {stem: place for place, stem in enumerate(stems)}
    strangers = [entry for entry in entries if entry not in places]
    if len(strangers) == len(entries):
        # A stem such as "018" whose image was held out must not pass for the 18th image.
        numbers = [int(entry) for entry in entries if entry == "0" or re.fullmatch("[1-9][0-9]*", entry)]
        if len(numbers) == len(entries) and max(numbers) < len(stems):
            return numbers
    if strangers:
        raise ValueError(f"no normal training images {', '.join(strangers)}")
    return [places[entry] for entry in entries]
