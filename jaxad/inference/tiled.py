"""Predictions of images as tiles: cut, judged in batches of tiles of one size, and put together image by image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from jaxad import metrics, parallel
from jaxad.data.batches import LoadedBatch
from jaxad.data.decode import pixel_hash, resize
from jaxad.data.tiles import Tiling
from jaxad.inference.stitching import Stitched
from jaxad.metrics import large
from jaxad.types import Batch, View

if TYPE_CHECKING:
    from jaxad.inference.predictor import Output

Resolution = Literal["image", "tile"]
"""At which size maps and masks are compared: the whole image at the protocol's, or each tile."""
Raw = Callable[[Batch], tuple[jax.Array, jax.Array | None]]
"""A full batch of tiles -> their maps [b h w] and scores [b] or None, on the devices."""


@dataclass
class _Image:
    """An image whose tiles are under way; `left` of them are not yet added."""

    loaded: LoadedBatch
    stitched: Stitched | None
    left: int


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

    The device works on one batch while the tiles of the next are cut. A batch may hold tiles of several images.

    Args:
        tiling: how images are cut.
        views: what the detector sees of a tile.
        batch_size: tiles at once.
        protocol: how the maps that are put together are smoothed and scored.
        raw: the compiled detector.
    """

    def __init__(
        self, tiling: Tiling, views: Mapping[str, View], batch_size: int, protocol: metrics.Protocol, raw: Raw
    ):
        self.tiling, self.views, self.batch_size, self.protocol, self._raw = tiling, views, batch_size, protocol, raw
        self._waiting: tuple[Any, list[tuple[_Image, tuple[int, int]]]] | None = None

    def __call__(
        self,
        images: Iterator[LoadedBatch],
        *,
        originals: bool = False,
        masks: Callable[[np.ndarray], np.ndarray] | None = None,
        resolution: Resolution = "image",
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Output]:
        """Predictions in the order of the images, an `Output` for each.

        Args:
            images: batches of one image each, with its original and, where masks are wanted, its whole mask.
            originals: whether to hand the originals on.
            masks: how the protocol resizes a mask; None where no masks are wanted. Maps are then of the masks' size.
            resolution: of maps and masks, where masks are wanted.
            progress: called after every image.
        """
        queue: deque[_Image] = deque()
        tiles = _Tiles()
        for loaded in images:
            queue.append(image := self._begun(loaded, originals))
            for corner in self._corners(loaded):
                tile = self.tiling.cut(loaded.originals[0], corner)  # type: ignore[arg-type]
                views = {name: resize(tile, view) for name, view in self.views.items()}
                tiles.owners.append((image, corner))
                tiles.rows.append((views, pixel_hash(tile)))
                if len(tiles.rows) == self.batch_size:
                    self._judge(tiles)
                    tiles = _Tiles()
            # One that has no tile, as it cannot be decoded, waits for those before it.
            while queue and not queue[0].left:
                yield self._output(queue.popleft(), masks, resolution, progress)
        if tiles.rows:
            self._judge(tiles)
        self._settle()
        for image in queue:
            yield self._output(image, masks, resolution, progress)

    def _corners(self, loaded: LoadedBatch) -> list[tuple[int, int]]:
        original = loaded.originals[0]
        return [] if original is None or loaded.problems[0] else self.tiling.corners(*original.shape[:2])

    def _begun(self, loaded: LoadedBatch, originals: bool) -> _Image:
        original, corners = loaded.originals[0], self._corners(loaded)
        stitched = Stitched(self.tiling, original.shape[:2], self.protocol.size) if corners else None  # type: ignore
        return _Image(loaded if originals else loaded._replace(originals=(None,)), stitched, len(corners))

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
        (maps, scores), owners = parallel.to_host(self._waiting[0]), self._waiting[1]
        self._waiting = None
        for row, (image, corner) in enumerate(owners):
            assert image.stitched is not None
            image.stitched.add(corner, maps[row], None if scores is None else float(scores[row]))
            image.left -= 1

    def _output(self, image: _Image, masks: Any, resolution: Resolution, progress: Any) -> Output:
        from jaxad.inference.predictor import Output

        if progress is not None:
            progress(1)
        if image.stitched is None:
            size = self.protocol.size
            return Output(np.zeros(1, np.float32), np.zeros((1, size, size), np.float32), image.loaded)
        plain, score = image.stitched.map, image.stitched.score
        map = large.smoothed(self.protocol, plain)
        if score is None:
            score = large.image_score(self.protocol, map if self.protocol.score_smoothed else plain)
        loaded = image.loaded
        if masks is not None:
            (mask,) = loaded.masks
            if resolution == "tile":
                mask = None if mask is None else large.mask_like(mask, (map.shape[0], map.shape[1]))
            else:
                mask, map = None if mask is None else masks(mask), large.reduced(self.protocol, map)
            loaded = loaded._replace(masks=(mask,))
        return Output(np.array([score], np.float32), map[None], loaded)
