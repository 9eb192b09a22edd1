"""Real-IAD."""

from jaxad.data.registry import datasets
from tfds_builders.real_iad.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
