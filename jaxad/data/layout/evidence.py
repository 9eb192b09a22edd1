"""Which pictures are masks or copies of others: by their names, and by what they hold where names leave it open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from jaxad.data.decode import decode_levels
from jaxad.data.files import file_state, read_file
from jaxad.data.layout.tree import Folder
from jaxad.data.layout.words import CERTAIN_MASKS, folded, without_derived, without_mask, word
from jaxad.errors import DataError

CODES = 4
"""Distinct values up to which a picture is a mask, whatever the values are: codes of defects are few."""


def is_binary(pixels: np.ndarray) -> bool:
    """Whether a picture [h w] or [h w c] is that of a mask: of few values, or nearly all at the two ends of 8 bits.

    The latter allows for the haze that JPEG leaves around black and white. Of colors the highest channel counts.
    """
    flat = pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1)
    # A sample first, because counting all pixels of a photo takes long.
    return _holds_two(flat[:: max(len(flat) // 4096, 1)], 0.97) and _holds_two(flat, 0.99)


def _holds_two(flat: np.ndarray, share: float, chunk: int = 2**20) -> bool:
    codes: set[int] = set()
    dark, bright = 0, 0
    for start in range(0, len(flat), chunk):
        values = flat[start : start + chunk].max(axis=1)
        dark += int(np.count_nonzero(values <= 16))
        bright += int(np.count_nonzero((values >= 239) & (values <= 255)))
        if len(codes) <= CODES:
            codes.update(np.unique(values).tolist())
    return len(codes) <= CODES or (dark > 0 and bright > 0 and dark + bright >= share * len(flat))


def copies_of_others(images: Sequence[Path]) -> list[Path]:
    """Those of a folder's images that are thumbnails or overlays of others by their names, such as 000_thumb.png."""
    stems = {folded(file.stem) for file in images}
    return [file for file in images if folded(without_derived(file.stem) or "") in stems]


def masks_beside(images: Sequence[Path], *, by_content: bool) -> set[Path]:
    """Those of a folder's images that are masks: named as such, or black and white beside an image of the same stem.

    Args:
        images: of one folder.
        by_content: whether to look for the latter.
    """
    stems = defaultdict(list)
    for file in images:
        stems[folded(file.stem)].append(file)
    named = [file for file in images if without_mask(file.stem) is not None]
    lonely, beside = [], []
    for file in named:
        (beside if folded(without_mask(file.stem) or "") in stems else lonely).append(file)
    masks: set[Path] = set()
    # Names alone do not tell: "cap_label.png" may be the photo of a label. Of many, the first tells for all.
    if beside and _looks_like_mask(beside[0]) is not False:
        masks |= set(beside)
    if lonely and _looks_like_mask(lonely[0]):
        masks |= set(lonely)
    for group in stems.values() if by_content else ():
        if len(group) > 1:
            binary = {file for file in group if file not in masks and _looks_like_mask(file)}
            masks |= binary if len(binary) < len(group) else set()
    return masks


def are_masks(folder: Folder, *, beside_parts: bool = False) -> bool:
    """Whether a folder that is named like one of masks is one.

    Args:
        folder: a folder with `words.role` "masks".
        beside_parts: whether it lies beside train/ or test/, where images have no place.
    """
    named = word(folder.name)
    if named in folder.names.masks or (named in CERTAIN_MASKS and (beside_parts or folder.folders)):
        return True
    return holds_masks(folder)


def holds_masks(folder: Folder) -> bool:
    """Whether the images of a folder are masks, or there are none; the first tells for all."""
    images = folder.all_images()
    return not images or _looks_like_mask(images[0]) is not False


def _looks_like_mask(file: Path) -> bool | None:
    """Whether a picture holds hardly more than black and white; None where it cannot be read."""
    try:
        state = file_state(file)
        return _is_binary_file(file, state) if state else None
    except DataError:
        return None


@lru_cache(maxsize=4096)
def _is_binary_file(file: Path, state: str) -> bool:
    """Decodes a file once for each `file_state`: a watched folder is looked at twice a second."""
    return is_binary(decode_levels(read_file(file), str(file)))
