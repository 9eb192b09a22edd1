"""Input pipelines side by side, in one run: jaxad.data.batches, and a torch DataLoader that decodes with Pillow.

python -m tests.parity.input_benchmark

Both read the same files, resize them to 448 x 448 with PIL's antialiased bilinear filter, and give uint8 batches of 16;
torch takes one worker process per core, jaxad one thread per core. Passes alternate; the fastest of each counts.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jaxad.bench_input import BATCH, VIEW, cases, describe, read

PASSES = 2


class Photos(torch.utils.data.Dataset):
    """What torchvision's ImageFolder, Resize and PILToTensor do."""

    def __init__(self, files: list[Path]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with open(self.files[index], "rb") as stream:
            image = Image.open(stream).convert("RGB")
        image = image.resize((VIEW.width, VIEW.height), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def torch_seconds(loader: torch.utils.data.DataLoader) -> float:
    start = time.perf_counter()
    for batch in loader:
        assert batch.shape[1:] == (3, VIEW.height, VIEW.width)
    return time.perf_counter() - start


def main() -> None:
    workers = os.cpu_count() or 1
    print(f"{workers} workers each; images per second\n")
    print("| source | MB | jaxad | jaxad with pixel hashes | torch | jaxad / torch |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for source, indices in cases(Path(folder)):
            files = Photos([source.records[index].file for index in indices])
            # Workers that stay: torch starts new processes for every pass otherwise.
            loader = torch.utils.data.DataLoader(files, BATCH, num_workers=workers, persistent_workers=True)
            timed = []
            for _ in range(PASSES + 1):
                mine = [read(source, indices, workers, seeds)[0] for seeds in (False, True)]
                timed.append((*mine, torch_seconds(loader)))
            ours, hashed, theirs = len(indices) / np.min(timed[1:], axis=0)
            row = describe(source)
            name = f"{row['format'].upper()} {row['side']} px"
            print(
                f"| {name} | {row['megabytes']:.2f} | {ours:.1f} | {hashed:.1f} | {theirs:.1f} | {ours / theirs:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
