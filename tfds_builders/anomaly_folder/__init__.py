"""A folder of one's own."""

from jaxad.data.registry import datasets
from tfds_builders.anomaly_folder.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
