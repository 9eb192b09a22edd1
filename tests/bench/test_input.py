from jaxad.bench.input import input_benchmark


def test_input_benchmark_has_a_row_for_every_format_and_size():
    rows = input_benchmark(images={32: (2, 5), 500: (1, 2)}, workers=2, passes=1)
    assert [(row["format"], row["side"]) for row in rows] == [("jpg", 32), ("png", 32), ("jpg", 500), ("png", 500)]
    assert all(row[f"{part}_per_second"] > 0 for part in ("images", "seeded") for row in rows)
    assert all(row[name] > 0 for name in ("cpu_ms", "seeded_cpu_ms") for row in rows)
    assert 0.05 < rows[2]["megabytes"] < rows[3]["megabytes"] < 1
