"""The TFDS class of COCO-AD."""

from __future__ import annotations

from tfds_builders.builder import AnomalyBuilder
from tfds_builders.coco_ad.listing import BENCHMARK


class Builder(AnomalyBuilder):
    """COCO-AD, one config per category; see `tfds_builders.coco_ad.listing`."""

    benchmark = BENCHMARK
