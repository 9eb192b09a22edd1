"""Ways in which the newest step of a run may be damaged, and what is to come of each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BEFORE, SAME, NO_THRESHOLD, WHY = "the step before", "the same step", "the same step, no threshold", "says why not"


class Kind(NamedTuple):
    """One way.

    Attributes:
        damage: does it to the newest step's folder.
        judged: what `evaluate` and `predict` then use.
        fitted: what `fit` then goes on from.
        changed: whether the bytes of a finished step have changed, so that `jaxad.restore` asks.
    """

    damage: Callable[[Path], object]
    judged: str = BEFORE
    fitted: str = BEFORE
    changed: bool = False


def biggest(folder: Path) -> Path:
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def before(step: Path) -> Path:
    """The folder of the step before."""
    return step.with_name("8")


def write(step: Path, name: str, content: bytes | str) -> None:
    (step / name).write_bytes(content.encode() if isinstance(content, str) else content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def flip(file: Path, *, keep_date: bool = False, bit: int = 3) -> None:
    status, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1 << bit
    file.write_bytes(content)
    if keep_date:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def replace(path: Path, other: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(other, path) if other.is_dir() else shutil.copyfile(other, path)


def swap(step: Path) -> None:
    for old, new in (("model", "m"), ("backbone", "model"), ("m", "backbone")):
        (step / old).rename(step / new)


def link_out(file: Path) -> None:
    other = file.parents[5] / "elsewhere"
    file.rename(other)
    file.symlink_to(other)


def to_link(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to("nowhere")


def to_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def lead_out(step: Path) -> None:
    manifest = json.loads((step / "manifest.json").read_text())
    manifest["files"]["../../../../passwd"] = {"sha256": "0" * 64, "bytes": 1, "changed": 1}
    write(step, "manifest.json", json.dumps(manifest))


def other_digest(step: Path) -> None:
    text = (step / "manifest.json").read_text()
    digest = json.loads(text)["files"]["model/_METADATA"]["sha256"]
    write(step, "manifest.json", text.replace(digest, digest[::-1]))


def other_limit(step: Path) -> None:
    record = json.loads((step / "complete.json").read_text())
    record["threshold"]["limits"][""]["image"] *= 2
    write(step, "complete.json", json.dumps(record))


def strays(step: Path) -> None:
    (step / ".DS_Store").write_bytes(b"\0\1")
    (step / "model" / "@eaDir").mkdir()
    (step / "model" / "@eaDir" / "x").write_text("x")
    (step.parent / "notes.txt").write_text("keep")
    (step.parent / "0016").mkdir()
    (step.parent / "best").mkdir()


def touch(step: Path) -> None:
    for file in step.rglob("*"):
        os.utime(file, (1, 1))


def beside(step: Path, *, stray: bool = False) -> None:
    folder = step.with_name("16")
    folder.mkdir()
    if stray:
        (folder / "thesis.tex").write_text("keep")


KINDS: dict[str, Kind] = {
    "model: data cut in half": Kind(lambda s: cut(biggest(s / "model"))),
    "model: data emptied": Kind(lambda s: biggest(s / "model").write_bytes(b"")),
    "model: data missing": Kind(lambda s: biggest(s / "model").unlink()),
    "model: data zero-filled": Kind(
        lambda s: biggest(s / "model").write_bytes(bytes(biggest(s / "model").stat().st_size)), changed=True
    ),
    "model: a bit changed": Kind(lambda s: flip(biggest(s / "model")), changed=True),
    "model: a bit changed, date kept": Kind(lambda s: flip(biggest(s / "model"), keep_date=True), changed=True),
    "model: data a byte longer": Kind(lambda s: grow(biggest(s / "model"))),
    "model: a folder in place of data": Kind(lambda s: to_folder(biggest(s / "model"))),
    "model: a link to nowhere in place of data": Kind(lambda s: to_link(biggest(s / "model"))),
    "model: a link out of the run in place of data": Kind(lambda s: link_out(biggest(s / "model"))),
    "model: _METADATA missing": Kind(lambda s: (s / "model/_METADATA").unlink()),
    "model: _METADATA another JSON": Kind(lambda s: write(s, "model/_METADATA", "[]")),
    "model: manifest.ocdbt cut in half": Kind(lambda s: cut(s / "model/manifest.ocdbt")),
    "model: ocdbt.process_0 missing": Kind(lambda s: shutil.rmtree(s / "model/ocdbt.process_0")),
    "model: folder missing": Kind(lambda s: shutil.rmtree(s / "model")),
    "model: folder emptied": Kind(lambda s: empty(s / "model")),
    "model: a link to nowhere in place of the folder": Kind(lambda s: to_link(s / "model")),
    "model: that of the step before": Kind(lambda s: replace(s / "model", before(s) / "model")),
    "backbone: data cut in half": Kind(lambda s: cut(biggest(s / "backbone"))),
    "backbone: a bit changed": Kind(lambda s: flip(biggest(s / "backbone")), changed=True),
    "backbone: folder missing": Kind(lambda s: shutil.rmtree(s / "backbone")),
    "model and backbone swapped": Kind(swap),
    "training: data cut in half": Kind(lambda s: cut(biggest(s / "training"))),
    "training: a bit changed": Kind(lambda s: flip(biggest(s / "training")), changed=True),
    "training: a bit changed, date kept": Kind(lambda s: flip(biggest(s / "training"), keep_date=True), judged=SAME),
    "training: folder removed": Kind(lambda s: shutil.rmtree(s / "training"), SAME, SAME),
    "training: folder emptied": Kind(lambda s: empty(s / "training")),
    "training: that of the step before": Kind(lambda s: replace(s / "training", before(s) / "training")),
    "meta: missing": Kind(lambda s: (s / "meta/metadata").unlink()),
    "meta: cut in half": Kind(lambda s: cut(s / "meta/metadata")),
    "meta: no JSON": Kind(lambda s: write(s, "meta/metadata", "step: 12")),
    "meta: not UTF-8": Kind(lambda s: write(s, "meta/metadata", b'{"step": "\xe4"}')),
    "meta: nested 100,000 deep": Kind(lambda s: write(s, "meta/metadata", "[" * 100_000)),
    "meta: that of the step before": Kind(lambda s: replace(s / "meta", before(s) / "meta")),
    "meta: a setting changed by hand": Kind(lambda s: edit(s / "meta/metadata", false_alarm=0.5)),
    "manifest: missing": Kind(lambda s: (s / "manifest.json").unlink()),
    "manifest: emptied": Kind(lambda s: write(s, "manifest.json", "")),
    "manifest: cut in half": Kind(lambda s: cut(s / "manifest.json"), changed=True),
    "manifest: that of the step before": Kind(lambda s: replace(s / "manifest.json", before(s) / "manifest.json")),
    "manifest: leads out of the run": Kind(lead_out, changed=True),
    "manifest: another digest": Kind(other_digest, changed=True),
    "step: emptied": Kind(empty),
    "step: a file in its place": Kind(to_file),
    "step: a link to nowhere in its place": Kind(to_link),
    "step: the one before under its name": Kind(lambda s: replace(s, before(s))),
    "step: renamed to a higher number": Kind(lambda s: s.rename(s.with_name("16"))),
    "a higher number: an empty folder": Kind(beside, SAME, SAME),
    "a higher number: a folder with other files": Kind(lambda s: beside(s, stray=True), SAME, SAME),
    "end: complete.json cut in half": Kind(lambda s: cut(s / "complete.json"), NO_THRESHOLD, SAME),
    "end: another limit in complete.json": Kind(other_limit, NO_THRESHOLD, SAME),
    "end: a folder in place of complete.json": Kind(lambda s: to_folder(s / "complete.json"), NO_THRESHOLD, SAME),
    "Orbax's times: no JSON object": Kind(lambda s: write(s, "_CHECKPOINT_METADATA", "[]"), SAME, SAME),
    "Orbax's commit_success.txt missing": Kind(lambda s: (s / "commit_success.txt").unlink(), SAME, SAME),
    "other files and folders beside": Kind(strays, SAME, SAME),
    "all dates changed, as in a copy": Kind(touch, SAME, SAME),
    "a bad sector (EIO)": Kind(lambda s: None),
    "no permission (EACCES)": Kind(lambda s: None, WHY, WHY),
}
"""By name; the last two are made by the test, which need not be root."""
