"""What is in a prepared data set, without its images: read once from the shards, kept beside them as one JSON file.

TFDS keeps the records of a split in the order of a hash, with everything known of an image beside its bytes. Listing a
data set would therefore mean reading all of it. `read_index` does so once for each config and leaves
`jaxad_index.json` in the config's folder, or in the user's cache where that folder cannot be written. An index of other
shards than those that are there is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jaxad.data.decode import decode_mask
from jaxad.data.files import content_digest
from jaxad.errors import ConfigError, DataError
from jaxad.io.atomic import write_whole
from jaxad.io.places import cache_folder
from jaxad.io.threads import map_threads

FILE = "jaxad_index.json"
FORMAT = 1
SPLITS = ("train", "validation", "test")
FEATURES = ("image", "mask", "label", "category", "defect", "image_id", "object_id", "view", "caption")


@dataclass(frozen=True)
class Entry:
    """One image of a prepared data set.

    Attributes:
        split, position: where TFDS has it.
        image_id, category, defect, object_id, view, caption: as the builder stored them.
        label: 0 normal, 1 anomalous, None unknown.
        digest: BLAKE2b of the encoded image, 16 bytes in hexadecimal.
        masked: whether there is a mask; the all-zero mask of a normal image is none.
    """

    split: str
    position: int
    image_id: str
    category: str
    label: int | None
    defect: str
    object_id: str
    view: int
    caption: str
    digest: str
    masked: bool


@dataclass(frozen=True)
class Index:
    """All images of one config, and what its builder says of its license."""

    entries: tuple[Entry, ...]
    license: str


def read_index(folder: Path, *, workers: int = 2) -> Index:
    """The index of a prepared config, made if need be.

    Args:
        folder: DATA_DIR/NAME/CONFIG/VERSION.
        workers: threads that read.

    Raises:
        DataError: shards are missing or damaged, or the features are not `FEATURES`.
    """
    shards = {file.name: [(s := file.stat()).st_size, s.st_mtime_ns] for file in sorted(folder.glob("*.array_record*"))}
    places = (folder / FILE, *_elsewhere(folder))
    for file in places:
        if file.is_file() and (found := _load(file, shards)) is not None:
            return found
    index = _make(folder, workers)
    content = {
        "format": FORMAT,
        "shards": shards,
        "license": index.license,
        "entries": [astuple(entry) for entry in index.entries],
    }
    for file in places:
        try:
            write_whole(file, json.dumps(content))
            break
        except OSError:
            continue
    return index


def read_record(folder: Path, split: str, position: int) -> dict[str, Any]:
    """One record of a prepared config: `image` and `mask` as encoded bytes, the rest as numbers, text, class numbers.

    Raises:
        DataError: the shard is missing or damaged.
    """
    source, _ = _open(folder, split)
    # array_record raises whatever its C++ makes of a damaged file.
    try:
        return source[position]
    except Exception as error:
        raise DataError(f"{folder}: cannot read record {position} of {split} ({error}); prepare it again") from error


@cache
def _builder(folder: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
    except Exception as error:
        raise DataError(f"{folder}: TFDS cannot open it ({error}); prepare it again") from error
    features: Any = builder.info.features
    if missing := [name for name in FEATURES if name not in features]:
        raise DataError(f"{folder}: holds no {', '.join(missing)}; it was not prepared by jaxad")
    return builder


@cache
def _open(folder: Path, split: str) -> tuple[Any, Any]:
    """The records of a split and the features, shared by all threads of a process."""
    import tensorflow_datasets as tfds

    builder = _builder(folder)
    # TFDS's own decoder turns 16-bit images into 8-bit ones and keeps alpha.
    raw = {name: tfds.decode.SkipDecoding() for name in ("image", "mask")}
    try:
        return builder.as_data_source(split, decoders=raw), builder.info.features
    except Exception as error:
        raise DataError(f"{folder}: TFDS cannot open {split} ({error}); prepare it again") from error


def _elsewhere(folder: Path) -> tuple[Path, ...]:
    """The place for an index that cannot lie beside its shards; none where no cache folder is known."""
    try:
        return (cache_folder() / "indexes" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json",)
    except ConfigError:
        return ()


def _load(file: Path, shards: dict[str, list[int]]) -> Index | None:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or (content.get("format"), content.get("shards")) != (FORMAT, shards):
        return None
    return Index(tuple(Entry(*values) for values in content["entries"]), content["license"])


def _make(folder: Path, workers: int) -> Index:
    # What was opened before may be of other shards.
    _builder.cache_clear()
    _open.cache_clear()
    info = _builder(folder).info
    entries = [
        entry
        for split in SPLITS
        if split in info.splits and info.splits[split].num_examples
        for entry in _read(folder, split, workers)
    ]
    return Index(tuple(sorted(entries, key=lambda entry: entry.image_id)), info.as_proto.redistribution_info.license)


def _read(folder: Path, split: str, workers: int) -> Iterator[Entry]:
    source, features = _open(folder, split)
    blank = _Blank()

    def entry(position: int) -> Entry:
        values = read_record(folder, split, position)
        label = int(values["label"])
        mask = bytes(values["mask"])
        return Entry(
            split=split,
            position=position,
            image_id=_text(values["image_id"]),
            category=features["category"].int2str(int(values["category"])),
            label=label if label in (0, 1) else None,
            defect=_text(values["defect"]),
            object_id=_text(values["object_id"]),
            view=int(values["view"]),
            caption=_text(values["caption"]),
            digest=content_digest(values["image"]).hex(),
            masked=bool(mask) and not (label == 0 and blank(mask)),
        )

    yield from map_threads(entry, range(len(source)), workers)


class _Blank:
    """Whether an encoded mask marks nothing; decodes equal masks once, and there are few different blank ones."""

    def __init__(self) -> None:
        self._known: dict[bytes, bool] = {}

    def __call__(self, mask: bytes) -> bool:
        key = content_digest(mask)
        if key not in self._known:
            try:
                self._known[key] = not decode_mask(mask).any()
            except DataError:
                # Reading the mask will say what is wrong with it.
                self._known[key] = False
        return self._known[key]


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
