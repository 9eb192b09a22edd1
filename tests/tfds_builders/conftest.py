"""Miniature data sets in official layouts, and the command line that prepares them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import Tree


@pytest.fixture
def tree(tmp_path) -> Tree:
    """Writes files of an official layout below `source`."""
    return Tree(tmp_path / "source")


@pytest.fixture
def jaxad(tmp_path) -> Callable[..., None]:
    """Runs `jaxad prepare NAME ... --data-dir data` as the command line does."""
    from jaxad import cli

    def run(name: str, *arguments: object) -> None:
        cli.run(cli.parse(["prepare", name, *map(str, arguments), "--data-dir", str(tmp_path / "data")]))

    return run


@pytest.fixture
def stored(tmp_path) -> Callable[..., dict[str, dict[str, Any]]]:
    """Reads a prepared category back: its examples by image id, each with its split; encoded bytes as they are."""

    def read(name: str, category: str, size: int | None = None, **options: str) -> dict[str, dict[str, Any]]:
        import tensorflow_datasets as tfds

        from tfds_builders.builder import builder_for

        builder = builder_for(name, category, size, tmp_path / "data", **options)
        names = builder.info.features["category"].int2str
        skip = {key: tfds.decode.SkipDecoding() for key in ("image", "mask")}
        found = {}
        for split in builder.info.splits:
            for example in builder.as_data_source(split, decoders=skip):
                texts = {key: example[key].decode() for key in ("defect", "image_id", "object_id", "caption")}
                example |= texts | {"category": names(example["category"]), "split": split}
                found[texts["image_id"]] = example
        return found

    return read


def assert_copied(examples: dict[str, dict[str, Any]], root: Path, masks: dict[str, str]) -> None:
    """Images and the masks named are the source's bytes; all other masks mark nothing."""
    from jaxad.data.decode import decode_image, decode_mask

    for image_id, example in examples.items():
        assert example["image"] == (root / image_id).read_bytes()
        if image_id in masks:
            assert example["mask"] == (root / masks[image_id]).read_bytes()
        else:
            mask = decode_mask(example["mask"])
            assert mask.shape == decode_image(example["image"]).shape[:2]
            assert not mask.any()
    assert masks.keys() <= examples.keys()
