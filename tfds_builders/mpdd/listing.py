"""MPDD, painted and other metal parts in varied poses: 6 categories, 1346 images in MVTec's layout."""

from __future__ import annotations

from tfds_builders.listing import Benchmark
from tfds_builders.mvtec_layout import counted, has_categories, list_category

COUNTS = {
    "bracket_black": (289, 32, 47),
    "bracket_brown": (185, 26, 51),
    "bracket_white": (110, 30, 30),
    "connector": (128, 30, 14),
    "metal_plate": (54, 26, 71),
    "tubes": (122, 32, 69),
}

BENCHMARK = Benchmark(
    name="mpdd",
    title="MPDD",
    homepage="https://github.com/stepanje/MPDD",
    license="none stated on its page; published for research",
    how_to_obtain=(
        "Follow the link on the page of its authors. The source is the archive, or the folder MPDD with "
        "bracket_black/, tubes/ and so on."
    ),
    is_root=has_categories(COUNTS, "train", "good"),
    list_samples=list_category,
    categories=tuple(COUNTS),
    counts=counted(COUNTS),
)
