"""TFDS class of the data set."""

from tfds_builders.builder import AnomalyBuilder
from tfds_builders.visa.listing import BENCHMARK


class Builder(AnomalyBuilder):
    benchmark = BENCHMARK
