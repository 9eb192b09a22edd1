"""Input pipelines side by side, in one run: jaxad.data.batches, and a torch DataLoader that decodes with Pillow.

python -m tests.parity.input_benchmark

Both read the same files, resize them to 448 x 448 with PIL's antialiased bilinear filter, and give uint8 batches of 16;
torch takes one worker process per core, jaxad one thread per core. Passes alternate; the fastest of each counts.
Processor time is that of a pass within one process, torch's without workers; other jobs change it less than the clock.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jaxad.bench.input import BATCH, VIEW, cases, describe, read

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


def torch_seconds(loader: torch.utils.data.DataLoader) -> tuple[float, float]:
    """Wall-clock and processor seconds of one pass."""
    start = time.perf_counter(), time.process_time()
    for batch in loader:
        assert batch.shape[1:] == (3, VIEW.height, VIEW.width)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    workers = os.cpu_count() or 1
    # As in torch's own workers; the threads of its collation would spin and count.
    torch.set_num_threads(1)
    print(f"Images per second with {workers} workers, and processor milliseconds for each image:\n")
    heads = ("source", "MB", "jaxad", "with hashes", "torch", "ratio", "jaxad ms", "with hashes", "torch ms", "ratio")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    with tempfile.TemporaryDirectory() as folder:
        for source, indices in cases(Path(folder)):
            files = Photos([source.records[index].file for index in indices])
            # Workers that stay: torch starts new processes for every pass otherwise.
            loader = torch.utils.data.DataLoader(files, BATCH, num_workers=workers, persistent_workers=True)
            alone = torch.utils.data.DataLoader(files, BATCH)
            timed = []
            for _ in range(PASSES + 1):
                mine, hashed = (read(source, indices, workers, seeds) for seeds in (False, True))
                theirs = (torch_seconds(loader)[0], torch_seconds(alone)[1])
                timed.append((mine[0], hashed[0], theirs[0], mine[1], hashed[1], theirs[1]))
            best = np.min(timed[1:], axis=0) / len(indices)
            rates, costs = 1 / best[:3], 1e3 * best[3:]
            row = describe(source)
            cells = [f"{row['format'].upper()} {row['side']} px", f"{row['megabytes']:.2f}"]
            cells += [*(f"{rate:.1f}" for rate in rates), f"{rates[0] / rates[2]:.2f}"]
            cells += [*(f"{cost:.1f}" for cost in costs), f"{costs[2] / costs[0]:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
