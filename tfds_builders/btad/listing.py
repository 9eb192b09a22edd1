"""BTAD (beanTech): three products.

    BTech_Dataset_transformed/<01|02|03>/{train/ok, test/ok, test/ko, ground_truth/ko}

Images and masks are .bmp or .png, differently for each product; a mask has its image's stem. Sources disagree on the
number of images, so none is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tfds_builders.listing import Benchmark, Sample
from tfds_builders.mvtec_layout import has_categories, list_category

CATEGORIES = ("01", "02", "03")


def list_samples(root: Path, category: str) -> Iterator[Sample]:
    """The images of a product."""
    return list_category(root, category, normal="ok", mask_of=_mask_of)


def _mask_of(folder: Path, image: Path) -> Path:
    candidates = [folder / f"{image.stem}{suffix}" for suffix in (".png", ".bmp")]
    return next((mask for mask in candidates if mask.is_file()), candidates[0])


BENCHMARK = Benchmark(
    name="btad",
    title="BTAD",
    homepage="https://github.com/pankajmishra000/VT-ADL",
    license="none found with the data; ask its authors",
    how_to_obtain=(
        "Follow the link on the page of its authors. The source is btad.zip, or the folder "
        "BTech_Dataset_transformed with 01/, 02/ and 03/."
    ),
    is_root=has_categories(CATEGORIES, "train", "ok"),
    list_samples=list_samples,
    categories=CATEGORIES,
)
