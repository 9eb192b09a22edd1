"""Where a data set's files are: in the folder given, in one below, or in archives that are unpacked for the while."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jaxad.errors import DataError
from jaxad.io.locks import LOCK, locked
from jaxad.io.problems import Problems
from jaxad.io.progress import Reporter
from jaxad.io.signals import held
from tfds_builders.archives import extract, is_archive, sha256, unpacked_size
from tfds_builders.listing import Benchmark, slug

DEPTH = 2
"""How many levels below the folder given the root, or archives, are looked for."""
MEGABYTE = 2**20


@dataclass(frozen=True)
class Located:
    """The root of a data set.

    Attributes:
        root: the folder whose layout the data set reads.
        checksums: SHA-256 by name of the archives it was unpacked from.
    """

    root: Path
    checksums: Mapping[str, str]


@contextmanager
def locate(
    data_set: Benchmark,
    sources: Sequence[Path],
    scratch: Path,
    reporter: Reporter,
    categories: Sequence[str] | None = None,
) -> Iterator[Located]:
    """The root of a data set, for as long as the context lasts; unpacks archives if need be.

    Args:
        data_set: what to look for.
        sources: one folder, or archives.
        scratch: folder to unpack into, this process's alone in the context. Archives unpacked there earlier are not
            unpacked again; it is removed at the end of a context without error.
        reporter: shows progress.
        categories: official names or slugs of those wanted, None for all; archives of other categories alone are left.

    Raises:
        ConfigError: another process unpacks there.
        DataError: nothing there, not this data set, damaged or unsafe archives, wrong checksums, or too full a disk.
    """
    if missing := [str(path) for path in sources if not path.exists()]:
        raise DataError(f"source: no such file or folder: {', '.join(missing)}")
    folders = [path for path in sources if path.is_dir()]
    if folders and len(sources) > 1:
        raise DataError("source: must be one folder, or archives; not both, and not several folders")
    if folders:
        if (root := find_root(data_set, folders[0])) is not None:
            yield Located(root, {})
            return
        archives = _archives_in(folders[0])
        if not archives:
            above = folders[0].absolute().parent
            hint = f"; give the folder that it lies in, {above}, which is" if data_set.is_root(above) else ""
            raise DataError(f"{folders[0]}: not {data_set.title}{hint}. {data_set.how_to_obtain}")
        base = folders[0]
    else:
        archives = list(sources)
        if strangers := [str(path) for path in archives if not is_archive(path)]:
            raise DataError(f"source: neither folders nor archives: {', '.join(strangers)}")
        base = Path(os.path.commonpath([path.absolute().parent for path in archives]))
    wanted = _wanted(data_set, archives, categories)
    scratch.mkdir(parents=True, exist_ok=True)
    # Beside the folder: a lock within it would go with it, before it is let go.
    with locked(scratch.with_name(f".{scratch.name}{LOCK}"), str(scratch)):
        yield _unpack(data_set, wanted, base, folders, scratch, reporter)
        with held():
            shutil.rmtree(scratch)


def find_root(data_set: Benchmark, folder: Path) -> Path | None:
    """The root at or below a folder, the highest one. Raises DataError where there are several side by side."""
    level = [folder]
    for _ in range(DEPTH + 1):
        found = [candidate for candidate in level if data_set.is_root(candidate)]
        if len(found) > 1:
            raise DataError(
                f"{folder}: holds {data_set.title} {len(found)} times; name one: {', '.join(map(str, found))}"
            )
        if found:
            return found[0]
        level = [child for candidate in level for child in _entries(candidate) if child.is_dir()]
    return None


def _unpack(
    data_set: Benchmark, archives: list[Path], base: Path, folders: list[Path], scratch: Path, reporter: Reporter
) -> Located:
    checksums = _checksums(data_set, archives, reporter)
    # An archive's content keeps the archive's place among the others, which some layouts are about.
    parts = {archive: scratch / "archives" / digest / "root" for archive, digest in checksums.items()}
    targets = {a: part / a.absolute().parent.relative_to(base.absolute()) for a, part in parts.items()}
    waiting = [archive for archive in archives if not targets[archive].is_dir()]
    needed, free = sum(map(unpacked_size, waiting)), shutil.disk_usage(scratch).free
    if needed > free:
        raise DataError(
            f"{scratch}: {free / 1e9:.1f} GB free, but unpacking takes {needed / 1e9:.1f} GB, and storing as much "
            "again; make room or give another data_dir"
        )
    for archive in waiting:
        shutil.rmtree(parts[archive].parent, ignore_errors=True)
        size = archive.stat().st_size
        reporter.say(f"unpacking {archive} ({size / 1e9:.2f} GB)")
        with reporter.images("unpack", size // MEGABYTE, unit="MB") as progress:
            extract(archive, targets[archive], progress=_in_megabytes(progress))
    view = scratch / "view"
    shutil.rmtree(view, ignore_errors=True)
    _overlay(view, [*dict.fromkeys(parts.values()), *folders])
    root = find_root(data_set, view)
    if root is None:
        names = ", ".join(archive.name for archive in archives[:5])
        raise DataError(f"{names}: not {data_set.title}, or not all of it. {data_set.how_to_obtain}")
    return Located(root, {archive.name: digest for archive, digest in checksums.items()})


def _wanted(data_set: Benchmark, archives: list[Path], categories: Sequence[str] | None) -> list[Path]:
    """The archives without those that hold nothing but a category that is not asked for."""
    if categories is None:
        return archives
    slugs = {slug(category) for category in categories}
    held = {archive: data_set.category_of(archive) for archive in archives}
    wanted = [archive for archive, category in held.items() if category is None or slug(category) in slugs]
    if not wanted:
        there = ", ".join(sorted(category for category in held.values() if category is not None))
        raise DataError(f"source: no archive of {', '.join(categories)}, nor of the lists; there are those of {there}")
    return wanted


def _checksums(data_set: Benchmark, archives: list[Path], reporter: Reporter) -> dict[Path, str]:
    size = sum(archive.stat().st_size for archive in archives)
    with reporter.images("checksums", size // MEGABYTE, unit="MB") as progress:
        checksums = {archive: sha256(archive, _in_megabytes(progress)) for archive in archives}
    problems = Problems()
    for archive, digest in checksums.items():
        official = data_set.checksums.get(archive.name, digest)
        if digest != official:
            detail = f"SHA-256 {digest}, official {official}; get it again"
            problems.add("wrong checksum", archive, detail)
    problems.stop(f"{data_set.title}: not the official archive:")
    return checksums


def _overlay(view: Path, parts: list[Path]) -> None:
    """Fills a folder with links to what several folders hold besides archives, as if they were one."""
    view.mkdir(parents=True)
    for name in sorted({child.name for part in parts for child in _entries(part)}):
        holders = [part / name for part in parts if (part / name).exists() and not is_archive(part / name)]
        if len(holders) == 1:
            (view / name).symlink_to(holders[0].absolute(), target_is_directory=holders[0].is_dir())
        elif holders and all(holder.is_dir() for holder in holders):
            _overlay(view / name, holders)
        elif holders:
            raise DataError(f"two of the archives hold the same file; leave one out: {', '.join(map(str, holders))}")


def _archives_in(folder: Path, depth: int = DEPTH) -> list[Path]:
    found = []
    for child in _entries(folder):
        if child.is_file() and is_archive(child):
            found.append(child)
        elif depth and child.is_dir():
            found += _archives_in(child, depth - 1)
    return found


def _entries(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


def _in_megabytes(progress):
    """The same progress, counted in bytes."""
    rest = 0

    def add(number: int) -> None:
        nonlocal rest
        whole, rest = divmod(rest + number, MEGABYTE)
        progress(whole)

    return add
