"""The TFDS class of Real-IAD."""

from __future__ import annotations

from tfds_builders.builder import AnomalyBuilder
from tfds_builders.real_iad.listing import BENCHMARK


class Builder(AnomalyBuilder):
    """Real-IAD, one config per category; see `tfds_builders.real_iad.listing`."""

    benchmark = BENCHMARK
