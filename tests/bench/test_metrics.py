from jaxad.bench.metrics import metrics_benchmark


def test_metrics_benchmark_measures_time_memory_and_error():
    result = metrics_benchmark(pixels=1_000_000, regions=100)
    assert result["pixels"] == 16 * 256**2
    assert result["regions"] == 100
    assert result["seconds"] > 0
    assert 0 < result["state_mb"] < result["peak_mb"] < 100
    for name, error in result["error"].items():
        assert error <= result["bound"][name] + 1e-12
        assert error < 1e-4
