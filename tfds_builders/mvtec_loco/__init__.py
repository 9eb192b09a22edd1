"""MVTec LOCO-AD."""

from jaxad.data.registry import datasets
from tfds_builders.mvtec_loco.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
