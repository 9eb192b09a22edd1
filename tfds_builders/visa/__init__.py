"""VisA."""

from jaxad.data.registry import datasets
from tfds_builders.visa.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
