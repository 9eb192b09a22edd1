"""Whether what a run has stored is what it wrote: every byte of every step and of its cached features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxad.errors import CheckpointError
from jaxad.features import FEATURES
from jaxad.inference.steps import FOLDER, check_named, numbered, open_step, step_folders
from jaxad.io.digests import MANIFEST, DamageError, read_manifest, read_object
from jaxad.io.locks import LOCK, require_free
from jaxad.training.log import METRICS, PARTS, evaluations_file, read_metrics

CONFIG = "config.json"


@dataclass(frozen=True)
class Finding:
    """What was found of one part of a run.

    Attributes:
        place: file or folder.
        found: how much of it was compared.
        damage: what is wrong, naming each file; "" for nothing.
    """

    place: Path
    found: str
    damage: str = ""

    def __str__(self) -> str:
        return f"damaged: {self.damage}" if self.damage else f"{self.place}: {self.found}"


def verify(run: Path | str) -> list[Finding]:
    """Compares every byte of what a run has stored with what was written; changes nothing.

    Args:
        run: a workdir, one step's folder, or a folder of cached features.

    Raises:
        CheckpointError: there is nothing of the kind.
        ConfigError: the run is going on.
    """
    folder = Path(run).absolute()
    # A run that is going on writes and removes steps meanwhile; it locks its workdir.
    workdir = folder.parents[1] if folder.parent.name == FOLDER else folder.parent
    for place in (folder, *([workdir] if (workdir / CONFIG).is_file() else [])):
        require_free(place / LOCK, f"run = {run}")
    if not (folder / FOLDER).is_dir() and not (folder / CONFIG).is_file():
        if (folder / MANIFEST).is_file() and not (folder / "meta").is_dir():
            return [_finding(folder, _cache)]
        return [_finding(step, _step) for step in step_folders(folder)]
    parts: list[tuple[Path, Callable[[Path], str]]] = [(step, _step) for step in numbered(folder / FOLDER)]
    if (folder / FEATURES).is_dir():
        parts.append((folder / FEATURES, _cache))
    parts += [(folder / CONFIG, _config), (folder / METRICS, _metrics)]
    parts += [(file, _metrics) for file in map(folder.joinpath, map(evaluations_file, PARTS)) if file.exists()]
    notes = [] if numbered(folder / FOLDER) else [Finding(folder / FOLDER, "no step was completed")]
    aside = sorted((folder / FOLDER).glob("damaged-*"))
    notes += [Finding(path, "set aside as damaged, not compared") for path in aside]
    return [_finding(*part) for part in parts] + notes


def _finding(place: Path, examine: Callable[[Path], str]) -> Finding:
    try:
        return Finding(place, examine(place))
    except (CheckpointError, DamageError) as error:
        return Finding(place, "", str(error))
    except OSError as error:
        return Finding(place, "", f"{place}: cannot be read: {error.strerror}")


def _step(folder: Path) -> str:
    step = open_step(folder)
    check_named(step)
    step.check()
    without = "; the folder training was removed" if step.stripped else ""
    end = "; the run's last" if step.ending() else ""
    return f"{_amount(len(step.manifest.files), step.manifest.bytes)}{without}{end}"


def _cache(folder: Path) -> str:
    if not (folder / MANIFEST).exists():
        return "unfinished; fit computes the features anew"
    manifest = read_manifest(folder)
    manifest.check()
    return _amount(len(manifest.files), manifest.bytes)


def _config(file: Path) -> str:
    read_object(file)
    return "can be read"


def _metrics(file: Path) -> str:
    if not file.exists():
        return "not there; not every detector trains"
    return f"{len(read_metrics(file))} rows can be read"


def _amount(files: int, size: int) -> str:
    return f"{files} file{'s' if files > 1 else ''}, {size / 1e6:,.1f} MB, all as written"
