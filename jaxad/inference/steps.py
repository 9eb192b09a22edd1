"""The steps below a workdir: which of them is newest, whether it is whole, and what it records.

One rule for all that reads checkpoints: the newest step counts whose files are those that were written. What is read
is compared byte by byte with the step's manifest; of the rest size and date. A step of which something is missing, as
after a copy that was cut short, is passed over with a note. Where bytes have changed in a step that was whole, callers
choose between that and an error: an older model in place of a finished one should not go unseen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from jaxad.errors import ChangedError, CheckpointError, DamagedError
from jaxad.inference.meta import check_meta
from jaxad.io.atomic import set_aside, write_whole
from jaxad.io.digests import (
    MANIFEST,
    ChangeError,
    DamageError,
    Manifest,
    read_manifest,
    read_object,
    read_sealed,
    sealed,
)
from jaxad.io.places import check_storable

FORMAT = 3
FOLDER = "checkpoints"
COMPLETE = "complete.json"
DEPTH = 6
"""Folders below a given one that are looked through for runs."""
META, TRAINING = "meta/metadata", "training"
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """A step on disk whose files all have the size, and what it records the bytes, that were written.

    Attributes:
        folder: of the step, under any name.
        manifest: its files.
        meta: what it records besides arrays, of the types that it must have; without complete.json.
        stripped: whether somebody has removed the folder `training`, which only a run that goes on needs.
    """

    folder: Path
    manifest: Manifest
    meta: dict[str, Any]
    stripped: bool

    @property
    def number(self) -> int:
        """Optimizer steps done."""
        return self.meta["step"]

    @property
    def items(self) -> set[str]:
        """Folders that the step has: of "model", "backbone", "training" and "meta"."""
        return {name.split("/")[0] for name in self.manifest.files}

    def check(self, *items: str) -> None:
        """Compares every byte of these items, or without any of the whole step, with what was written.

        Raises:
            DamagedError: they are not the same; names each file.
            CheckpointError: they cannot be read.
        """
        with _explained(self.folder):
            self.manifest.check(lambda name: not items or name.split("/")[0] in items)

    def size(self, item: str) -> int:
        """Bytes of an item on disk."""
        return sum(file.bytes for name, file in self.manifest.files.items() if name.split("/")[0] == item)

    def ending(self) -> dict[str, Any]:
        """What complete.json says: "complete", "threshold", and "false_alarm" where the rate asked for is recorded.

        Empty where the run was not at its end.

        Raises:
            DamagedError: the file is damaged, or of another step.
            CheckpointError: it cannot be read.
        """
        record = self._end
        return {name: record[name] for name in ("complete", "threshold", "false_alarm") if name in record}

    def holdout(self) -> dict[str, Any] | None:
        """The scores of the hold-out in complete.json, as `HoldoutScores.to_json` gives them.

        None where there was no hold-out, and of runs of older versions, which did not keep them.

        Raises:
            DamagedError, CheckpointError: as `ending`.
        """
        return self._end.get("holdout")

    @cached_property
    def _end(self) -> dict[str, Any]:
        file = self.folder / COMPLETE
        with _explained(self.folder):
            # A link that leads nowhere is damage, not absence.
            if not file.exists() and not file.is_symlink():
                return {}
            record = read_sealed(file)
            parts = (record.setdefault("threshold", None), record.get("holdout"))
            if record.get("of") != self.manifest.seal or not all(isinstance(part, dict | None) for part in parts):
                raise DamageError(f"{file}: is of another step")
            if not isinstance(record.get("false_alarm", 0.0), int | float):
                raise DamageError(f"{file}: its false_alarm is no number")
        return {**record, "complete": True}

    def end(
        self, threshold: dict[str, Any] | None, holdout: dict[str, Any] | None = None, false_alarm: float | None = None
    ) -> None:
        """Writes complete.json, whole or not at all: rule, scores that it was chosen from and the rate asked for."""
        if (file := self.folder / COMPLETE).is_dir():
            set_aside(file, "complete-damaged.json")
        rate = {} if false_alarm is None else {"false_alarm": false_alarm}
        record = {"complete": True, "threshold": threshold, **rate, "holdout": holdout, "of": self.manifest.seal}
        write_whole(file, sealed(record))
        self.__dict__.pop("_end", None)


def open_step(folder: Path) -> Step:
    """The step in a folder.

    Raises:
        DamagedError: files are missing or changed; names each.
        CheckpointError: of another format than this version reads, of wrong types, or not to be read.
    """
    with _explained(folder):
        _check_age(folder)
        manifest = read_manifest(folder)
        all_files = manifest.files
        if not os.path.lexists(folder / TRAINING):
            kept = {name: file for name, file in all_files.items() if not name.startswith(f"{TRAINING}/")}
            manifest = replace(manifest, files=kept)
        manifest.check(lambda name: name == META)
        if META not in manifest.files:
            raise DamageError(f"{folder / META}: is missing")
        meta = read_object(folder / META)
    _check_format(folder, meta)
    check_meta(meta, folder / META, of_detector=any(name.startswith("model/") for name in manifest.files))
    if manifest.about.get("step") != meta["step"]:
        raise DamagedError(f"{folder}: damaged checkpoint: {MANIFEST} is of step {manifest.about.get('step')}")
    return Step(folder, manifest, meta, len(manifest.files) < len(all_files))


def newest(checkpoint: Path | str, read: Callable[[Step], T], *, changed: bool = True) -> tuple[T, tuple[str, ...]]:
    """What `read` makes of the newest step that it can read, and a note for each newer one that is damaged.

    Args:
        checkpoint: a workdir, or one step's folder under any name.
        read: raises `DamagedError` where a step is damaged.
        changed: whether to pass over steps too that were whole once, and have since been changed in their place.

    Raises:
        DamagedError: no step is whole.
        ChangedError: a newer step was changed.
        CheckpointError: there is none, or what `read` raises.
    """
    folders, passed = step_folders(checkpoint), []
    for folder in folders:
        try:
            step = open_step(folder)
            check_named(step)
            return read(step), tuple(f"{fault}; passed over for step {step.number}" for fault in passed)
        except DamagedError as error:
            if isinstance(error, ChangedError) and not changed and len(folders) > 1:
                mend = "name an older step's folder, or run the same `jaxad fit` again"
                raise ChangedError(f"{error}; {mend}") from error
            passed.append(str(error))
    if len(passed) == 1:
        raise DamagedError(passed[0])
    raise DamagedError("\n  ".join([f"{checkpoint}: no step is whole; fit anew, or restore a copy:", *passed]))


def step_folders(checkpoint: Path | str) -> list[Path]:
    """The folders of the steps that `checkpoint` names, newest first: those of a workdir, or one step's own.

    Raises:
        ConfigError: its path is not UTF-8, which what reads arrays asks for.
        CheckpointError: nothing there, or no step.
    """
    check_storable("checkpoint", checkpoint)
    folder = Path(checkpoint).absolute()
    root = folder / FOLDER
    if not root.is_dir():
        marked = (folder / MANIFEST).is_file() or (folder / "meta").is_dir()
        if marked or (is_step_name(folder.name) and folder.is_dir()):
            return [folder]
        raise CheckpointError(
            f"{checkpoint}: no checkpoint there; give the workdir of a `jaxad fit`, or a step's folder"
        )
    if not (folders := numbered(root)):
        raise CheckpointError(f"{root}: no step was completed; run `jaxad fit` again with the same workdir to go on")
    return folders


def runs_below(folder: Path, depth: int = DEPTH) -> list[Path]:
    """Workdirs of runs in a folder that is no run itself, in the order of their numbers; those of a run are none.

    Links are not followed, as what they lead to has another place.
    """
    if is_run(folder) or not depth:
        return []
    return [run for path in folders_in(folder) for run in ([path] if is_run(path) else runs_below(path, depth - 1))]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, neither links nor hidden ones, in the order of their numbers."""
    inner = [path for path in folder.glob("[!.]*") if path.is_dir() and not path.is_symlink()]
    return sorted(inner, key=lambda path: number_order(path.name))


def is_run(folder: Path) -> bool:
    """Whether a folder is the workdir of a run that has saved steps, or a step itself."""
    return any((folder / name).exists() for name in (FOLDER, COMPLETE, MANIFEST))


def number_order(name: str) -> list[tuple[int, str]]:
    """Sorts names in the order of their numbers, not of their digits: seed-2 comes before seed-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def numbered(root: Path) -> list[Path]:
    """What has the name of a step in a folder, highest number first."""
    try:
        named = [path for path in root.iterdir() if is_step_name(path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{root}: cannot be read: {error.strerror}") from error
    return sorted(named, key=lambda path: -int(path.name))


def check_named(step: Step) -> None:
    """Raises DamagedError where a step in a run's folder `checkpoints` has another's name; elsewhere any will do."""
    folder = step.folder
    if folder.parent.name == FOLDER and is_step_name(folder.name) and folder.name != str(step.number):
        raise DamagedError(f"{folder}: damaged checkpoint: holds step {step.number}")


def set_aside_damaged(root: Path) -> list[str]:
    """Renames what has the name of a step and is none, or a damaged one, to `damaged-STEP`; nothing is deleted.

    Of the newest whole step every byte is compared, of the others size and date.

    Args:
        root: the folder `checkpoints` of a run.

    Returns:
        What was renamed and why, for the user.

    Raises:
        CheckpointError: a step cannot be read or renamed for reasons that can be mended, or is of another format.
    """
    told, found = [], False
    for folder in numbered(root):
        try:
            step = open_step(folder)
            check_named(step)
            if step.stripped and not step.ending():
                raise DamagedError(f"{folder}: damaged checkpoint: {folder / TRAINING}: is missing")
            if not found:
                step.check()
            found = True
            _mend_times(folder)
        except DamagedError as error:
            told.append(f"{error}; set aside as {_set_aside(folder).name}")
    return told


def _set_aside(folder: Path) -> Path:
    try:
        return set_aside(folder, f"damaged-{folder.name}")
    except OSError as error:
        raise CheckpointError(f"{folder}: is damaged and cannot be renamed ({error.strerror}); remove it") from error


def _mend_times(folder: Path) -> None:
    """Removes Orbax's note of when it wrote a step where it is damaged: Orbax gets by without, but not with such."""
    with _explained(folder):
        try:
            read_object(folder / "_CHECKPOINT_METADATA")
        except DamageError:
            (folder / "_CHECKPOINT_METADATA").unlink(missing_ok=True)


def is_step_name(name: str) -> bool:
    """Whether a folder's name is that of a step: its number, without leading zeros."""
    return name.isascii() and name.isdecimal() and len(name) < 19 and str(int(name)) == name


def _check_format(folder: Path, meta: Mapping[str, Any]) -> None:
    if (found := meta.get("format")) != FORMAT and isinstance(found, int):
        mend = "upgrade jaxad" if found > FORMAT else "fit anew"
        raise CheckpointError(f"{folder}: format {found}, but this jaxad reads {FORMAT}; {mend}")


def _check_age(folder: Path) -> None:
    """Refuses steps of older versions, which had no manifest and are not damaged for it."""
    if not (folder / MANIFEST).exists():
        with suppress(DamageError):
            _check_format(folder, read_object(folder / META))


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except DamageError as error:
        kind = ChangedError if isinstance(error, ChangeError) else DamagedError
        raise kind(f"{folder}: damaged checkpoint: {error}") from error
    except OSError as error:
        where = error.filename or folder
        raise CheckpointError(f"{where}: cannot be read: {error.strerror}; mend that, nothing is lost") from error
