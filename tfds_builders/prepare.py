"""`prepare`: a data set's official files, checked, into TFDS's format, category by category."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging as absl_logging
from tensorflow_datasets.core.constants import DATASET_INFO_FILENAME

from jaxad import __version__
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.io.locks import LOCK, locked, require_free, require_writable
from jaxad.io.places import check_storable, expanded
from jaxad.io.progress import Reporter
from jaxad.io.text import name_text, slug, visible
from tfds_builders.builder import VERSION, builder_for, data_root, read_metadata, writer_for
from tfds_builders.captions import attach_captions
from tfds_builders.examine import Category, count_problems, described, examine, list_category
from tfds_builders.listing import Benchmark, Counts, benchmark, config_name
from tfds_builders.sources import locate

SMALLEST = 32
"""Pixels of the smallest prepared size."""
RESERVE = 256 * 2**20
"""Bytes of the disk that are left free."""


@dataclass(frozen=True)
class Prepared:
    """A prepared category: its folder, its counts, and whether it was there already."""

    category: str
    folder: Path
    counts: Counts
    kept: bool


def prepare(
    name: str,
    source: str | Path | Sequence[str | Path],
    *,
    data_dir: str | Path | None = None,
    categories: Sequence[str] | None = None,
    size: int | None = None,
    options: Mapping[str, str] | None = None,
    captions: str | Path | None = None,
    workers: int | None = None,
    partial: bool = False,
    verify: bool = True,
    beam: Sequence[str] | None = None,
    reporter: Reporter | None = None,
) -> list[Prepared]:
    """Prepares a data set for reading by `jaxad.data.load(name)` or TFDS.

    Everything is checked before anything is stored. Each category is stored whole or not at all; those that are there
    already, from the same files, are kept, so that the same call goes on after an interruption.

    Args:
        name: data set, one of `tfds_builders.listing.names()`.
        source: its extracted folder, or its official archives.
        data_dir: TFDS data folder; None for TFDS's own, $TFDS_DATA_DIR or ~/tensorflow_datasets.
        categories: official names or slugs, None for all.
        size: pixels that the shorter side is reduced to (tfds_builders.encode); None copies the bytes.
        options: the data set's options.
        captions: captions to store with the images (tfds_builders.captions).
        workers: threads that read, check and resize; None for one per CPU.
        partial: accept fewer images than officially there are; only those categories that are there.
        verify: decode everything first.
        beam: options of an Apache Beam pipeline that does the storing.
        reporter: shows progress.

    Returns:
        The categories.

    Raises:
        ConfigError: impossible arguments; or `data_dir` cannot be written, or another process prepares the same.
        DataError: everything that is wrong with the source; or the disk is too full.
    """
    data_set = benchmark(name)
    chosen = data_set.choose(options or {})
    if size is not None and size < SMALLEST:
        raise ConfigError(f"size = {size}: must be at least {SMALLEST} pixels")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers = {workers}: must be at least 1")
    reporter = reporter or Reporter()
    root_folder = data_root(data_dir)
    check_storable("data_dir", root_folder)
    paths = [expanded(path) for path in ([source] if isinstance(source, str | Path) else source)]
    scratch = root_folder / "unpacked" / name
    with locate(data_set, paths, scratch, reporter, categories) as located:
        listed, problems = _list(data_set, located.root, categories, chosen, partial)
        if captions is not None:
            listed, notes = attach_captions(listed, expanded(captions))
            problems += notes
        done = {category.name: _existing(data_set, category, root_folder, size, chosen) for category in listed}
        waiting = [category for category in listed if done[category.name] is None]
        if waiting:
            require_writable(root_folder, "data_dir")
        for category in waiting:
            place = _folder(data_set, category, root_folder, size, chosen).parent
            require_free(place / LOCK, str(place))
        if verify:
            problems += _examine(waiting, problems, workers, reporter)
        if fatal := [problem for problem in problems if problem.fatal]:
            raise DataError(f"{data_set.title} cannot be prepared from {located.root}, {len(fatal)} problems:", fatal)
        if not listed:
            raise DataError(f"{located.root}: no image of the categories asked for. {data_set.how_to_obtain}")
        reporter.warn([str(problem) for problem in problems])
        _check_room(waiting, root_folder, size)
        for category in waiting:
            metadata = {
                "fingerprint": category.fingerprint,
                "source": str(paths[0]),
                "sha256": dict(located.checksums),
                "partial": partial,
                "jaxad": __version__,
            }
            with _quiet(), reporter.images(category.name, len(category.samples)) as progress:
                folder = _write(data_set, category, root_folder, size, chosen, workers, metadata, progress, beam)
            done[category.name] = Prepared(category.name, folder, category.counts, kept=False)
            reporter.say(f"{visible(folder)}: {described(category.counts)}")
    return [found for found in done.values() if found is not None]


def how_to(name: str) -> str:
    """How to obtain a data set, under which license, and which options it has."""
    data_set = benchmark(name)
    lines = [f"{data_set.title} ({name})", f"license: {data_set.license}"]
    lines += [f"page: {data_set.homepage}"] if data_set.homepage else []
    lines += [data_set.how_to_obtain]
    lines += [f"--options {o.name}={'|'.join(o.choices)}: {o.help} (default {o.choices[0]})" for o in data_set.options]
    lines += [f"categories: {', '.join(data_set.categories)}"] if data_set.categories else []
    return "\n".join([*lines, f"then: jaxad prepare {name} --source PATH"])


def data_name(name: str, size: int | None, options: Mapping[str, str]) -> str:
    """What `jaxad.data.load` calls a data set prepared in this way: "mvtec_ad", or "mvtec_ad/all-512"."""
    config = config_name(benchmark(name), "all", size, **options)
    return name if config == "all" else f"{name}/{config}"


def _list(
    data_set: Benchmark, root: Path, wanted: Sequence[str] | None, options: dict[str, str], partial: bool
) -> tuple[list[Category], list[Problem]]:
    """The categories that are there and to be prepared, and what is wrong with names and numbers."""
    official = data_set.categories_of(root, **options)
    names = official if wanted is None else _named(data_set, official, wanted)
    known: dict[str, Any] = {} if data_set.survey is None else {"survey": data_set.survey(root)}
    listed = [list_category(data_set, root, category, partial=partial, **options, **known) for category in names]
    problems = [problem for category in listed for problem in category.problems]
    slugs = Counter(slug(category) for category in names)
    for category in names:
        if slugs[slug(category)] > 1:
            problems.append(Problem("ambiguous name", str(root / category), "differs from another in punctuation only"))
    if wanted is None and not partial and not problems:
        found = Counter[tuple[str, int]]()
        for category in listed:
            found.update(category.counts)
        problems += count_problems(str(root), found, data_set.totals(**options))
    # Lists of all categories in one file have their problems named by every category.
    return [category for category in listed if category.samples], list(dict.fromkeys(problems))


def _named(data_set: Benchmark, official: Sequence[str], wanted: Sequence[str]) -> list[str]:
    known = {slug(category): category for category in official}
    wanted = [category if slug(category) in known else name_text(category) for category in wanted]
    if strangers := [category for category in wanted if slug(category) not in known]:
        raise ConfigError(f"{data_set.name}: no category {', '.join(strangers)}; there are {', '.join(official)}")
    chosen = {slug(category) for category in wanted}
    return [category for category in official if slug(category) in chosen]


def _existing(
    data_set: Benchmark, category: Category, data_dir: Path, size: int | None, options: dict[str, str]
) -> Prepared | None:
    """The category if it is prepared already; raises DataError if that was from other files."""
    folder = _folder(data_set, category, data_dir, size, options)
    if not folder.exists():
        return None
    if not (folder / DATASET_INFO_FILENAME).is_file():
        raise DataError(f"{folder}: holds no {DATASET_INFO_FILENAME}, so it was not prepared whole; remove that folder")
    metadata = read_metadata(builder_for(data_set.name, category.name, size, data_dir, **options))
    if metadata.get("fingerprint") != category.fingerprint:
        raise DataError(
            f"{folder}: prepared earlier, from other files ({metadata.get('source', 'unknown')}); "
            "remove that folder to prepare it anew, or give another data_dir"
        )
    return Prepared(category.name, folder, category.counts, kept=True)


def _examine(
    categories: Sequence[Category], known: Sequence[Problem], workers: int | None, reporter: Reporter
) -> list[Problem]:
    """What decoding shows, of files that are there."""
    missing = {problem.file for problem in known}
    samples = [
        sample
        for category in categories
        for sample in category.samples
        if not missing & {str(sample.image), str(sample.mask)}
    ]
    with reporter.images("check", len(samples)) as progress:
        return examine(samples, workers=workers, progress=progress)


def _check_room(categories: Sequence[Category], data_dir: Path, size: int | None) -> None:
    # At a prepared size nobody knows before; it is never more.
    needed = 0 if size else sum(category.size for category in categories)
    place = next(folder for folder in (data_dir, *data_dir.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if categories and free < needed + RESERVE:
        raise DataError(
            f"{place}: {free / 1e9:.1f} GB free, {(needed + RESERVE) / 1e9:.1f} GB needed; make room, give another "
            "data_dir, fewer categories or a size"
        )


def _write(
    data_set: Benchmark,
    category: Category,
    data_dir: Path,
    size: int | None,
    options: dict[str, str],
    workers: int | None,
    metadata: Mapping[str, Any],
    progress: Any,
    beam: Sequence[str] | None,
) -> Path:
    parent = _folder(data_set, category, data_dir, size, options).parent
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(parent / LOCK, str(parent)):
            # Left by a process that was killed; it can be nobody else's while the lock is ours.
            for stale in parent.glob("incomplete.*"):
                shutil.rmtree(stale)
            builder = writer_for(data_set.name, category.name, size, data_dir, **options)
            return builder.write(category.samples, workers=workers, metadata=metadata, progress=progress, beam=beam)
    except (OSError, RuntimeError) as error:
        # ArrayRecord has its own exception for what the system calls a full disk.
        full = getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(parent).free < RESERVE // 8
        if not full:
            raise
        raise DataError(
            f"{parent}: the disk is full; make room and run the same command again, finished categories are kept"
        ) from error


def _folder(data_set: Benchmark, category: Category, data_dir: Path, size: int | None, options: dict[str, str]) -> Path:
    return data_dir / data_set.name / config_name(data_set, category.name, size, **options) / VERSION


@contextmanager
def _quiet() -> Iterator[None]:
    """Without TFDS's remarks on configs that it does not know by name."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)
