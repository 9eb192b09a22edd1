"""Real-IAD Variety."""

from jaxad.data.registry import datasets
from tfds_builders.real_iad_variety.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
