"""The TFDS class of Real-IAD Variety."""

from __future__ import annotations

from tfds_builders.builder import AnomalyBuilder
from tfds_builders.real_iad_variety.listing import BENCHMARK


class Builder(AnomalyBuilder):
    """Real-IAD Variety, one config per category; see `tfds_builders.real_iad_variety.listing`."""

    benchmark = BENCHMARK
