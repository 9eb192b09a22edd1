"""BTAD."""

from jaxad.data.registry import datasets
from tfds_builders.btad.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
