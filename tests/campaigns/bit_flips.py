"""Flips random bits in what a toy run has stored, one at a time, and loads it: `python -m tests.campaigns.bit_flips`.

Each bit lies anywhere in the files of the newest step or of the cached features, on half of the tries with the file's
date kept. What is loaded must be refused, built anew, or equal to what was stored in every bit. Prints a table; fails
where changed arrays were loaded.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxad
from jaxad import parallel
from jaxad.errors import CheckpointError
from jaxad.features import Encoder, FeatureCache
from jaxad.inference.steps import open_step
from jaxad.inference.stored_arrays import read_training
from jaxad.nn import module_state
from jaxad.testing import make_parts, toy_model, toy_training
from jaxad.training.step import DetectorTrainer

Bits = dict[str, bytes]


def step_bits(folder: Path, like: Any) -> Bits:
    """All that a step's folder gives: arrays to judge by, the state `like` to train on, the threshold."""
    restored = jaxad.restore(folder)
    leaves = jax.tree_util.tree_leaves_with_path(read_training(open_step(folder), like))
    arrays = module_state.split(restored.detector)[1] | {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    bits = {path: np.asarray(array).tobytes() for path, array in arrays.items()}
    return bits | {"threshold": repr(restored.threshold).encode()}


def flips(folder: Path, load: Callable[[], Bits], number: int, seed: int) -> Counter[tuple[str, str]]:
    """Counts of (part, what came of it) over so many bits in the files below a folder, each set right again.

    Args:
        folder: of a step, or of cached features.
        load: what is stored there; raises CheckpointError where it refuses.
        number: of bits.
        seed: of their places.
    """
    chance, counts = random.Random(seed), Counter()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    stored = load()
    for _ in range(number):
        # Half of the bits by size, half by file, so that small files have their share.
        sizes = [file.stat().st_size for file in files] if chance.random() < 0.5 else [1] * len(files)
        file = chance.choices(files, sizes)[0]
        content, status = file.read_bytes(), file.stat()
        place = chance.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
        if chance.random() < 0.5:
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        part = file.relative_to(folder).parts[0]
        try:
            loaded = load()
            changed = [name for name in stored if loaded.get(name) != stored[name]]
            # A threshold that cannot be trusted is left out, with a note.
            only = changed == ["threshold"] and loaded["threshold"] == b"None"
            outcome = "threshold left out" if only else "CHANGED" if changed else "the same bits"
        except CheckpointError:
            outcome = "refused"
        counts[part, outcome] += 1
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return counts


def main() -> None:
    """Makes a run, flips, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        parts = jaxad.data.load(f"folder:{make_parts(Path(temporary) / 'parts')}")
        workdir, model = Path(temporary) / "run", toy_model()
        jaxad.fit(toy_model(), parts.train, toy_training(), workdir=workdir, holdout=parts.holdout)
        step, features = workdir / "checkpoints" / "12", Path(temporary) / "features"
        encoder, rebuilt = Encoder(model), []

        def cached() -> Bits:
            warn = lambda lines: rebuilt.extend(lines)  # noqa: E731
            cache = FeatureCache.build(model, parts.train, folder=features, encoder=encoder, warn=warn)
            return {"tokens": cache[np.arange(len(cache))].tokens.tobytes()}

        bits = options.bits // 5 * 4
        like = DetectorTrainer(model, toy_training(), parallel.make_mesh()).abstract_state
        counts = flips(step, lambda: step_bits(step, like), bits, options.seed)
        cached()
        of_cache = flips(features, cached, options.bits - bits, options.seed + 1)
        counts += Counter({(f"features/{part}", outcome): number for (part, outcome), number in of_cache.items()})
    print("| part | what came of it | bits |\n|---|---|---:|")
    for (part, outcome), number in sorted(counts.items()):
        print(f"| {part} | {outcome} | {number} |")
    print(f"features built anew: {len(rebuilt)} times")
    sys.exit(any(outcome == "CHANGED" for _, outcome in counts))


if __name__ == "__main__":
    main()
