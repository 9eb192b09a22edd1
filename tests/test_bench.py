import json

from jaxad import bench, bench_input


def test_metrics_benchmark_measures_time_memory_and_error(capsys):
    bench.main(["metrics", "--pixels", "1000000", "--regions", "100"])
    result = json.loads(capsys.readouterr().out)
    assert result["pixels"] == 16 * 256**2
    assert result["regions"] == 100
    assert 0 < result["seconds"] < 60
    assert 0 < result["state_mb"] < result["peak_mb"] < 100
    for name, error in result["error"].items():
        assert error <= result["bound"][name] + 1e-12
        assert error < 1e-4


def test_input_benchmark_has_a_row_for_every_format_and_size():
    rows = bench_input.input_benchmark(images={32: (2, 5), 500: (1, 2)}, workers=2, passes=1)
    assert [(row["format"], row["side"]) for row in rows] == [("jpg", 32), ("png", 32), ("jpg", 500), ("png", 500)]
    assert all(row[f"{part}_per_second"] > 0 for part in ("images", "seeded") for row in rows)
    assert all(row[name] > 0 for name in ("cpu_ms", "seeded_cpu_ms") for row in rows)
    assert 0.05 < rows[2]["megabytes"] < rows[3]["megabytes"] < 1
