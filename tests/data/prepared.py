"""Prepares small folders with the builders' own writer, for tests of reading."""

from __future__ import annotations

from pathlib import Path

from jaxad.data.layout import scan
from jaxad.types import Record


def prepare(root: Path, data_dir: Path, name: str = "own_parts", **changes) -> Path:
    """Stores every category of a folder in MVTec layout as one config of a data set that no package knows.

    `changes`: fields of all samples to set, e.g. caption.
    """
    from tfds_builders.builder import AnomalyBuilder
    from tfds_builders.listing import Benchmark, Sample, config_name

    def samples(category: str) -> list[Sample]:
        listing = scan(root, (category,))
        parts = {"train": listing.train, "validation": listing.validation, "test": listing.test}
        return [sample(split, record) for split, records in parts.items() for record in records]

    def sample(split, record: Record) -> Sample:
        label = -1 if record.label is None else record.label
        values = (record.file, record.category, label, record.defect, record.identity, record.mask)
        return Sample(split, *values, **changes)

    categories = tuple(sorted({record.category for part in (scan(root).train, scan(root).test) for record in part}))
    benchmark = Benchmark(
        name=name,
        title="Own parts",
        homepage="https://example.org",
        license="own use only",
        how_to_obtain="take photos",
        is_root=Path.is_dir,
        list_samples=lambda root, category: samples(category),
        categories=categories,
    )
    own = type("OwnParts", (AnomalyBuilder,), {"name": name, "benchmark": benchmark}, skip_registration=True)
    for category in categories:
        own(config=config_name(benchmark, category), data_dir=data_dir).write(samples(category))
    return data_dir
