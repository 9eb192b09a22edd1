"""TFDS's side: names, shards, and data sets opened by TFDS itself."""

from __future__ import annotations

from functools import partial

import pytest
import tensorflow_datasets as tfds

import tfds_builders
from jaxad.errors import ConfigError, DataError
from tfds_builders import builder
from tfds_builders.listing import Sample
from tfds_builders.prepare import prepare


@pytest.fixture
def bottle(tree):
    tree.category("bottle", train=23, good=1, bad=1)
    return tree.root


@pytest.fixture
def small_shards(monkeypatch):
    """Two images in a shard, or, where the number is odd, one in the last."""
    size = 450
    monkeypatch.setattr(builder, "shards", partial(builder.shards, limit=size))


def train_ids(source) -> list[str]:
    return [example["image_id"].decode() for example in source]


SKIP = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
ORDER = [f"bottle/train/good/{number:03d}.png" for number in range(23)]


def test_shards():
    class File:
        def __init__(self, size):
            self.st_size = size

        def stat(self):
            return self

    def run(*sizes: int, limit: int = 10) -> list[list[int]]:
        samples = [Sample("train", File(size), "c", 0, "good", "") for size in sizes]  # pyright: ignore
        return [[sample.image.stat().st_size for sample in shard] for shard in builder.shards(samples, limit)]

    assert run() == []
    assert run(3, 3, 3, 3, 3) == [[3, 3, 3, 3], [3]]
    assert run(50, 1, 50) == [[50], [1, 50]]


def test_order_over_many_shards(bottle, tmp_path, small_shards):
    prepare("mvtec_ad", bottle, data_dir=tmp_path / "data", partial=True)
    opened = builder.builder_for("mvtec_ad", "bottle", data_dir=tmp_path / "data")
    assert opened.info.splits["train"].num_shards > 10
    assert train_ids(opened.as_data_source("train", decoders=SKIP)) == ORDER


def test_tfds_knows_the_names(bottle, tmp_path):
    assert tfds_builders.__doc__
    opened = tfds.builder("mvtec_ad/bottle", data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=bottle)
    opened.download_and_prepare(download_config=config, file_format="array_record")
    assert train_ids(opened.as_data_source("train", decoders=SKIP)) == ORDER
    assert opened.info.features["category"].names[0] == "bottle"
    assert opened.info.features["label"].names == ["normal", "anomalous"]
    assert opened.info.splits["test"].num_examples == 2
    assert "cable" in tfds.builder_cls("mvtec_ad").builder_configs
    with pytest.raises(ConfigError, match=r"anomaly_folder: name a category"):
        tfds.builder("anomaly_folder", data_dir=tmp_path / "data")


def test_what_is_not_prepared_says_how_to(tmp_path):
    with pytest.raises(DataError, match=r"--data-dir .* --categories bottle --size 64"):
        builder.builder_for("mvtec_ad", "bottle", 64, tmp_path)
    with pytest.raises(DataError, match=r"--categories coco --options split=split_2$"):
        builder.builder_for("coco_ad", "coco", data_dir=tmp_path, split="split_2")


def test_without_beam_installed(bottle, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxad\[beam\]'"):
        prepare("mvtec_ad", bottle, data_dir=tmp_path / "data", partial=True, beam=["runner=DirectRunner"])


@pytest.mark.beam
def test_beam_stores_the_same_bytes(bottle, tmp_path, small_shards):
    for folder, beam in (("here", None), ("beam", ["runner=DirectRunner"])):
        prepare("mvtec_ad", bottle, data_dir=tmp_path / folder, partial=True, beam=beam)
    here, there = (tmp_path / folder / "mvtec_ad/bottle/1.0.0" for folder in ("here", "beam"))
    assert sorted(path.name for path in here.iterdir()) == sorted(path.name for path in there.iterdir())
    for path in here.glob("*array_record*"):
        assert path.read_bytes() == (there / path.name).read_bytes()
    opened = builder.builder_for("mvtec_ad", "bottle", data_dir=tmp_path / "beam")
    assert train_ids(opened.as_data_source("train", decoders=SKIP)) == ORDER
