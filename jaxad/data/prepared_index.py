"""What is in a prepared data set, without its images: read once from the shards, kept beside them as one JSON file.

TFDS keeps the records of a split in the order of a hash, with everything known of an image beside its bytes. Listing a
data set would therefore mean reading all of it. `read_index` does so once for each config, decoding the images for the
digests of their pixels, and leaves `jaxad_index.json` in the config's folder, or in the user's cache where that folder
cannot be written. An index of other shards than those that are there is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jaxad.data.decode import decode, decode_mask
from jaxad.data.depth import DEPTHS
from jaxad.data.files import Facts, content_digest
from jaxad.errors import ConfigError, DataError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import LIST, read_object
from jaxad.io.places import cache_folder
from jaxad.io.threads import map_threads
from jaxad.io.untrusted import reading

FILE = "jaxad_index.json"
FORMAT = 2
_TFDS = "tensorflow_datasets.core.features."
_CLASS_NAMES = ("pythonClassName", "python_class_name", "type")
"""Keys of features.json under which TFDS takes the name of a class; the last is that of old versions."""
SPLITS = ("train", "validation", "test")
FEATURES = ("image", "mask", "label", "category", "defect", "image_id", "object_id", "view", "caption")


@dataclass(frozen=True)
class Entry:
    """One image of a prepared data set.

    Attributes:
        split, position: where TFDS has it.
        image_id, category, defect, object_id, view, caption: as the builder stored them.
        label: 0 normal, 1 anomalous, None unknown.
        digest: BLAKE2b of the image's pixels, 16 bytes in hexadecimal; of its bytes where it cannot be decoded.
        bits: the smallest depth that holds the values of a 16-bit image, 0 of others.
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
    bits: int
    masked: bool


_TYPES = {name: get_args(kind) or (kind,) for name, kind in get_type_hints(Entry).items()}
"""What each field of an `Entry` can be."""


@dataclass(frozen=True)
class Index:
    """All images of one config, and what its builder says of its license."""

    entries: tuple[Entry, ...]
    license: str


def read_index(folder: Path, *, workers: int | None = None) -> Index:
    """The index of a prepared config, made if need be.

    Args:
        folder: DATA_DIR/NAME/CONFIG/VERSION.
        workers: threads that read; None for one per CPU.

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
    where = f"{folder}: cannot read record {position} of {split}"
    with reading(lambda said: DataError(f"{where} ({said}); prepare it again")):
        return source[position]


@cache
def _builder(folder: Path) -> Any:
    import tensorflow_datasets as tfds

    _check_features(folder / "features.json")
    with reading(lambda said: DataError(f"{folder}: TFDS cannot open it ({said}); prepare it again")):
        builder = tfds.builder_from_directory(str(folder))
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
    with reading(lambda said: DataError(f"{folder}: TFDS cannot open {split} ({said}); prepare it again")):
        return builder.as_data_source(split, decoders=raw), builder.info.features


def _check_features(file: Path) -> None:
    """Raises DataError where TFDS would import, by the name that the file gives, what is not its own."""
    pending: list[Any] = [read_object(file, error=DataError)]
    while pending:
        node = pending.pop()
        for key in _CLASS_NAMES if isinstance(node, dict) else ():
            name = node.get(key, _TFDS)
            if not isinstance(name, str) or not name.startswith(_TFDS) or (key == "type" and key in node):
                raise DataError(f"{file}: {key} = {name!r:.100}: is no feature of TFDS today; prepare it again")
        pending += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _elsewhere(folder: Path) -> tuple[Path, ...]:
    """The place for an index that cannot lie beside its shards; none where no cache folder is known."""
    try:
        return (cache_folder() / "indexes" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json",)
    except ConfigError:
        return ()


def _load(file: Path, shards: dict[str, list[int]]) -> Index | None:
    # A damaged index is made anew.
    try:
        content = read_object(file, size=LIST, error=DataError)
        if (content.get("format"), content.get("shards")) != (FORMAT, shards):
            return None
        entries, license = content["entries"], content["license"]
        if isinstance(license, str) and isinstance(entries, list) and all(map(_is_entry, entries)):
            return Index(tuple(Entry(*values) for values in entries), license)
    except (DataError, KeyError):
        pass
    return None


def _is_entry(values: Any) -> bool:
    """Whether these are the fields of an `Entry`, each of its type."""
    if not isinstance(values, list) or len(values) != len(_TYPES):
        return False
    if not all(type(value) in kinds for value, kinds in zip(values, _TYPES.values(), strict=True)):
        return False
    entry = Entry(*values)
    if entry.bits not in (0, *DEPTHS):
        return False
    return entry.split in SPLITS and entry.position >= 0 and re.fullmatch("[0-9a-f]{32}", entry.digest) is not None


def _make(folder: Path, workers: int | None) -> Index:
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


def _read(folder: Path, split: str, workers: int | None) -> Iterator[Entry]:
    source, features = _open(folder, split)
    blank = _Blank()

    def entry(position: int) -> Entry:
        values = read_record(folder, split, position)
        where = f"{folder}: record {position} of {split}"
        with reading(lambda said: DataError(f"{where} is not as its features say ({said}); prepare it again")):
            label = int(values["label"])
            mask = bytes(values["mask"])
            facts = _facts(bytes(values["image"]))
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
                digest=facts.digest.hex(),
                bits=facts.bits,
                masked=bool(mask) and not (label == 0 and blank(mask)),
            )

    yield from map_threads(entry, range(len(source)), workers)


def _facts(encoded: bytes) -> Facts:
    try:
        decoded = decode(encoded)
    except DataError:
        # Reading the image will say what is wrong with it.
        return Facts(content_digest(encoded))
    return Facts(decoded.digest, decoded.bits)


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
