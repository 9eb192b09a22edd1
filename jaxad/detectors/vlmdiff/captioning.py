"""Captions of the images of a data set in the published layout, made by any captioner."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxad.data.captions.attach import Captions
from jaxad.data.captions.writing import SETTINGS, CaptionFiles
from jaxad.errors import DataError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import read_object
from jaxad.io.locks import LOCK, locked, require_free
from jaxad.io.places import expanded
from jaxad.io.progress import Reporter
from jaxad.io.threads import map_threads
from jaxad.models.captioner.hugging_face import Captioner
from jaxad.types import Source

PROMPTS = {
    "pd": "Describe the visual features of image in detail with a focus on the main object, with around 60 words and "
    "maybe 4 or 5 sentences.",
    "pa": "Be a pixel level visual defect inspector, and describe whether there is a defect or not on the main object "
    "itself, with around 60 words and maybe 4 or 5 sentences.",
    "coco": "Describe the visual features of image in detail, with around 60 words and maybe 4 or 5 sentences.",
}
"""The published prompts, by the names that published folders have."""

NUMBERED = ("coco", "coco_ad")
"""Data sets whose published labels are image numbers."""

PATIENCE = 1500
"""Times, 0.02 seconds apart, that shards ask for a lock that others of them hold for a moment."""
LONGEST = 60
"""Characters of categories' names in the name of a folder; longer ones are replaced by their number and a hash."""


@dataclass(frozen=True)
class Captioned:
    """What `caption` leaves.

    Attributes:
        folder: the captions, for `Captions.load`.
        captions: as they are read back from there; None as long as those of other shards are missing.
        empty: images whose caption is empty, among `captions`.
    """

    folder: Path
    captions: Captions | None
    empty: tuple[str, ...]


def caption(
    source: Source,
    captioner: Callable[[], Captioner],
    *,
    out_dir: Path | str,
    data: str,
    model: str,
    prompt: str,
    split: str = "train",
    max_new_tokens: int = 1024,
    categories: Sequence[str] | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    reporter: Reporter | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Captioned:
    """Captions the images of a source in the published layout; goes on where an earlier call stopped.

    Images that have a caption there are left alone, so that captions grow with the data set. Wherever a call with
    as many shards stopped, batches are the same afterwards, so that captions are, too; with another number of shards
    the batches of images that are left are others.

    Args:
        source: the images.
        captioner: makes what describes them; called only if there are images left to describe.
        out_dir: where the folder of captions is made.
        data: name of the data set as `load` takes it, e.g. "mvtec_ad" or "folder:/my/parts".
        model: what made the captions, for the folder's name and its settings.
        prompt: "pd", "pa", "coco", or the text itself.
        split: "train" or "test".
        max_new_tokens: recorded; captions of another length limit do not mix with these.
        categories: those that `source` was restricted to, None for all; each choice has a folder of its own.
        batch_size: images described at once.
        workers: threads that decode images; None for one per CPU.
        reporter: shows progress; None is silent.
        shard: number of this share of the images, from 0, and how many shares there are. Whoever comes last joins them.

    Raises:
        ConfigError: another process writes the same captions.
        DataError: no images, the folder holds captions made otherwise, or the finished captions do not fit the data
            set.
    """
    if not len(source):
        raise DataError(f"{data}: no {split} images to caption")
    reporter = reporter or Reporter(quiet=True)
    ids = [record.identity for record in source.records]
    name, vlm, short = data_name(data, categories), model_name(model), prompt_name(prompt)
    files = CaptionFiles.of(out_dir, name, vlm, short, split, numbered=is_numbered(data))
    folder, what = files.folder, f"out_dir = {out_dir}"
    number, shards = shard
    patience = {"patience": PATIENCE} if shards > 1 else {}
    folder.mkdir(parents=True, exist_ok=True)
    # Splits are captioned beside each other, but have their settings in common.
    with locked(folder / LOCK, what, **patience):
        _claim(folder, {"model": model, "prompt": prompt_text(prompt), "max_new_tokens": max_new_tokens})
    whole, own = folder / f".{split}{LOCK}", folder / f".{split}-{number}-of-{shards}{LOCK}"
    with ExitStack() as stack:
        with locked(whole, what, **patience):
            # From here on, nobody takes the journals for strays.
            stack.enter_context(locked(own, what))
            lacking = files.lacking(ids)
            strays = files.strays(lacking, shard_bounds(len(lacking), batch_size, shards))
            for other in set(folder.glob(f".{split}-*-of-*{LOCK}")) - {own}:
                if strays or not other.name.endswith(f"-of-{shards}{LOCK}"):
                    require_free(other, what)
            if strays:
                files.gather(())
                lacking = files.lacking(ids)
        if have := len(ids) - len(lacking):
            reporter.say(f"{have} of {len(ids)} {split} images have a caption already")
        bounds = shard_bounds(len(lacking), batch_size, shards)
        first, end = bounds[number : number + 2]
        places = {image: place for place, image in enumerate(ids)}
        share = lacking[first:end]
        with reporter.images("caption", len(share)) as progress:

            def texts(images: Sequence[str]) -> Iterator[str]:
                done = len(share) - len(images)
                known = done % batch_size
                progress(done)
                describe = captioner()
                waiting = (places[image] for image in share[done - known :])
                for batch in _batches(map_threads(lambda place: source[place].image, waiting, workers), batch_size):
                    answers = describe(batch)
                    if len(answers) != len(batch):
                        raise DataError(f"{model}: {len(answers)} captions for {len(batch)} images")
                    yield from answers[known:]
                    progress(len(batch) - known)
                    known = 0

            files.write(share, texts, (first, end) if shards > 1 else None)
    with locked(whole, what, **patience):
        if not files.gather(lacking):
            return Captioned(folder, None, ())
    captions = Captions.load(folder, split).attach(ids)
    empty = tuple(image for image, text in zip(captions.ids, captions.texts, strict=True) if not text)
    return Captioned(folder, captions, empty)


def shard_bounds(images: int, batch_size: int, shards: int) -> tuple[int, ...]:
    """Places at which the shards of so many images begin, in whole batches, and the end; some may be empty."""
    batches = -(-images // batch_size)
    return tuple(min(batches * number // shards * batch_size, images) for number in range(shards + 1))


def _batches(images: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` images; the last may be shorter."""
    while batch := list(itertools.islice(images, size)):
        yield batch


def family(data: str) -> str:
    """Name of a prepared data set without that of its config."""
    return data.partition("/")[0]


def is_numbered(data: str) -> bool:
    """Whether a data set's images are COCO's, of which its configs are overlapping choices."""
    return family(data) in NUMBERED


def published_prompt(data: str) -> str:
    """The prompt by which a data set's captions were published."""
    return "coco" if is_numbered(data) else "pd"


def prompt_text(prompt: str) -> str:
    """What is asked: one of the published prompts by its name, or the text itself."""
    return PROMPTS.get(prompt, prompt)


def prompt_name(prompt: str) -> str:
    """How folders name a prompt; a text of one's own by its hash."""
    named = {text: name for name, text in PROMPTS.items()}
    return named.get(prompt_text(prompt), f"text-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}")


def model_name(model: str) -> str:
    """How folders name a captioner: the last part of its id, in lower case, without the underscores of shards."""
    return re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-")


def data_name(data: str, categories: Sequence[str] | None = None) -> str:
    """How folders name a data set: that of its folder, or name and config joined by "_", then the chosen categories.

    The splits of COCO-AD are captioned once for all of them, as the authors do: captions go by image number.
    """
    if data.startswith("folder:"):
        name = expanded(data.removeprefix("folder:")).resolve().name
    else:
        name = family(data) if is_numbered(data) else data.replace("/", "_")
    if not categories:
        return name
    chosen = "-".join(sorted(set(categories)))
    if len(chosen) > LONGEST:
        chosen = f"{len(set(categories))}-categories-{hashlib.sha256(chosen.encode()).hexdigest()[:8]}"
    return f"{name}_{chosen}"


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Records how captions are made, or checks that those there were made so."""
    file = folder / SETTINGS
    if file.is_file():
        theirs = read_object(file, error=DataError)
        differing = [f"{name}: {theirs.get(name)!r} there, {value!r} now" for name, value in settings.items()]
        differing = [line for line, name in zip(differing, settings, strict=True) if theirs.get(name) != settings[name]]
        if differing:
            listing = "\n  ".join([f"{folder} holds captions made otherwise; use another folder:", *differing])
            raise DataError(listing)
        return
    if any(folder.glob("*_captions_*.json")):
        raise DataError(f"{folder} holds captions, and no {SETTINGS} that says how they were made; use another folder")
    write_whole(file, json.dumps(settings, indent=2) + "\n")
