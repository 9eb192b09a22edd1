"""COCO-AD."""

from jaxad.data.registry import datasets
from tfds_builders.coco_ad.listing import BENCHMARK

datasets.register(BENCHMARK.name, BENCHMARK)
