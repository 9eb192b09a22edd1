"""The benchmark of evaluation times what it says."""

from jaxad.bench.evaluation import evaluation_benchmark


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
