"""What `jaxad predict` and `jaxad evaluate` leave: how it is known among images, so that it is not taken for such."""

from __future__ import annotations

from collections.abc import Collection

LINES = "predictions.jsonl"
"""The file by which a folder of predictions is known."""
EXPLAINED = "explained"
"""The folder in it of pictures of the method."""
KINDS = ("overlay", "map", "mask", EXPLAINED)
"""Folders in it that are results too."""
REPORT, SHEET = "report.json", "sheet.png"
"""The file by which the folder of an evaluation is known, and the picture in it of runs side by side."""
PICTURES, LIST = "pictures", "pictures.json"
"""The folder of pictures of an evaluation, and the file in it by which it is known."""


def is_folder_of_results(name: str, files: Collection[str], beside: Collection[str]) -> bool:
    """Whether all pictures in a folder are results.

    Args:
        name: the folder's.
        files: names of the files in it that are no images.
        beside: of those beside it.
    """
    return LIST in files or (name in KINDS and LINES in beside)


def is_result(name: str, beside: Collection[str]) -> bool:
    """Whether an image is a result, by its name and those of the files beside it that are no images."""
    return name == SHEET and REPORT in beside
