"""Data sets prepared by `jaxad prepare`: DATA_DIR/NAME/CONFIG/VERSION in TFDS's format, read without TensorFlow.

    NAME            all categories, original images
    NAME/SLUG       one category, e.g. mvtec_ad/bottle
    NAME/s1         a subset of categories that the data set defines, e.g. real_iad_variety/s1
    ...-VARIANT     prepared in another size or with other options: mvtec_ad/all-512, real_iad/audiojack-single-512

Each config is one category, so that unions are made here and nothing is stored twice. The images come in
the order of their identities, as from a folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxad.data.depth import common_depths, depth_of
from jaxad.data.files import Facts
from jaxad.data.prepared_index import Entry, Index, read_index, read_record
from jaxad.data.registry import datasets
from jaxad.data.source import ImageSource
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.io.json_files import read_object
from jaxad.io.places import expanded
from jaxad.io.text import name_text, slug
from jaxad.types import Record


@dataclass(frozen=True)
class Place:
    """Where TFDS has an image, the BLAKE2b of its pixels in hexadecimal, and the bits that it uses of 16 (else 0)."""

    folder: Path
    split: str
    position: int
    digest: str
    bits: int = 0


@dataclass(frozen=True, repr=False)
class PreparedSource(ImageSource):
    """Images of a prepared data set, read and decoded when asked for.

    Attributes:
        name: name of the data set and part, e.g. "mvtec_ad/train".
        records: one for each image.
        places: where each of them is.
        depths: at how many bits the 16-bit images of each category are read.
    """

    name: str
    records: tuple[Record, ...]
    places: tuple[Place, ...]
    depths: Mapping[str, int] = field(default_factory=dict)

    def encoded(self, index: int) -> bytes:
        """The encoded image, as its file was."""
        place = self.places[index]
        return bytes(read_record(place.folder, place.split, place.position)["image"])

    def encoded_mask(self, index: int) -> bytes | None:
        """The encoded defect mask, as its file was; None where there is none."""
        place = self.places[index]
        if self.records[index].mask is None:
            return None
        return bytes(read_record(place.folder, place.split, place.position)["mask"])

    def facts(self, index: int) -> Facts:
        """The digest of an image and the bits that it uses, known without reading it."""
        return Facts(bytes.fromhex(self.places[index].digest), self.places[index].bits)

    def fingerprint(self, index: int) -> str:
        """The image's name and digest, and the depth at which it is read."""
        record = self.records[index]
        depth = depth_of(record.category, self.depths)
        return f"{record.file}\0{self.places[index].digest}" + (f"\0{depth}" if depth else "")

    def at_depths(self, depths: Mapping[str, int]) -> PreparedSource:
        """The same images, those of 16 bits read at other depths."""
        return replace(self, depths=dict(depths))

    def select(self, indices: Iterable[int], name: str | None = None) -> PreparedSource:
        """The images at `indices`, in that order, under another name if one is given."""
        chosen = [(self.records[index], self.places[index]) for index in indices]
        records, places = tuple(record for record, _ in chosen), tuple(place for _, place in chosen)
        return replace(self, name=name or self.name, records=records, places=places)


@dataclass(frozen=True)
class Prepared:
    """What a prepared data set holds.

    Attributes:
        normal: training images, then validation images.
        validation: records of the latter.
        test: test images.
        problems: notes on what is missing.
        license: what the builder says of it.
    """

    normal: PreparedSource
    validation: frozenset[Record]
    test: PreparedSource
    problems: tuple[Problem, ...]
    license: str


def data_folder(data_dir: str | Path | None = None) -> Path:
    """The folder of prepared data sets: as given, else TFDS_DATA_DIR, else ~/tensorflow_datasets (TFDS's default).

    Raises:
        ConfigError: it lies in a home folder, and none is known.
    """
    try:
        return expanded(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    except ConfigError as error:
        raise ConfigError(f"data_dir: {error}; or give data_dir, or TFDS_DATA_DIR") from error


def prepared_names(data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Names of the data sets that are prepared."""
    root = data_folder(data_dir)
    folders = sorted(child.name for child in root.iterdir() if child.is_dir()) if root.is_dir() else []
    return tuple(name for name in folders if _configs(root / name))


def prepared_configs(dataset: str, data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Names, DATA_SET/CONFIG, of all that is prepared of a data set."""
    folder = data_folder(data_dir) / dataset
    return tuple(f"{dataset}/{config}" for config in _configs(folder)) if folder.is_dir() else ()


def open_prepared(
    name: str,
    data_dir: str | Path | None = None,
    *,
    categories: tuple[str, ...] | None = None,
    workers: int | None = None,
) -> Prepared:
    """Lists a prepared data set (see the head of this module).

    Args:
        name: NAME, or NAME/SELECTION with or without -VARIANT.
        data_dir: folder of prepared data sets, None for the usual one (`data_folder`).
        categories: official names or slugs of the categories to use, None for all.
        workers: threads that read, where an index is to be made; None for one per CPU.

    Raises:
        DataError: it is not prepared, lacks categories that the selection needs, or has one of `categories` not.
    """
    folders = _chosen(name, data_folder(data_dir))
    if categories is not None:
        folders = _only(name, folders, categories)
    indexes = {config: read_index(folder, workers=workers) for config, folder in folders.items()}
    dataset = name.partition("/")[0]
    listed = [
        (
            _record(f"{dataset}/{config}", entry),
            Place(folders[config], entry.split, entry.position, entry.digest, entry.bits),
            entry,
        )
        for config, index in indexes.items()
        for entry in index.entries
    ]
    listed.sort(key=lambda item: item[0].identity)
    if twice := [identity for identity, n in Counter(r.identity for r, _, _ in listed).items() if n > 1]:
        raise DataError(
            f"{name}: {len(twice)} images are there twice, e.g. {twice[0]}; choose configs that do not overlap"
        )

    depths = common_depths((record.category, place.bits) for record, place, _ in listed)

    def part(title: str, *splits: str) -> PreparedSource:
        chosen = [(r, place) for split in splits for r, place, entry in listed if entry.split == split]
        records, places = tuple(record for record, _ in chosen), tuple(place for _, place in chosen)
        return PreparedSource(f"{name}/{title}", records, places, depths)

    license = "\n\n".join(dict.fromkeys(index.license for index in indexes.values() if index.license))
    validation = frozenset(part("validation", "validation").records)
    return Prepared(
        part("train", "train", "validation"), validation, part("test", "test"), _notes(dataset, indexes), license
    )


def _record(where: str, entry: Entry) -> Record:
    file = Path(where) / entry.image_id
    return Record(
        file=file,
        category=entry.category,
        label=entry.label,
        defect=entry.defect,
        mask=Path(f"{file}#mask") if entry.masked else None,
        identity=entry.image_id,
        object_id=entry.object_id,
        view=entry.view,
        caption=entry.caption,
    )


def _configs(folder: Path) -> dict[str, Path]:
    """The newest version of every finished config of a data set."""
    found = {}
    for config in sorted(child for child in folder.iterdir() if child.is_dir()):
        versions = [v for v in config.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", v.name)]
        finished = [v for v in versions if (v / "dataset_info.json").is_file()]
        if finished:
            found[config.name] = max(finished, key=lambda v: tuple(map(int, v.name.split("."))))
    return found


def _chosen(name: str, data_dir: Path) -> dict[str, Path]:
    """Folders of the configs that a name selects, by config."""
    dataset, _, rest = name.partition("/")
    selection, hyphen, variant = (rest or "all").partition("-")
    configs = _configs(data_dir / dataset) if (data_dir / dataset).is_dir() else {}
    prepare = f"jaxad prepare {dataset} --source PATH --data-dir {data_dir}"
    if not configs:
        raise DataError(f"{dataset} is not prepared in {data_dir}; run: {prepare}; or give another data_dir")
    subsets = datasets.get(dataset).subsets if dataset in datasets.names() else {}
    same = {config: folder for config, folder in configs.items() if config.partition("-")[1:] == (hyphen, variant)}
    if selection == "all":
        # Also where a category is called so; `categories` chooses that one alone.
        pass
    elif selection in configs or f"{selection}{hyphen}{variant}" in configs:
        same = {config: folder for config, folder in same.items() if config.partition("-")[0] == selection}
    elif selection.lower() in subsets:
        number, last = subsets[selection.lower()]
        official = {config: _official_name(folder) for config, folder in same.items()}
        same = {config: folder for config, folder in same.items() if official[config] <= last}
        if len(same) != number or last not in official.values():
            raise DataError(
                f"{name}: holds the {number} categories up to {last}, and {len(same)} of those are prepared in "
                f"{data_dir}; run: {prepare}"
            )
    else:
        same = {}
    if not same:
        kinds = ["all", *subsets]
        raise DataError(
            f"{name}: not prepared in {data_dir}; there are {', '.join(configs)}, and {', '.join(kinds)} of those with "
            f"the same ending; run: {prepare}"
        )
    return same


def _official_name(folder: Path) -> str:
    file = folder / "metadata.json"
    category = read_object(file, error=DataError).get("category")
    if not isinstance(category, str):
        raise DataError(f"{file}: does not name the category; prepare it again")
    return category


def _only(name: str, folders: dict[str, Path], categories: tuple[str, ...]) -> dict[str, Path]:
    slugs = {config.partition("-")[0]: config for config in folders}
    wanted = {category: slug(name_text(category)) for category in categories}
    wanted |= {category: slug(category) for category in categories if slug(category) in slugs}
    if missing := [category for category, own in wanted.items() if own not in slugs]:
        raise DataError(f"{name}: no category {', '.join(missing)}; there are {', '.join(slugs)}")
    return {config: folders[config] for own, config in slugs.items() if own in wanted.values()}


def _notes(dataset: str, indexes: dict[str, Index]) -> tuple[Problem, ...]:
    """What `jaxad.data.layout` says of folders, where it applies."""
    problems = []
    for config, index in indexes.items():
        where = f"{dataset}/{config}"
        if not any(entry.split == "train" for entry in index.entries):
            problems.append(Problem("no training image", where, "holds no training image", fatal=False))
        if any(entry.masked for entry in index.entries):
            problems += [
                Problem(
                    "image without mask",
                    f"{where}/{entry.image_id}",
                    f"other images of {entry.category} have masks; pixel metrics leave this one out",
                    fatal=False,
                )
                for entry in index.entries
                if entry.label == 1 and not entry.masked
            ]
        problems += [
            Problem("unlabeled image", f"{where}/{entry.image_id}", "has no label", fatal=False)
            for entry in index.entries
            if entry.label is None and entry.split == "test"
        ]
    return tuple(problems)
