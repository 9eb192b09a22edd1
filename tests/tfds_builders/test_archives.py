"""Archives are unpacked whole or not at all, and can harm nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from jaxad.errors import DataError
from tfds_builders.archives import CHUNK, Limits, extract, sha256, unpacked_size

CONTENT = {"a/one.txt": b"one" * 1000, "a/b/two.bin": bytes(range(256)) * 50, "empty": b""}
COMPRESS = {".tar": bytes, ".tar.gz": gzip.compress, ".tgz": gzip.compress, ".tar.xz": lzma.compress}
COMPRESS |= {".txz": lzma.compress, ".tar.bz2": bz2.compress}


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for info, content in members:
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def sound_tar() -> bytes:
    folder = tarfile.TarInfo("./a")
    folder.type = tarfile.DIRTYPE
    return tar_bytes((folder, b""), *((tarfile.TarInfo(f"./{name}"), content) for name, content in CONTENT.items()))


def make_zip(file: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    return file


def assert_nothing_unpacked(tmp_path: Path, archive: Path) -> None:
    """Nothing but the archive is there, and no hidden rest of it."""
    assert [path for path in tmp_path.rglob("*") if path != archive and path.is_file()] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("extension", [".zip", *COMPRESS])
def test_sound_archives(tmp_path, extension):
    archive = tmp_path / f"data{extension}"
    if extension == ".zip":
        make_zip(archive, CONTENT | {"__MACOSX/a/._one.txt": b"x", "a/": b""})
    else:
        archive.write_bytes(COMPRESS[extension](sound_tar()))
    packed = []
    extract(archive, tmp_path / "deep" / "out", progress=packed.append)
    files = {
        p.relative_to(tmp_path / "deep/out").as_posix(): p for p in (tmp_path / "deep/out").rglob("*") if p.is_file()
    }
    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "out"]
    assert 0 < sum(packed) <= archive.stat().st_size
    assert unpacked_size(archive) > 0


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil", "a\\..\\evil"])
@pytest.mark.parametrize("extension", [".zip", ".tar.gz"])
def test_paths_out_of_the_folder(tmp_path, name, extension):
    archive = tmp_path / f"data{extension}"
    if extension == ".zip":
        make_zip(archive, {"good.txt": b"good", name: b"evil"})
    else:
        members = [(tarfile.TarInfo("good.txt"), b"good"), (tarfile.TarInfo(name), b"evil")]
        archive.write_bytes(gzip.compress(tar_bytes(*members)))
    with pytest.raises(DataError, match="refused member") as caught:
        extract(archive, tmp_path / "out")
    assert [problem.file for problem in caught.value.problems] == [name]
    assert_nothing_unpacked(tmp_path, archive)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_tar_members_that_are_no_files(tmp_path, kind):
    member = tarfile.TarInfo("odd")
    member.type = kind
    member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    archive = tmp_path / "data.tar"
    archive.write_bytes(tar_bytes((member, b""), (tarfile.TarInfo("odd/under"), b"x")))
    with pytest.raises(DataError, match=r"odd: refused member: (a link|neither a plain file nor a folder)"):
        extract(archive, tmp_path / "out")
    assert_nothing_unpacked(tmp_path, archive)


def test_zip_links_and_encrypted_members_are_all_named(tmp_path):
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
        packed.writestr("secret", "x")
        packed.writestr("twice", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("twice", "2")
    data = bytearray(archive.read_bytes())
    entry = data.index(b"secret", data.index(b"PK\x01\x02")) - 46
    data[entry + 8] |= 1
    archive.write_bytes(bytes(data))
    with pytest.raises(DataError, match="3 problems") as caught:
        extract(archive, tmp_path / "out")
    reasons = {problem.file: problem.detail.split(";")[0] for problem in caught.value.problems}
    assert reasons == {"link": "a link", "secret": "encrypted", "twice": "there is another of that name"}
    assert_nothing_unpacked(tmp_path, archive)


@pytest.mark.parametrize("extension", [".zip", ".tar.gz", ".tar.xz"])
def test_bombs(tmp_path, extension):
    archive = tmp_path / f"data{extension}"
    zeros = bytes(8 * 2**20)
    if extension == ".zip":
        make_zip(archive, {"zeros": zeros})
    else:
        archive.write_bytes(COMPRESS[extension](tar_bytes((tarfile.TarInfo("zeros"), zeros))))
    with pytest.raises(DataError, match="archive bomb"):
        extract(archive, tmp_path / "out", limits=Limits(slack=2**20))
    assert_nothing_unpacked(tmp_path, archive)
    extract(archive, tmp_path / "out")
    assert (tmp_path / "out/zeros").stat().st_size == len(zeros)


def test_bomb_in_a_header(tmp_path):
    member = tarfile.TarInfo("x")
    member.pax_headers = {"comment": "0" * 8 * 2**20}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as packed:
        packed.addfile(member)
    archive = tmp_path / "data.tar.xz"
    archive.write_bytes(lzma.compress(stream.getvalue()))
    with pytest.raises(DataError, match="archive bomb"):
        extract(archive, tmp_path / "out", limits=Limits(slack=2**20))


def test_too_many_files_and_bytes(tmp_path):
    archive = make_zip(tmp_path / "data.zip", {f"{number}": b"12345" for number in range(10)})
    with pytest.raises(DataError, match="too many files"):
        extract(archive, tmp_path / "out", limits=Limits(files=9))
    with pytest.raises(DataError, match="archive bomb"):
        extract(archive, tmp_path / "out", limits=Limits(size=49))
    assert_nothing_unpacked(tmp_path, archive)
    extract(archive, tmp_path / "out", limits=Limits(size=50, files=10))


@pytest.mark.parametrize("extension", [".zip", *COMPRESS])
def test_cut_off_archives(tmp_path, extension):
    archive = tmp_path / f"data{extension}"
    if extension == ".zip":
        make_zip(archive, CONTENT)
    else:
        archive.write_bytes(COMPRESS[extension](sound_tar()))
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) * 2 // 3] if extension != ".tar" else data[:4000])
    with pytest.raises(DataError, match=r"data\S+: a damaged archive"):
        extract(archive, tmp_path / "out")
    assert_nothing_unpacked(tmp_path, archive)


@pytest.mark.parametrize("damage", [lambda rest: b"", lambda rest: b"x" + rest[1:]])
def test_a_tar_that_is_cut_or_damaged_where_a_member_or_its_end_begins(tmp_path, damage):
    tar, archive = sound_tar(), tmp_path / "data.tar"
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        places = [info.offset for info in opened]
    # The last one is empty: nothing but a head.
    end = places[-1] + 512
    for place in [*places, end]:
        archive.write_bytes(tar[:place] + damage(tar[place:]))
        with pytest.raises(DataError, match="a damaged archive"):
            extract(archive, tmp_path / "out")
        assert_nothing_unpacked(tmp_path, archive)
    # Of two blocks of zeros that mark the end, one will do.
    archive.write_bytes(tar[: end + 512])
    extract(archive, tmp_path / "out")


def test_changed_bytes_of_a_zip(tmp_path):
    archive = make_zip(tmp_path / "data.zip", CONTENT, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"oneone", b"twotwo", 1))
    with pytest.raises(DataError, match=r"damaged archive \(.*Bad CRC"):
        extract(archive, tmp_path / "out")
    assert_nothing_unpacked(tmp_path, archive)


def test_method_of_compression_that_zipfile_does_not_know(tmp_path):
    archive = make_zip(tmp_path / "data.zip", CONTENT)
    content = bytearray(archive.read_bytes())
    for header, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(header) + method] = 9  # Deflate64, which Windows takes for files above 2 GB
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"data.zip: packed in a way that Python cannot read .*give the folder"):
        extract(archive, tmp_path / "out")
    assert_nothing_unpacked(tmp_path, archive)


def test_folder_that_exists_is_left_alone(tmp_path):
    archive = make_zip(tmp_path / "data.zip", CONTENT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(OSError, match="not empty"):
        extract(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_unknown_kind_of_archive(tmp_path):
    (tmp_path / "data.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"data.rar: no archive by its name; known are .zip"):
        extract(tmp_path / "data.rar", tmp_path / "out")


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_several_xz_streams_with_padding_are_one_archive(tmp_path):
    tar = sound_tar()
    (tmp_path / "data.tar.xz").write_bytes(lzma.compress(tar[:3000]) + bytes(8) + lzma.compress(tar[3000:]) + bytes(4))
    extract(tmp_path / "data.tar.xz", tmp_path / "out")
    assert (tmp_path / "out/a/one.txt").read_bytes() == CONTENT["a/one.txt"]


def test_xz_streams_with_more_padding_than_one_reading_gives(tmp_path):
    tar, gap = sound_tar(), bytes(3 * CHUNK)
    (tmp_path / "data.tar.xz").write_bytes(lzma.compress(tar[:3000]) + gap + lzma.compress(tar[3000:]) + gap)
    extract(tmp_path / "data.tar.xz", tmp_path / "out")
    assert (tmp_path / "out/a/one.txt").read_bytes() == CONTENT["a/one.txt"]


def test_xz_that_asks_for_gigabytes_of_memory_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 24}]
    packed = bytearray(lzma.compress(sound_tar(), filters=filters))
    # The block's header names its filter (0x21, 1 byte of properties), the size of the dictionary, and ends in a CRC.
    place = packed.index(b"\x21\x01", 12)
    packed[place + 2] = 40
    length = (packed[12] + 1) * 4
    packed[12 + length - 4 : 12 + length] = zlib.crc32(packed[12 : 12 + length - 4]).to_bytes(4, "little")
    archive = tmp_path / "data.tar.xz"
    archive.write_bytes(packed)
    with pytest.raises(DataError, match=r"data.tar.xz: a damaged archive .*[Mm]emory"):
        extract(archive, tmp_path / "out")
    assert_nothing_unpacked(tmp_path, archive)


def test_zip_packed_with_lzma_is_refused(tmp_path):
    archive = make_zip(tmp_path / "data.zip", CONTENT, zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match="packed with LZMA"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize("extension", [".zip", ".tar"])
@pytest.mark.parametrize(
    "names",
    [["a", "a/b"], ["a/b", "a"], ["a/" * 70 + "b"], ["a/" * 3000 + "b"], ["é" * 200]],
    ids=["file with a file below", "folder as a file", "deep", "deeper", "long"],
)
def test_names_that_cannot_be(tmp_path, extension, names):
    archive = tmp_path / f"data{extension}"
    if extension == ".zip":
        make_zip(archive, dict.fromkeys(names, b"x"))
    else:
        archive.write_bytes(tar_bytes(*((tarfile.TarInfo(name), b"x") for name in names)))
    with pytest.raises(DataError, match=r"data\.(zip|tar)"):
        extract(archive, tmp_path / "out")
    assert_nothing_unpacked(tmp_path, archive)
    assert not list(tmp_path.glob(".incomplete-*"))
