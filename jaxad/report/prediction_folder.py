"""The folder that `jaxad predict` leaves: predictions.jsonl, and overlays, maps and masks at each image's own size.

    DIR/predictions.jsonl       one line of JSON for each image
    DIR/predictions.csv         the same as a table, in which images that were left out have a line too, with the reason
    DIR/problems.jsonl          one line (file, kind, detail) for each reason why an image was left out, if any was
    DIR/index.html              the worst images first, in one file (`jaxad.report.prediction_page`)
    DIR/model.json              which model judged (`jaxad.inference.checkpoint.Restored.identity`), if it is known
    DIR/overlay/NAME.jpg        the image under its heat, with what lies above the pixel limit outlined
    DIR/map/NAME.npy or .tiff   float32, unscaled
    DIR/mask/NAME.png           0 and 255
    DIR/explained/WORD/NAME     pictures of the method (`jaxad.inference.method`): .jpg of what is colored, else .png;
                                those of several parts lie in WORD/PART

NAME is the image's path below the folder that all images share, so that equal file names from several folders do not
collide. Results of an earlier run in DIR stay as they are until the new ones are complete, and then give way to them.
One process at a time writes to DIR; what one that was killed left half done there, the next one ends or removes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from jaxad.data.layout.results import EXPLAINED, KINDS, LINES
from jaxad.errors import ConfigError, Problem
from jaxad.inference.answer import Answer
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.locks import occupied
from jaxad.io.pictures import encode_picture
from jaxad.io.scratch import scratch
from jaxad.io.signals import held
from jaxad.io.text import name_text
from jaxad.io.threads import map_threads
from jaxad.report.images import save_map, save_mask
from jaxad.report.prediction_page import Worst
from jaxad.report.prediction_rows import answer_cells, problem_cells, problem_row, table_line

PROBLEMS, TABLE, PAGE, MODEL = "problems.jsonl", "predictions.csv", "index.html", "model.json"
STAMP = "stamp"
"""The key that lines of a watched folder (`jaxad.report.watched_folder`) have and others have not."""
JUDGED = "judged"
"""The key of the time at which such a line was written."""
PREFIX = ".predict-"
"""Of hidden folders of results that are not complete."""
WRITERS = 2
"""Threads that draw and write pictures; each holds three images and their maps at most."""
_COLORED = ("heatmap", "features", "terms")
"""Words for pictures in colors that nobody measures."""
LONGEST = 240
"""Bytes of a name, of the 255 that file systems take."""


class PredictionFolder:
    """Collects predictions in a hidden folder inside `folder` and puts them in place on leaving without an error.

    Args:
        folder: made if missing; may hold earlier results, which are replaced as a whole.
        files: the images, in the order in which they will be added; those that are not added are left out.
        save: words for pictures to write (`write_pictures`).
        map_format: of raw maps.
        model: which one judges, JSON-ready; None where that is not known.

    Raises:
        ConfigError: on entering: the folder cannot be written, another process uses it, or results would replace files
            that jaxad did not write, or the images themselves.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        *,
        save: Sequence[str] = ("overlay",),
        map_format: Literal["npy", "tiff"] = "npy",
        model: Mapping[str, Any] | None = None,
    ):
        self.folder, self._save, self._map_format, self._model = folder, save, map_format, model
        self._files = files
        self._names = dict(zip(map(str, files), picture_names(files), strict=True))
        self._lines: list[str] = []
        self._table = [table_line()]
        self._problems: list[dict[str, str]] = []
        self._worst = Worst()

    def __enter__(self) -> PredictionFolder:
        with ExitStack() as stack:
            stack.enter_context(occupied(self.folder, "folder"))
            self._scratch = stack.enter_context(scratch(self.folder, PREFIX, self._finish))
            _check(self.folder, self._files)
            for kind in KINDS:
                (self._scratch / "new" / kind).mkdir(parents=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        with self._stack:
            if kind is None:
                with held():
                    new = self._scratch / "new"
                    write_whole(new / PROBLEMS, "".join(f"{json_text(row)}\n" for row in self._problems))
                    write_whole(new / TABLE, "".join(self._table))
                    write_whole(new / PAGE, self._worst.page(self._model, self._problems))
                    write_whole(new / MODEL, f"{json_text(self._model, indent=2)}\n" if self._model else "")
                    write_whole(new / LINES, "".join(f"{line}\n" for line in self._lines))
                    self._finish(self._scratch)

    def leave_out(self, problems: Sequence[Problem]) -> None:
        """Notes why images of `files` are not added."""
        self._problems += map(problem_row, problems)
        self._table += (table_line(problem_cells(problem)) for problem in problems)

    def add(self, found: Iterable[Answer]) -> Iterator[Answer]:
        """Takes answers, as `jaxad.Inspector.stream` gives them.

        Threads draw and write pictures while the next images are judged.

        Yields:
            The answers, each when its pictures are written.
        """
        for answer, line, row in map_threads(self._write, found, WRITERS):
            self._lines.append(line)
            self._table.append(row)
            yield answer

    def _write(self, answer: Answer) -> tuple[Answer, str, str]:
        """Writes the pictures of an image; its lines."""
        name, new = self._names[answer.file], self._scratch / "new"
        write_pictures(new, name, answer, self._save, self._map_format)
        self._worst.add(answer, f"overlay/{name}.jpg" if "overlay" in self._save else "")
        return answer, json_text(answer.to_json()), table_line(answer_cells(answer))

    def _finish(self, place: Path) -> None:
        """Puts complete results in place of earlier ones; goes on where a process was killed at that."""
        new, old = place / "new", place / "old"
        if not (new / LINES).is_file():
            return
        old.mkdir(exist_ok=True)
        for kind in KINDS:
            # What is still there has not taken its place; where it is empty, this run has no such pictures.
            if not (new / kind).is_dir():
                continue
            if (self.folder / kind).exists():
                os.replace(self.folder / kind, old / kind)
            if any((new / kind).iterdir()):
                os.replace(new / kind, self.folder / kind)
            else:
                (new / kind).rmdir()
        # The lines come last: where they are new, all else is.
        for file in (PROBLEMS, TABLE, PAGE, MODEL):
            if (new / file).is_file():
                if (new / file).stat().st_size:
                    os.replace(new / file, self.folder / file)
                else:
                    (self.folder / file).unlink(missing_ok=True)
        os.replace(new / LINES, self.folder / LINES)


def write_pictures(folder: Path, name: str, answer: Answer, save: Sequence[str], map_format: str) -> None:
    """Writes the pictures of an image, of the words `save`, under a name in the folders of these words.

    Words are `overlay`, `map`, `mask`, and those of `Answer.pictures`.
    """
    if "overlay" in save:
        write_whole(folder / "overlay" / f"{name}.jpg", encode_picture(answer.overlay, ".jpg"))
    if "map" in save:
        save_map(folder / "map" / f"{name}.{map_format}", answer.map)
    if "mask" in save and answer.mask is not None:
        save_mask(folder / "mask" / f"{name}.png", answer.mask)
    for word in (word for word in save if word not in KINDS):
        suffix = ".jpg" if word in _COLORED else ".png"
        for part, picture in answer.pictures(word).items():
            place = folder / EXPLAINED / word / part.replace(" ", "-")
            write_whole(place / f"{name}{suffix}", encode_picture(picture, suffix))


def picture_names(files: Sequence[Path]) -> list[str]:
    """For each file its path below the folder that all share, without extension unless that tells two files apart.

    Names are text (`jaxad.io.text`) that every file system takes; one that is too long for that ends in a hash.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]
    shared = os.path.commonpath([file.parent for file in absolute])
    relative = [file.relative_to(shared) for file in absolute]
    holders = Counter(path.with_suffix("") for path in set(relative))
    own = [path if holders[path.with_suffix("")] > 1 else path.with_suffix("") for path in relative]
    return ["/".join(map(fitting_name, path.parts)) for path in own]


def fitting_name(part: str) -> str:
    """A part of a path as text that has room for the extension of a picture."""
    name = name_text(part)
    encoded = name.encode()
    if len(encoded) <= LONGEST:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: LONGEST - 17].decode(errors='ignore')}-{digest}"


def _check(folder: Path, files: Sequence[Path]) -> None:
    present = [folder / name for name in (*KINDS, PROBLEMS, TABLE, PAGE, MODEL) if (folder / name).exists()]
    if present and not (folder / LINES).is_file():
        names = " and ".join(map(str, present))
        raise ConfigError(
            f"folder = {folder}: {names} would be replaced but did not come from jaxad; choose another folder"
        )
    if _is_watched(folder):
        raise ConfigError(f"folder = {folder}: holds the results of a watched folder; choose another folder")
    replaced = [path.resolve() for path in present]
    inputs = [str(file) for file in files if any(file.resolve().is_relative_to(path) for path in replaced)]
    if inputs:
        raise ConfigError(
            f"folder = {folder}: would replace the images to judge, {inputs[0]} first; choose another folder"
        )


def _is_watched(folder: Path) -> bool:
    """Whether a folder holds lines to which further ones are added."""
    with suppress(OSError, ValueError), (folder / LINES).open("rb") as stream:
        return STAMP in json.loads(stream.readline(2**20))
    return False
