"""MVTec-AD."""

from jaxad.data.registry import datasets
from tfds_builders.mvtec_ad.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
