"""MPDD."""

from jaxad.data.registry import datasets
from tfds_builders.mpdd.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
