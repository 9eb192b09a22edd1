"""TFDS class of the data set."""

from tfds_builders.btad.listing import BENCHMARK
from tfds_builders.builder import AnomalyBuilder


class Builder(AnomalyBuilder):
    benchmark = BENCHMARK
