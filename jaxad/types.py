"""The values that flow between the layers, and the one meaning of every shape letter.

    b batch   h w rows and columns of an image, map or token grid   n tokens, n = h * w   c feature channels
    k prototypes, references or bank entries   d embedding width of a denoiser or head   t timesteps

Images are NHWC. Maps are [b h w]; higher is more anomalous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import struct

Array = jax.Array | np.ndarray


@dataclass(frozen=True)
class Record:
    """What is known of one image before it is read.

    Attributes:
        file: where the image is, for messages and reports; of a prepared data set, DATA_SET/CONFIG/IDENTITY.
        category: kind of part shown, e.g. "bottle".
        label: 0 normal, 1 anomalous, None where unknown.
        defect: name of the defect, "good" for normal images, "" where unknown.
        mask: where the defect mask is, None where there is none.
        identity: path relative to the data set, unique in it, with forward slashes.
        object_id: what the views of one object have in common, "" where each image shows its own.
        view: number of the view from 1, 0 where objects have one view.
        caption: what a text says of the image, "" where there is none.
    """

    file: Path
    category: str
    label: int | None = None
    defect: str = ""
    mask: Path | None = None
    identity: str = ""
    object_id: str = ""
    view: int = 0
    caption: str = ""


class Sample(NamedTuple):
    """One decoded image: uint8 [h w 3] at its own size, and its record."""

    image: np.ndarray
    record: Record


@runtime_checkable
class Source(Protocol):
    """A random-access set of images; what every detector trains on, remembers and is evaluated on.

    `records` and `categories` cost nothing to read; `source[i]` decodes image i; `mask(i)` decodes its defect mask to
    bool [h w] at the mask file's own size, or gives None where the image has none; `fingerprint(i)` is text that
    differs where the content of image i does, found without decoding it; `digest(i)`, 16 bytes, is a hash of the
    pixels alone, the same for every file that holds them. A source of 16-bit images may have `depths` and
    `at_depths(depths)`, any source `gray_mask(i)` and `size(i)` (`jaxad.data.source.ImageSource`), and one of tiles
    `tiling` (`jaxad.data.tiles.TiledSource`). Sources that are made of others pass all of these on.
    """

    @property
    def name(self) -> str: ...

    @property
    def records(self) -> Sequence[Record]: ...

    @property
    def categories(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def mask(self, index: int) -> np.ndarray | None: ...

    def fingerprint(self, index: int) -> str: ...

    def digest(self, index: int) -> bytes: ...


@dataclass(frozen=True)
class View:
    """One resized rendering of the image that a detector takes, as uint8 RGB; normalization happens inside jit.

    Attributes:
        height, width: size in pixels; the image is resized to it without keeping its aspect ratio.
        interpolation: "bilinear" or "bicubic", antialiased as PIL does it.
        crop: whether only the image's middle, as large as it can be in the view's aspect ratio, is seen.
    """

    height: int
    width: int
    interpolation: str = "bilinear"
    crop: bool = False


@struct.dataclass
class Batch:
    """A padded batch of images, ready for the device.

    Attributes:
        images: one uint8 array [b h w 3] for each view of the detector, by view name.
        seed: uint32 [b], a hash of the decoded pixels; all noise of an image is drawn from it,
            so that a prediction depends on the image alone.
        valid: bool [b], False for the padding of a last, partial batch.
        category: int32 [b], index into the detector's categories, -1 where it is not known; None where nobody asks.
        extras: what a detector asked to know of the images besides their pixels, arrays [b ...]; zeros in the padding.
    """

    images: dict[str, Array]
    seed: Array
    valid: Array
    category: Array | None = None
    extras: dict[str, Array] = field(default_factory=dict)


@struct.dataclass
class Features:
    """Output of the frozen networks: `tokens` [b n c] on a grid of `grid` = (h, w) with n = h * w."""

    tokens: Array
    grid: tuple[int, int] = struct.field(pytree_node=False)
    extras: dict[str, Array] = field(default_factory=dict)


@struct.dataclass
class Explanation:
    """What lies between image and anomaly map, for figures; whatever a detector does not have is None.

    Attributes:
        before, after: float [b h w c], features as they are compared: of the image, and of its reconstruction.
        similarity: float [b k h w], cosine similarity of the image's features to each prototype.
        prototypes: names of the k prototypes, e.g. "local 1".
        pictures: uint8 [b H W 3] by name: "reconstruction", the image redrawn, and "autoencoder", the image as the
            autoencoder alone gives it back.
        terms: float [b h w] by name, maps that the anomaly map is made of, e.g. "clip language"; higher is more
            anomalous.
    """

    before: Array | None = None
    after: Array | None = None
    similarity: Array | None = None
    prototypes: tuple[str, ...] = struct.field(pytree_node=False, default=())
    pictures: Mapping[str, Array] = field(default_factory=dict)
    terms: Mapping[str, Array] = field(default_factory=dict)


@struct.dataclass
class Judgement:
    """A detector's answer before any post-processing.

    Attributes:
        maps: anomaly maps, float32 [b h w], unsmoothed, at the detector's own resolution; higher is more anomalous.
        scores: image scores, float32 [b], where the detector defines them; None if the protocol takes them from the
            maps.
        explanation: for figures; costs nothing where nobody asks for it, because the compiler leaves it out.
    """

    maps: Array
    scores: Array | None = None
    explanation: Explanation = field(default_factory=Explanation)
