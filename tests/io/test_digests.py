import hashlib
import json
import os

import pytest

from jaxad.io import digests
from jaxad.io.digests import (
    MANIFEST,
    ChangeError,
    DamageError,
    read_manifest,
    read_object,
    read_sealed,
    sealed,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "item").mkdir()
    (tmp_path / "item" / "data").write_bytes(bytes(range(100)))
    (tmp_path / "small").write_bytes(b"x")
    write_manifest(tmp_path, ["small", "item/data"], step=4)
    return tmp_path


def keep_date(file, change):
    status = file.stat()
    change(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_was_written_is_found_again(folder):
    manifest = read_manifest(folder)
    assert (manifest.about, manifest.bytes, sorted(manifest.files)) == ({"step": 4}, 101, ["item/data", "small"])
    manifest.check()
    (folder / "another").write_text("is nobody's business")
    manifest.check()


def test_bytes_are_compared_where_asked_and_where_dates_differ(folder):
    file, manifest = folder / "item" / "data", read_manifest(folder)
    keep_date(file, lambda file: file.write_bytes(bytes(100)))
    manifest.check(lambda name: name == "small")
    for check in (manifest.check, lambda: (os.utime(file), manifest.check(lambda name: False))):
        with pytest.raises(ChangeError, match=str(file)):
            check()
    # A copy has other dates and the same bytes.
    os.utime(folder / "small", (0, 0))
    with pytest.raises(ChangeError) as error:
        manifest.check()
    assert "small" not in str(error.value)


def test_all_faults_are_named_and_what_is_missing_was_not_changed(folder):
    manifest = read_manifest(folder)
    (folder / "item" / "data").write_bytes(b"shorter")
    (folder / "small").unlink()
    with pytest.raises(DamageError, match=r"small.*missing") as error:
        manifest.check(lambda name: False)
    assert "7 bytes, of 100" in str(error.value)
    assert not isinstance(error.value, ChangeError)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", "", "a\\b", "a\0b"])
def test_names_may_not_lead_out(folder, name):
    record = json.loads((folder / MANIFEST).read_text())
    record.pop("sha256")
    record["files"] = {name: {"sha256": "0" * 64, "bytes": 1, "changed": 1}}
    (folder / MANIFEST).write_text(sealed(record))
    with pytest.raises(DamageError, match="lists no files"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("content", "kind"),
    [("", DamageError), ("[]", ChangeError), ("{", ChangeError), ("[" * 100_000, ChangeError), ("{}", ChangeError)],
)
def test_manifests_that_are_none(folder, content, kind):
    (folder / MANIFEST).write_text(content)
    with pytest.raises(DamageError, match=MANIFEST) as error:
        read_manifest(folder)
    assert type(error.value) is kind


def test_every_value_of_a_sealed_file_counts(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(sealed({"limit": 0.1, "names": ["ü"]}))
    assert read_sealed(file) == {"limit": 0.1, "names": ["ü"], "sha256": json.loads(file.read_text())["sha256"]}
    file.write_text(file.read_text().replace("0.1", "0.2"))
    with pytest.raises(ChangeError, match=str(file)):
        read_sealed(file)


def test_json_is_read_up_to_a_size_and_from_files_alone(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    file.write_text('{"a": 1}')
    monkeypatch.setattr(digests, "MOST_JSON", 7)
    with pytest.raises(DamageError, match="more than"):
        read_object(file)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DamageError, match="no file"):
        read_object(pipe)


def test_what_can_be_mended_is_no_damage(folder, monkeypatch):
    def refuse(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(digests, "digest", refuse)
    with pytest.raises(PermissionError):
        read_manifest(folder).check()


def test_a_file_that_was_compared_is_not_read_again_until_it_changes(folder, monkeypatch):
    read, real = [], digests.digest
    monkeypatch.setattr(digests, "digest", lambda file: read.append(file.name) or real(file))
    manifest = read_manifest(folder)
    for _ in range(2):
        manifest.check()
    assert sorted(read) == ["data", "small"]
    (folder / "small").unlink()
    (folder / "small").write_bytes(b"y")
    with pytest.raises(ChangeError, match="small"):
        manifest.check()


def test_digests_are_of_all_files_and_of_what_they_hold_now(tmp_path):
    one, two = (tmp_path / name for name in "ab")
    one.write_bytes(b"abc")
    two.write_bytes(b"def")
    for digest in (digests.digest, digests.digest_once, digests.digest_once):
        assert digest(one, two) == hashlib.sha256(b"abcdef").hexdigest()
    two.unlink()
    two.write_bytes(b"deg and more")
    assert digests.digest_once(one, two) == hashlib.sha256(b"abcdeg and more").hexdigest()
