"""The best denoiser of an image's patches among the patches of the normal images most like it, in closed form.

That only similar images are looked at (SPADE, arXiv 2005.02357) makes it cheap to remember many patches, and lets one
memory serve many categories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.diffusion.empirical import EmpiricalDenoiser
from jaxad.errors import DataError
from jaxad.nn import module_state
from jaxad.nn.cosine import unit
from jaxad.nn.variables import Memory
from jaxad.types import Array, Features

SAME = 1 - 1e-5
"""Images whose mean patches have a cosine above this are copies of each other."""
BATCH = 16
"""Images whose residuals are taken at once: bounds memory only."""
SAMPLED = 128
"""Images whose patches are compared with those of others to find C."""


class Known(NamedTuple):
    """What images are compared with.

    Attributes:
        patches: of the images most like each, float16 [b k c], rotated.
        residuals: what a denoiser leaves of them, float32 [b k]; None where that is not known.
    """

    patches: Array
    residuals: Array | None


class Sample:
    """An equal number of random patches of every image, in memory that does not grow with their number.

    Args:
        limit: most patches kept in the end; up to twice as many on the way.
        seed: chooses them.
    """

    def __init__(self, limit: int, seed: int = 0):
        self._limit, self._share = limit, limit
        self._rng = np.random.default_rng(seed)
        self._patches: list[np.ndarray] = []
        self._places: list[np.ndarray] = []
        self._centers: list[np.ndarray] = []

    def passing(self, stream: Iterable[Features]) -> Iterator[Features]:
        """The stream itself; what passes is sampled."""
        for batch in stream:
            self._add(np.asarray(batch.tokens, np.float32))
            yield batch

    def _add(self, x: np.ndarray) -> None:
        self._share = min(self._share, x.shape[1])
        for image in x:
            # The first patches of an image are as random as all of them, so fewer can be kept at any time.
            self._places.append(self._rng.permutation(len(image))[: self._share].astype(np.int32))
            self._patches.append(image[self._places[-1]].astype(np.float16))
        self._centers.append(x.mean(1))
        if len(self._patches) * self._share > 2 * self._limit:
            self._thin()

    def _thin(self) -> None:
        self._share = max(min(self._limit // len(self._patches), self._share), 1)
        self._patches = [image[: self._share].copy() for image in self._patches]
        self._places = [places[: self._share].copy() for places in self._places]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Patches float16 [m p c], mean of all tokens of each image [m c], the numbers of its patches int32 [m p]."""
        self._thin()
        return np.stack(self._patches), np.concatenate(self._centers), np.stack(self._places)


class RetrievalDenoiser(EmpiricalDenoiser):
    """Remembers patches of all training images, and denoises by those of the most similar ones, never by a copy's.

    C is what a patch and the nearest one of other images differ in. Unfitted, it takes patches for white noise.

    Args:
        channels: width c of the patches.
        retrieved: patches k that an image is compared with, those of the images most like it.
        groups: how many patches of equal width lie side by side in one, each denoised by the remembered ones of its
            own group; images are told apart by all of them.
        dtype: compute type of the two products with these patches.
    """

    def __init__(self, channels: int, retrieved: int, groups: int = 1, *, dtype=jnp.float32):
        super().__init__(channels, groups, dtype=dtype)
        self.retrieved = retrieved
        self.patches, self.descriptors = Memory.empty(), Memory.empty()
        self.places, self.residuals = Memory.empty(), Memory.empty()

    def fit(self, sample: Sample, standardize: Callable[[Array], Array]) -> None:
        """Remembers a sample of images.

        Args:
            sample: filled.
            standardize: brings tokens [b n c] to the scale of those that are denoised.

        Raises:
            DataError: it holds one image, or copies of one.
        """
        patches, centers, places = sample.arrays()
        self.residuals.set_value(jnp.zeros(1, jnp.float32))
        self.places.set_value(jnp.asarray(places))
        self.descriptors.set_value(unit(standardize(centers[:, None])[:, 0]))
        if (np.asarray(self.descriptors[...] @ self.descriptors[...][0]) > SAME).all():
            raise DataError(f"{len(patches)} normal images: are one image or copies of it; give two different ones")
        for image in patches:
            image[...] = np.asarray(standardize(image[None].astype(np.float32)))[0]
        self.set_covariance(self._spread(patches, np.random.default_rng(0)))
        directions = np.asarray(self.directions[...])
        for image in patches:
            image[...] = image.astype(np.float32) @ directions
        self.patches.set_value(jnp.asarray(patches))

    def _spread(self, patches: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Half the mean square difference of a patch and the nearest one of other images: the covariance C [c c].

        Nearest in its own group of channels, of each group.
        """
        chosen = rng.permutation(len(patches))[:SAMPLED]
        found = np.asarray(_most_similar(self.descriptors[...][chosen], self.descriptors[...], self._images(patches)))
        total = np.zeros((patches.shape[-1],) * 2)
        for number, others in zip(chosen, found, strict=True):
            x, known = (a.reshape(-1, a.shape[-1]).astype(np.float32) for a in (patches[number], patches[others]))
            pairs = zip(*(np.split(a, self.groups, axis=-1) for a in (x, known)), strict=True)
            difference = x - np.concatenate([those[np.asarray(_nearest(own, those))] for own, those in pairs], axis=-1)
            total += difference.T @ difference / len(x)
        return total / len(chosen) / 2

    def _images(self, patches: Array) -> int:
        """Number of images that an image is compared with."""
        images, share = patches.shape[:2]
        return max(min(-(-self.retrieved // share), images - 1), 1)

    def learn_own_residuals(self, alpha_bar: Array | float, residual: Callable[[Array, Array, Known], Array]) -> None:
        """Remembers what this denoiser leaves of each patch that it remembers, by those of other images.

        Args:
            alpha_bar: of the noise level, whose noise is left out.
            residual: of standardized tokens and their reconstructions [b n c], given what the images are compared with,
                [b n].
        """

        graphdef, arrays = module_state.split(self)

        def of_all(arrays: Any, numbers: Array) -> jax.Array:
            denoiser: RetrievalDenoiser = module_state.merge(graphdef, arrays)
            level = jnp.float32(alpha_bar)

            def of_image(number: Array) -> jax.Array:
                x = denoiser.unrotate(denoiser.patches[...][number][None])
                known = denoiser._known(denoiser.descriptors[...][number][None])
                return residual(x, denoiser(jnp.sqrt(level) * x, level, known), known)[0]

            return jax.lax.map(of_image, numbers, batch_size=BATCH)

        self.residuals.set_value(jax.jit(of_all)(arrays, jnp.arange(len(self.patches))))

    def retrieve(self, centers: Array) -> Known | None:
        """What images are compared with, given the mean of all tokens of each, standardized [b c].

        None before it is fitted.
        """
        return self._known(unit(centers)) if self.patches.filled else None

    def _known(self, descriptors: Array) -> Known:
        found = _most_similar(descriptors, self.descriptors[...], self._images(self.patches[...]))
        patches = self.patches[...][found].reshape(len(found), -1, self.patches.shape[-1])
        return Known(patches, self.residuals[...][found].reshape(len(found), -1) if self.residuals.filled else None)

    def standardized(self, known: Known) -> jax.Array:
        """The patches of what `retrieve` gave on the scale of the tokens: float32 [b k c]."""
        return self.unrotate(jnp.asarray(known.patches, jnp.float32))

    def expected_residual(self, x: Array, alpha_bar: Array | float, known: Known) -> jax.Array:
        """What is left of normal patches that noise makes clean ones x [b n c] indistinguishable from: [b n].

        Args:
            x: clean tokens.
            alpha_bar: of that noise, a scalar.
            known: what `retrieve` gave for the images, residuals among it.
        """
        weights = self.weights(jnp.sqrt(jnp.float32(alpha_bar)) * x, alpha_bar, known.patches)
        return jnp.einsum("bnk,bk->bn", weights, jnp.asarray(known.residuals))

    def __call__(self, x_t: Array, alpha_bar: Array | float, known: Known | None) -> jax.Array:
        """The best guess of the clean tokens: float32 [b n c]; arguments as of `guess`, with what `retrieve` gave."""
        return self.guess(x_t, alpha_bar, None if known is None else known.patches)


@partial(jax.jit, static_argnums=2)
def _most_similar(descriptors: Array, known: Array, images: int) -> jax.Array:
    """The numbers of so many known images [m c], those most like each image [b c] but no copies: int32 [b images].

    Where there are fewer, the first one repeats.
    """
    cosines = jnp.matmul(descriptors, jnp.asarray(known).T, precision="highest")
    likeness, found = jax.lax.top_k(jnp.where(cosines > SAME, -2.0, cosines), images)
    return jnp.where(likeness < -1.5, found[:, :1], found)


@jax.jit
def _nearest(x: Array, known: Array) -> jax.Array:
    """The number of the known vector [k c] nearest to each vector [n c]: int32 [n]."""
    product = jnp.matmul(x, jnp.asarray(known).T)
    return jnp.argmax(product - jnp.square(known).sum(-1)[None] / 2, axis=-1)
