"""MVTec-AD: 15 categories, 5354 images, 73 types of defect.

The lists of training images that circulate with UniAD and its successors lack one image, screw/train/good/232.png;
this builder follows the official folders, which have it.
"""

from __future__ import annotations

from tfds_builders.listing import Benchmark
from tfds_builders.mvtec_layout import counted, has_categories, list_category

COUNTS = {
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "tile": (230, 33, 84),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "wood": (247, 19, 60),
    "zipper": (240, 32, 119),
}

BENCHMARK = Benchmark(
    name="mvtec_ad",
    title="MVTec-AD",
    homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    license="CC BY-NC-SA 4.0 (non-commercial)",
    how_to_obtain=(
        "Ask MVTec for the data on its page; it comes as mvtec_anomaly_detection.tar.xz, or as one archive for each "
        "category. The source is the archive or archives, or the folder with bottle/, cable/ and so on."
    ),
    is_root=has_categories(COUNTS, "train", "good"),
    list_samples=list_category,
    categories=tuple(COUNTS),
    counts=counted(COUNTS),
)
