"""Command lines as a shell gives them, and the flags of small detectors."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from jaxad import cli, testing

BANK = ("--model.backbone", testing.MODEL["backbone"], "--image-size", testing.MODEL["image_size"])
"""Flags that make the patch bank small."""
BAD = {
    "tile/train/good/001.png": "truncated image",
    "tile/train/good/broken.png": "unreadable image",
    "tile/train/good/bomb.png": "decompression bomb",
    "tile/train/good/copy.png": "duplicate in train and test",
    "tile/ground_truth/blot/002_mask.png": "mask size",
    "tile/ground_truth/blot/old_mask.png": "mask without image",
    "nothing": "empty category",
}
"""What `spoil` does, by file."""


def jaxad(*words: object) -> None:
    """Runs a command line in this process."""
    cli.run(cli.parse([str(word) for word in words]))


def failure(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command line that ends with status 1 prints on stderr."""
    before, sys.argv = sys.argv, ["jaxad", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        sys.argv = before
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("jaxad: ") :]


def toy_flags(**train: object) -> list[object]:
    """The toy detector and its training, as flags of `fit dpdiff`."""
    settings = {"model": testing.MODEL, "train": testing.TRAINING | train}
    pairs = (
        (f"--{part}.{name.replace('_', '-')}", v) for part, values in settings.items() for name, v in values.items()
    )
    return [word for pair in pairs for word in pair]


def spoil(root: Path) -> Path:
    """One of each kind of bad input in `root`, as BAD lists them."""
    tile = root / "tile"
    whole = (tile / "train/good/001.png").read_bytes()
    (tile / "train/good/001.png").write_bytes(whole[: len(whole) // 2])
    (tile / "train/good/broken.png").write_bytes(b"GIF? no")
    Image.new("1", (9500, 9500)).save(tile / "train/good/bomb.png")
    shutil.copy(tile / "test/good/000.png", tile / "train/good/copy.png")
    Image.new("L", (9, 9), 255).save(tile / "ground_truth/blot/002_mask.png")
    Image.new("L", (70, 70), 255).save(tile / "ground_truth/blot/old_mask.png")
    (root / "nothing").mkdir()
    return root
