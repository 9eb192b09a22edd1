"""Where a data set is found: in folders, or in archives beside or below one another."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxad.errors import ConfigError, DataError
from jaxad.io.progress import Reporter
from tfds_builders import sources
from tfds_builders.archives import sha256
from tfds_builders.listing import benchmark
from tfds_builders.sources import Located, locate

MVTEC = benchmark("mvtec_ad")


@pytest.fixture
def find(tmp_path):
    """Locates as `prepare` does; what was located before is done with."""
    with ExitStack() as held:

        def run(*paths: Path, name: str = "mvtec_ad", categories: Sequence[str] | None = None) -> Located:
            held.close()
            return held.enter_context(
                locate(benchmark(name), paths, tmp_path / "scratch", Reporter(quiet=True), categories)
            )

        yield run


def zipped(folder: Path, archive: Path, *, inside: str = "") -> Path:
    """Moves a folder's content into an archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.write(file, f"{inside}{file.relative_to(folder)}")
    shutil.rmtree(folder)
    return archive


@pytest.mark.parametrize("below", ["", "mvtec_anomaly_detection/", "a/b/"])
def test_root_in_the_folder_or_below(tree, find, below):
    tree.category(f"{below}bottle")
    assert find(tree.root) == Located(tree.root / below, {})


def test_folders_that_are_not_the_data_set(tree, find):
    tree.image("a/b/c/bottle/train/good/0.png")
    with pytest.raises(DataError, match=r"source: not MVTec-AD. Ask MVTec for the data on its page"):
        find(tree.root)
    for copy in ("one", "two"):
        tree.category(f"{copy}/bottle")
    with pytest.raises(DataError, match=r"holds MVTec-AD 2 times; name one: .*one, .*two"):
        find(tree.root)


def test_sources_that_are_none(tree, find, tmp_path):
    tree.category("bottle")
    text = tree.text("notes.txt")
    with pytest.raises(DataError, match=r"no such file or folder: .*gone"):
        find(tmp_path / "gone")
    with pytest.raises(DataError, match=r"one folder, or archives; not both"):
        find(tree.root, text)
    with pytest.raises(DataError, match=r"neither folders nor archives: .*notes.txt"):
        find(text)


def test_archives_of_single_categories(tree, find, tmp_path):
    archives = []
    for category in ("bottle", "cable"):
        tree.category(category)
        archives.append(zipped(tree.root / category, tmp_path / f"{category}.zip", inside=f"{category}/"))
    located = find(*archives)
    assert sorted(child.name for child in located.root.iterdir()) == ["bottle", "cable"]
    assert located.checksums == {archive.name: sha256(archive) for archive in archives}
    assert located.root == tmp_path / "scratch/view"
    assert next(sample.image_id for sample in MVTEC.list_samples(located.root, "cable")) == "cable/train/good/000.png"


def test_folder_of_archives_keeps_their_places_and_what_lies_beside(tree, find):
    tree.category("data/bottle")
    zipped(tree.root / "data/bottle", tree.root / "data/bottle.zip", inside="bottle/")
    tree.category("data/cable")
    tree.text("data/readme.txt", "mine")
    # A category unpacked beside an archive makes the folder a root of its own, so it is the root below that counts.
    assert find(tree.root) == Located(tree.root / "data", {})
    zipped(tree.root / "data/cable", tree.root / "more/cable.zip", inside="data/cable/")
    located = find(tree.root)
    assert located.root.name == "data"
    assert sorted(child.name for child in located.root.iterdir()) == ["bottle", "readme.txt"]


def test_one_category_in_two_archives(tree, find, tmp_path):
    tree.category("bottle", train=4)
    shutil.copytree(tree.root / "bottle/train", tmp_path / "part/train")
    shutil.rmtree(tree.root / "bottle/train")
    parts = [
        zipped(tmp_path / "part", tmp_path / "1.zip", inside="bottle/"),
        zipped(tree.root / "bottle", tmp_path / "2.zip", inside="bottle/"),
    ]
    samples = list(MVTEC.list_samples(find(*parts).root, "bottle"))
    assert len(samples) == 8
    assert all(sample.image.is_file() for sample in samples)
    other = tmp_path / "3.zip"
    with zipfile.ZipFile(other, "w") as packed:
        packed.writestr("bottle/train/good/000.png", "another")
    with pytest.raises(DataError, match=r"two of the archives hold the same file"):
        find(*parts, other)


def test_unpacked_archives_are_not_unpacked_again(tree, find, tmp_path, monkeypatch):
    tree.category("bottle")
    archive = zipped(tree.root / "bottle", tmp_path / "bottle.zip", inside="bottle/")
    place = tmp_path / "scratch"
    with pytest.raises(KeyboardInterrupt), locate(MVTEC, [archive], place, Reporter(quiet=True)) as first:
        raise KeyboardInterrupt
    monkeypatch.setattr(sources, "extract", None)
    assert find(archive) == first


def test_what_was_unpacked_is_one_process_s_until_it_is_done(tree, find, tmp_path):
    tree.category("bottle")
    archive = zipped(tree.root / "bottle", tmp_path / "bottle.zip", inside="bottle/")
    place = tmp_path / "scratch"
    with locate(MVTEC, [archive], place, Reporter(quiet=True)) as first:
        with ThreadPoolExecutor() as others, pytest.raises(ConfigError, match="another"):
            others.submit(find, archive).result()
        assert len(list(MVTEC.list_samples(first.root, "bottle"))) == 8
        assert (first.root / "bottle/train/good/000.png").is_file()
    assert not place.exists()
    assert find(archive) == first


def test_archives_of_other_categories_are_left(tree, find, tmp_path):
    names = ("realiadvariety_jsons.zip", "realiadvariety_raw/D-sub.zip", "realiadvariety_raw/cup.zip")
    tree.text("lists/Real-IAD_Variety_jsons/D-sub.json")
    zipped(tree.root / "lists", tmp_path / "all" / names[0])
    tree.image("images/D-sub/OK/S0001/x.png")
    zipped(tree.root / "images", tmp_path / "all" / names[1])
    (tmp_path / "all" / names[2]).write_bytes(b"would not unpack")
    paths = [tmp_path / "all" / name for name in names]
    for given in ([tmp_path / "all"], paths):
        located = find(*given, name="real_iad_variety", categories=["D_sub"])
        assert {*located.checksums} == {"realiadvariety_jsons.zip", "D-sub.zip"}
        assert (located.root / "realiadvariety_raw/D-sub/OK/S0001/x.png").is_file()
    with pytest.raises(DataError, match=r"no archive of mug, nor of the lists; there are those of D-sub, cup"):
        find(*paths[1:], name="real_iad_variety", categories=["mug"])
    with pytest.raises(DataError, match=r"cup.zip: a damaged archive"):
        find(*paths, name="real_iad_variety")


def test_archives_that_were_interrupted_are_unpacked_again(tree, find, tmp_path):
    tree.category("bottle")
    archive = zipped(tree.root / "bottle", tmp_path / "bottle.zip", inside="bottle/")
    rest = tmp_path / "scratch/archives" / sha256(archive) / ".incomplete-1/bottle"
    rest.mkdir(parents=True)
    assert (find(archive).root / "bottle/train/good/000.png").is_file()
    assert not rest.exists()


def test_archive_that_is_not_the_data_set(find, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("x.txt", "x")
    with pytest.raises(DataError, match=r"a.zip: not MVTec-AD, or not all of it"):
        find(tmp_path / "a.zip")


def test_official_checksums_are_verified(find, tmp_path):
    archive = tmp_path / "mvtec_loco_anomaly_detection.tar.xz"
    archive.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"wrong checksum: SHA-256 [0-9a-f]{64}, official 9e7c84db.*; get it again"):
        find(archive, name="mvtec_loco")


def test_disk_without_room_to_unpack(tree, find, tmp_path, monkeypatch):
    tree.category("bottle")
    archive = zipped(tree.root / "bottle", tmp_path / "bottle.zip", inside="bottle/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(DataError, match=r"scratch: 0.0 GB free, but unpacking takes .* give another data_dir"):
        find(archive)
