"""What `jaxad fit clipfusion` adds to fitting: which images are remembered, or only whose names."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from jaxad.cli import flags as cli
from jaxad.cli.checks import load_data
from jaxad.errors import DataError

if TYPE_CHECKING:
    from jaxad.data import DataSet
    from jaxad.io.progress import Reporter


def problems(command: cli.FitCLIPFusion) -> list[str]:
    """Everything about shots and names that cannot work."""
    found = [f"--shots {command.shots}: must be at least 0"] if command.shots < 0 else []
    if command.shots > 0 and not command.data:
        found.append(f"--shots {command.shots}: needs --data to take the images from")
    if not command.data and not command.classes:
        found.append("--classes: give the names of the categories, or --data that has them")
    if command.classes and command.categories:
        found.append("--classes, --categories: mean the same here; give one of them")
    if command.image_size is not None and "diffusion" not in command.model.models:
        found.append(
            f"--image-size {command.image_size}: not used by {command.model.label}, which has no diffusion model; give "
            f"--model.clip-image-size {command.image_size}"
        )
    if command.reference_lists is not None:
        if not command.shots:
            found.append(f"--reference-lists {command.reference_lists}: not used with --shots 0; give --shots")
        if command.holdout > 0:
            found.append(
                f"--reference-lists {command.reference_lists}: names images of the whole training part; give "
                f"--holdout 0 (now {command.holdout:g})"
            )
    return found


def load(command: cli.FitCLIPFusion, reporter: Reporter) -> tuple[DataSet, dict[str, Any]]:
    """The data with what is remembered as its training part, and what to record of the choice.

    Raises:
        DataError: unusable data, categories with no or too few images, or lists that do not fit.
    """
    from jaxad import data

    if command.data:
        dataset = load_data(command, command.holdout)
    else:
        none = data.FolderSource("no images", ())
        dataset = data.DataSet("class names", none, none, none, command.classes or ())
    if command.shots:
        _check_all_trained(dataset, command)
        chosen = dataset.train.per_class(command.shots, command.seed, lists=command.reference_lists)
    else:
        chosen = data.ClassNames(dataset.categories)
    lists = None if command.reference_lists is None else str(command.reference_lists)
    record = {"shots": command.shots, "seed": command.seed, "reference_lists": lists}
    return dataclasses.replace(dataset, train=chosen), record


def _check_all_trained(dataset: DataSet, command: cli.FitCLIPFusion) -> None:
    if without := [name for name in dataset.categories if name not in dataset.train.categories]:
        others = [name for name in dataset.categories if name not in without]
        flag = "--classes" if command.classes else "--categories"
        leave = f"leave them out ({flag} {' '.join(others)})" if others else ""
        ways = ("add normal ones (CATEGORY/train/good)", leave, "look at none (--shots 0)")
        raise DataError(
            f"{command.data}: --shots {command.shots} needs training images of every category, and there are none of "
            f"{', '.join(without)}: {', or '.join(way for way in ways if way)}"
        )
