"""The TFDS builder that all data sets share: the same features, one config per category, ArrayRecord files.

TFDS writes shard by shard (`ShardBasedBuilder`): in the order of the listing, without TensorFlow, in the memory of one
shard, into a folder that gets its name only when it is complete.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.core import constants, split_builder, splits

from jaxad.data.prepared import data_folder
from jaxad.errors import ConfigError, DataError
from jaxad.io.threads import map_threads
from tfds_builders.encode import category_depth, encode
from tfds_builders.listing import SPLITS, Benchmark, Sample, benchmark, config_name

VERSION = "1.0.0"
LABELS = ("normal", "anomalous")
SHARD_BYTES = 128 * 2**20
"""Size at which a shard ends; TFDS keeps a shard in memory while it writes it."""


class Info(tfds.core.DatasetInfo):
    """Does not look for the data set in TFDS's bucket, which leaves an empty folder in the system's temporary one."""

    def initialize_from_bucket(self) -> None:
        """Silent: nothing is there."""


@dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """One category: its official name, the prepared size (None: as the source) and the data set's options."""

    category: str = ""
    size: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)


class AnomalyBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Base of all data sets; a subclass says its `name` and `benchmark` and nothing else (`builder_class`)."""

    VERSION = tfds.core.Version(VERSION)
    benchmark: ClassVar[Benchmark]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.benchmark.how_to_obtain
        cls.BUILDER_CONFIGS = [make_config(cls.benchmark, category) for category in cls.benchmark.categories]

    def write(
        self,
        samples: Sequence[Sample],
        *,
        workers: int | None = 1,
        metadata: Mapping[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
        beam: Sequence[str] | None = None,
    ) -> Path:
        """Stores samples as this config, whole or not at all.

        Args:
            samples: all images of the category, in the order to store them.
            workers: threads that read and resize; None for one per CPU.
            metadata: JSON values to keep with the data.
            progress: called with the number of images just read.
            beam: options of an Apache Beam pipeline that writes the shards, e.g. ["runner=DirectRunner"]; source and
                data folder must be visible to all of its workers. None writes in this process.

        Returns:
            The folder.

        Raises:
            DataError: an image or mask cannot be read any more.
            OSError: the disk is full or fails.
        """
        self._samples, self._workers, self._progress = samples, workers, progress
        read_metadata(self).update(metadata or {})
        config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
        if beam is not None:
            self._progress = None
            config.beam_options, config.beam_runner = _beam(beam)
        # Where a process that is killed leaves it for the next to remove, as TFDS's own.
        parent = Path(self.data_dir).parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix="incomplete.") as unused:
            self.download_and_prepare(download_dir=unused, download_config=config, file_format="array_record")
        return Path(self.data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self._category
        names = self.benchmark.categories or (config.category,)
        features = {
            "image": tfds.features.Image(
                shape=(None, None, 3), doc="Encoded bytes of the source; read with SkipDecoding."
            ),
            "mask": tfds.features.Image(
                shape=(None, None, 1), doc="Encoded bytes; above 0 is defect; empty if unknown."
            ),
            "label": tfds.features.ClassLabel(names=LABELS, doc="-1 where unknown."),
            "category": tfds.features.ClassLabel(names=names),
            "defect": tfds.features.Text(doc="Type of defect, good for normal images."),
            "image_id": tfds.features.Text(doc="Path relative to the root of the source."),
            "object_id": tfds.features.Text(doc="What the views of one object have in common."),
            "view": tfds.features.Scalar(np.int64, doc="From 1; 0 for single views."),
            "caption": tfds.features.Text(),
        }
        return Info(
            builder=self,
            description=f"{self.benchmark.title}, category {config.category}.",
            features=tfds.features.FeaturesDict(features),
            homepage=self.benchmark.homepage,
            license=self.benchmark.license,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                category=config.category, size=config.size, options=dict(config.options), license=self.benchmark.license
            ),
        )

    @property
    def _category(self) -> Config:
        if not isinstance(self.builder_config, Config):
            raise ConfigError(f"{self.name}: name a category, as in tfds.builder('{self.name}/CATEGORY', data_dir=...)")
        return self.builder_config

    _samples: Sequence[Sample] | None = None
    _workers: int | None = 1
    _progress: Callable[[int], None] | None = None

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Shard]]:
        config = self._category
        samples = self._samples
        if samples is None:
            samples = list(self.benchmark.list_samples(Path(dl_manager.manual_dir), config.category, **config.options))
        depth = category_depth(samples, self._workers) if config.size is not None else None
        by_split = {split: [sample for sample in samples if sample.split == split] for split in SPLITS}
        return {
            split: [Shard(shard, config.size, self._workers, self._progress, depth) for shard in shards(chosen)]
            for split, chosen in by_split.items()
            if chosen
        }

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        infos, features = [], cast(Any, self.info.features)
        for split, generators in self._shard_iterators_per_split(dl_manager).items():
            # A split builder for each split: with Beam, TFDS's one for all runs every earlier split's pipeline again.
            writer = split_builder.SplitBuilder(
                split_dict=self.info.splits,
                features=features,
                dataset_size=self.info.dataset_size,
                beam_options=download_config.beam_options,
                beam_runner=download_config.beam_runner,
                max_examples_per_split=None,
                example_writer=self._example_writer(),
            )
            template = self._get_filename_template(split_name=split)
            info = writer.submit_shard_based_generation(split, template, generators).result()
            # With Beam, TFDS gives the lengths of more than ten shards in another order than the shards.
            info = replace(info, shard_lengths=[len(generator.samples) for generator in generators])
            for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
                _check_shard(Path(path), length)
            infos.append(info)
        for left in Path(self.data_dir).glob("*.shard_infos.json"):
            left.unlink()
        self.info.set_splits(splits.SplitDict(infos))

    def _log_download_bytes(self) -> None:
        """Silent: nothing is downloaded, and stdout is for results."""

    def _log_download_done(self) -> None:
        """Silent."""


@dataclass(frozen=True)
class Shard:
    """Makes the examples of one shard; holds nothing that a Beam worker cannot unpickle."""

    samples: Sequence[Sample]
    size: int | None
    workers: int | None = 1
    progress: Callable[[int], None] | None = None
    depth: int | None = None

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        encoded = map_threads(lambda sample: encode(sample, self.size, self.depth), self.samples, self.workers)
        for sample, (image, mask) in zip(self.samples, encoded, strict=True):
            if self.progress is not None:
                self.progress(1)
            yield (
                sample.image_id,
                {
                    "image": image,
                    "mask": mask,
                    "label": sample.label,
                    "category": sample.category,
                    "defect": sample.defect,
                    "image_id": sample.image_id,
                    "object_id": sample.object_id,
                    "view": sample.view,
                    "caption": sample.caption,
                },
            )


def shards(samples: Sequence[Sample], limit: int = SHARD_BYTES) -> list[tuple[Sample, ...]]:
    """Samples in runs of about `limit` bytes of image files, in order, none of them empty."""
    runs: list[list[Sample]] = []
    size = limit
    for sample in samples:
        if size >= limit:
            runs.append([])
            size = 0
        runs[-1].append(sample)
        size += sample.image.stat().st_size
    return [tuple(run) for run in runs]


def make_config(data_set: Benchmark, category: str, size: int | None = None, **options: str) -> Config:
    """The TFDS config of a category."""
    chosen = data_set.choose(options)
    name = config_name(data_set, category, size, **chosen)
    return Config(name=name, description=category, category=category, size=size, options=chosen)


@cache
def builder_class(name: str) -> type[AnomalyBuilder]:
    """The TFDS class of a data set. Raises DataError for a name that is none."""
    content = {"__doc__": f"TFDS builder of {name}.", "name": name, "benchmark": benchmark(name)}
    return cast(type[AnomalyBuilder], type("Builder", (AnomalyBuilder,), content, skip_registration=True))


def writer_for(
    name: str, category: str, size: int | None = None, data_dir: str | Path | None = None, **options: str
) -> AnomalyBuilder:
    """A builder that can write one category (and reads it, once written)."""
    cls = builder_class(name)
    config = make_config(cls.benchmark, category, size, **options)
    # TFDS takes the config objects of its own list for those names.
    config = cls.builder_configs.get(config.name, config)
    return cls(config=config, data_dir=data_root(data_dir))


def builder_for(
    name: str, category: str, size: int | None = None, data_dir: str | Path | None = None, **options: str
) -> tfds.core.DatasetBuilder:
    """The builder of one prepared category, for reading.

    Args:
        name, category: data set and official name of the category.
        size: prepared size, None for the source's bytes.
        data_dir: TFDS data folder; None for TFDS's own, $TFDS_DATA_DIR or ~/tensorflow_datasets.
        options: the data set's options other than the defaults.

    Raises:
        DataError: it is not prepared there; says how to.
    """
    folder = data_root(data_dir) / name / config_name(benchmark(name), category, size, **options) / VERSION
    if not (folder / constants.DATASET_INFO_FILENAME).is_file():
        flags = "".join(f" {key}={value}" for key, value in options.items())
        command = f"jaxad prepare {name} --source PATH --data-dir {data_root(data_dir)} --categories {category}"
        command += (f" --options{flags}" if flags else "") + (f" --size {size}" if size else "")
        raise DataError(f"{folder}: not prepared; run: {command}")
    return tfds.builder_from_directory(folder)


def read_metadata(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """What `jaxad prepare` noted of a category: category, size, options, license, fingerprint, source, sha256, ..."""
    return cast(dict[str, Any], builder.info.metadata)


def data_root(data_dir: str | Path | None) -> Path:
    """The TFDS data folder, TFDS's own by default."""
    return Path(os.path.abspath(data_folder(data_dir)))


def _check_shard(path: Path, length: int) -> None:
    # A writer whose disk fills up need not say so.
    reader = ArrayRecordReader(str(path))
    written = reader.num_records()
    reader.close()
    if written != length:
        raise OSError(f"{path}: holds {written} images of {length}; the disk may be full or failing")


def _beam(options: Sequence[str]) -> tuple[Any, str]:
    try:
        # An extra, so type checkers may not find it either.
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
            StandardOptions,
        )
    except ImportError as error:
        raise ConfigError("Apache Beam is not installed; run: pip install 'jaxad[beam]'") from error
    parsed = PipelineOptions([f"--{option}" for option in options])
    return parsed, parsed.view_as(StandardOptions).runner or "DirectRunner"
