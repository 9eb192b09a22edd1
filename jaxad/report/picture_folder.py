"""The pictures of all test images that `jaxad evaluate --save` leaves beside its report.

    OUT/pictures/pictures.json      which words they are of, and of which checkpoint
    OUT/pictures/overlay/NAME.jpg   and so on, as `jaxad predict` names them (`jaxad.report.prediction_folder`)

NAME is the image's path below the folder that all images share. The folder takes its place as a whole, once the last
picture is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxad.data.layout.results import LIST, PICTURES
from jaxad.errors import ConfigError
from jaxad.inference.answer import Answer
from jaxad.inference.predictor import Output
from jaxad.inference.threshold import Threshold
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.scratch import scratch
from jaxad.io.signals import held
from jaxad.io.threads import map_threads
from jaxad.report.prediction_folder import WRITERS, picture_names, write_pictures
from jaxad.types import Source

PREFIX = ".pictures-"
"""Of hidden folders of pictures that are not complete."""


class PictureFolder:
    """Writes pictures of predictions that pass through, and puts them in place on leaving without an error.

    Args:
        out: folder of the report; made if missing.
        source: the images.
        save: words for pictures (`jaxad.report.prediction_folder.write_pictures`).
        threshold: outlines what is above it and sets the scale of colors; None gives each map a scale of its own.
        model: which one judges, JSON-ready.

    Raises:
        ConfigError: on entering: pictures would replace a folder that jaxad did not write.
    """

    def __init__(
        self,
        out: Path,
        source: Source,
        *,
        save: Sequence[str],
        threshold: Threshold | None = None,
        model: Mapping[str, Any] | None = None,
    ):
        self.place, self._source, self._save, self._threshold = out / PICTURES, source, save, threshold
        self._list = {"save": list(save), "model": model}
        self._names = picture_names([record.file for record in source.records]) if len(source) else []

    def __enter__(self) -> PictureFolder:
        if self.place.exists() and not (self.place / LIST).is_file():
            raise ConfigError(
                f"out = {self.place.parent}: its {PICTURES} did not come from jaxad; choose another folder"
            )
        self.place.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._scratch = stack.enter_context(scratch(self.place.parent, PREFIX, self._finish))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        with self._stack:
            if kind is None:
                with held():
                    # The list comes last: where it is, all pictures are.
                    write_whole(self._scratch / PICTURES / LIST, f"{json_text(self._list, indent=2)}\n")
                    self._finish(self._scratch)

    def passing(self, outputs: Iterable[Output]) -> Iterator[Output]:
        """Predictions with their images, each handed on once its pictures are written; threads draw and write.

        Only as many are taken ahead as hold the few images that threads have begun.
        """
        images = ((output, place) for output in outputs for place in range(len(output.scores)))
        for output, place in map_threads(self._write, images, WRITERS):
            if place == len(output.scores) - 1:
                yield output

    def _write(self, image: tuple[Output, int]) -> tuple[Output, int]:
        """Writes the pictures of an image, the one at a place in its batch."""
        output, place = image
        loaded, seen = output.loaded, output.detail(place)
        record, index, original = loaded.records[place], loaded.indices[place], loaded.originals[place]
        # With several hosts, another one may have decoded it.
        original = self._source[index].image if original is None else original
        score, explained = float(output.scores[place]), output.explanations[place] if output.explanations else None
        known = str(record.file), record.category, score, original, self._threshold, ""
        answer = Answer(*known, seen.map, seen.inside, explained)
        write_pictures(self._scratch / PICTURES, self._names[index], answer, self._save, "npy")
        return image

    def _finish(self, place: Path) -> None:
        """Puts whole pictures in place of earlier ones; goes on where a process was killed at that."""
        if (place / PICTURES / LIST).is_file():
            if self.place.exists():
                os.replace(self.place, place / "old")
            os.replace(place / PICTURES, self.place)
