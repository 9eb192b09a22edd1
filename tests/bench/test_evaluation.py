"""The benchmark of evaluation times what it says."""

import pytest

from jaxad.bench.evaluation import evaluation_benchmark, main
from jaxad.errors import ConfigError


def test_a_small_one_has_all_figures():
    found = evaluation_benchmark(images=48, side=64, passes=1)
    assert found.keys() == {
        "images_per_second",
        "cpu_ms",
        "thread_ms",
        "call_ms",
        "steady_ms",
        "call_cpu_ms",
        "steady_cpu_ms",
    }
    assert all(value > 0 for value in found.values())
    assert found["thread_ms"] <= found["cpu_ms"]


def test_numbers_that_are_too_small_are_all_named():
    with pytest.raises(ConfigError, match=r"(?s)images = 32: .*side = 8: .*passes = 0: "):
        main(images=32, side=8, passes=0)
