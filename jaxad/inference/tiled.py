"""Predictions of images as tiles, or of a region: judged in batches of one size, and put together image by image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxad import metrics
from jaxad.data.batches import LoadedBatch
from jaxad.data.pixels import pixel_hash, resize
from jaxad.data.region import EVERY, Region
from jaxad.data.tiles import Tiling
from jaxad.errors import DataError, Problem
from jaxad.inference.launcher import Pending
from jaxad.inference.method import one_of
from jaxad.inference.stitching import Stitched, WholeMap
from jaxad.io.threads import map_threads
from jaxad.metrics import large
from jaxad.types import Batch, Explanation, View

if TYPE_CHECKING:
    from jaxad.inference.predictor import Output

Resolution = Literal["image", "tile"]
"""At which size maps and masks are compared: the whole image at the protocol's, or each tile."""
Raw = Callable[[Batch], Pending]
"""A full batch of tiles -> their maps [b h w] and scores [b] or None, and their explanation or None."""

OUTSIDE = "outside the region"
"""Kind of the problem that a region holds no pixel of an image."""


@dataclass
class _Image:
    """An image whose tiles are under way.

    Attributes:
        loaded: what is handed on of it.
        stitched: its map so far, None of one that cannot be judged.
        corners: of its tiles.
        left: how many of them are not yet added.
        region: bool, what is judged of the image, of its size; None for all.
        inside: the same of its map.
        explanation: of one that is judged whole, where such are made.
    """

    loaded: LoadedBatch
    stitched: Stitched | WholeMap | None = None
    corners: Sequence[tuple[int, int]] = ()
    left: int = 0
    region: np.ndarray | None = None
    inside: np.ndarray | None = None
    explanation: Explanation | None = None


@dataclass
class _Tiles:
    """Tiles that wait for a batch to be full.

    Attributes:
        owners: the image of each tile, and its corner in it.
        rows: of each tile its views and its seed.
    """

    owners: list[tuple[_Image, tuple[int, int]]] = field(default_factory=list)
    rows: list[tuple[dict[str, np.ndarray], int]] = field(default_factory=list)


class TiledStream:
    """Judges images that come one by one, as tiles.

    The device works on one batch while threads cut the tiles of the next. A batch may hold tiles of several images.

    Args:
        tiling: how images are cut; None judges them whole.
        views: what the detector sees of a tile.
        batch_size: tiles at once.
        protocol: how the maps that are put together are smoothed and scored.
        raw: the compiled detector; explains only images that are judged whole.
        regions: by category, "" for all others, what is judged of its images.
        workers: threads that cut and resize tiles; None for one per CPU.
    """

    def __init__(
        self,
        tiling: Tiling | None,
        views: Mapping[str, View],
        batch_size: int,
        protocol: metrics.Protocol,
        raw: Raw,
        regions: Mapping[str, Region] = {},
        workers: int | None = None,
    ):
        self.tiling, self.views, self.batch_size, self.protocol, self._raw = tiling, views, batch_size, protocol, raw
        self.regions, self.workers = regions, workers
        self._waiting: tuple[Pending, list[tuple[_Image, tuple[int, int]]]] | None = None

    def __call__(
        self,
        images: Iterable[LoadedBatch],
        *,
        originals: bool = False,
        mark: bool = False,
        masks: bool = False,
        resolution: Resolution = "image",
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Output]:
        """Predictions in the order of the images, an `Output` for each.

        Args:
            images: batches of one image each: with its original where there are tiles to be cut, else with its views;
                and with its whole mask, where masks are wanted.
            originals: whether to hand the originals on.
            mark: whether an image of which a region holds no pixel is marked by its problem, as an unreadable one is.
            masks: whether masks are wanted; maps are then of their size.
            resolution: of maps and masks, where masks are wanted.
            progress: called after every image.

        Raises:
            DataError: a region holds no pixel of an image, without `mark`.
        """
        queue: deque[_Image] = deque()
        tiles = _Tiles()
        for loaded in images:
            queue.append(image := self._begun(loaded, originals, mark))
            for corner, views, seed in self._cut(loaded, image.corners):
                tiles.owners.append((image, corner))
                tiles.rows.append((views, seed))
                if len(tiles.rows) == self.batch_size:
                    self._judge(tiles)
                    tiles = _Tiles()
            # One that has no tile, as it cannot be judged, waits for those before it.
            while queue and not queue[0].left:
                yield self._output(queue.popleft(), masks, resolution, progress)
        if tiles.rows:
            self._judge(tiles)
        self._settle()
        for image in queue:
            yield self._output(image, masks, resolution, progress)

    def _begun(self, loaded: LoadedBatch, originals: bool, mark: bool) -> _Image:
        kept = loaded if originals else loaded._replace(originals=(None,))
        (record,), (size,) = loaded.records, loaded.sizes
        if size is None or loaded.problems[0]:
            return _Image(kept)
        corners = [(0, 0)] if self.tiling is None else self.tiling.corners(*size)
        map = WholeMap(self.protocol) if self.tiling is None else Stitched(self.tiling, size, self.protocol.size)
        if (region := self.regions.get(record.category) or self.regions.get(EVERY)) is None:
            return _Image(kept, map, corners, len(corners))
        within = _within(region, *size)
        if not (inside := map.like(within)).any():
            detail = f"the region of {record.category or 'all images'} holds none of its pixels (`roi`)"
            if not mark:
                raise DataError(f"{record.file}: {detail}")
            return _Image(kept._replace(problems=((Problem(OUTSIDE, str(record.file), detail),),)))
        return _Image(kept, map, corners, len(corners), within, inside)

    def _cut(
        self, loaded: LoadedBatch, corners: Sequence[tuple[int, int]]
    ) -> Iterable[tuple[tuple[int, int], dict[str, np.ndarray], int]]:
        """Of each tile its corner, its views and its seed."""
        if self.tiling is None:
            views = {name: np.asarray(images)[0] for name, images in loaded.batch.images.items()}
            return [(corner, views, int(loaded.batch.seed[0])) for corner in corners]
        whole: Any = loaded.originals[0]
        return map_threads(partial(_tile, whole, self.tiling, self.views), corners, self.workers)

    def _judge(self, tiles: _Tiles) -> None:
        """Sends a batch to the device, and takes the result of the one before."""
        shape = (self.batch_size,)
        images = {name: np.zeros((*shape, v.height, v.width, 3), np.uint8) for name, v in self.views.items()}
        seed, valid = np.zeros(shape, np.uint32), np.zeros(shape, bool)
        for row, (views, hashed) in enumerate(tiles.rows):
            seed[row], valid[row] = hashed, True
            for name, view in views.items():
                images[name][row] = view
        notes = [image.loaded.batch for image, _ in tiles.owners]
        category = self._column([batch.category for batch in notes])
        extras = {name: self._column([batch.extras[name] for batch in notes]) for name in notes[0].extras}
        batch = Batch(images, seed, valid, category, extras)  # type: ignore[arg-type]
        result = self._raw(batch)
        self._settle()
        self._waiting = result, tiles.owners

    def _column(self, values: Sequence[Any]) -> np.ndarray | None:
        """What is known of the image of each tile, filled up with zeros."""
        if values[0] is None:
            return None
        column = np.stack([np.asarray(value)[0] for value in values])
        return np.pad(column, [(0, self.batch_size - len(column)), *[(0, 0)] * (column.ndim - 1)])

    def _settle(self) -> None:
        """Adds the tiles that the device has judged to their images."""
        if self._waiting is None:
            return
        ((maps, scores), explanation), owners = self._waiting[0](), self._waiting[1]
        self._waiting = None
        for row, (image, corner) in enumerate(owners):
            assert image.stitched is not None
            image.stitched.add(corner, maps[row], None if scores is None else float(scores[row]))
            image.explanation = None if explanation is None else one_of(explanation, row)
            image.left -= 1

    def _output(self, image: _Image, masks: bool, resolution: Resolution, progress: Any) -> Output:
        from jaxad.inference.predictor import Detail, Output

        if progress is not None:
            progress(1)
        if image.stitched is None:
            size = self.protocol.size
            return Output(np.zeros(1, np.float32), np.zeros((1, size, size), np.float32), image.loaded)
        plain, score, loaded, inside = image.stitched.map, image.stitched.score, image.loaded, image.inside
        map = large.smoothed(self.protocol, plain, inside)
        # What a detector makes of the whole image would be moved by what lies outside of the region.
        if score is None or inside is not None:
            score = large.image_score(self.protocol, map if self.protocol.score_smoothed else plain, inside)
        details: tuple[Detail, ...] = ()
        if masks:
            (whole,) = loaded.masks
            mask = None if whole is None else self._defect(whole, map.shape)
            size = self.protocol.size, self.protocol.size
            if resolution == "image" and map.shape != size:
                details = (Detail(map, mask, inside),)
                map = large.reduced(self.protocol, map)
                mask = None if whole is None else self._defect(whole, size)
                inside = None if image.region is None else large.mask_like(image.region, size)
            loaded = loaded._replace(masks=(mask,))
        within = None if inside is None else inside[None]
        explanations = () if image.explanation is None else (image.explanation,)
        return Output(np.array([score], np.float32), map[None], loaded, within, details, explanations)

    def _defect(self, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The mask of an image at the size of a map, as the protocol resizes it."""
        return self.protocol.resize_mask(mask, None if self.tiling is None else (shape[0], shape[1]))


def _tile(
    image: np.ndarray, tiling: Tiling, views: Mapping[str, View], corner: tuple[int, int]
) -> tuple[tuple[int, int], dict[str, np.ndarray], int]:
    tile = tiling.cut(image, corner)
    return corner, {name: resize(tile, view) for name, view in views.items()}, pixel_hash(tile)


@lru_cache(maxsize=4)
def _within(region: Region, height: int, width: int) -> np.ndarray:
    """As `Region.inside`; the images of a line have one size."""
    return region.inside(height, width)
