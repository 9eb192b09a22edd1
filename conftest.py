"""Which tests are quick: those of pure functions, which the save loop runs (`pytest -m quick`)."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent / "tests"
QUICK = (
    "config",
    "data/test_holdout.py",
    "data/test_layout.py",
    "data/test_sampling.py",
    "diffusion/test_schedule.py",
    "docs/test_benchmarks.py",
    "docs/test_pages.py",
    "io",
    "metrics/test_classes.py",
    "metrics/test_curves.py",
    "metrics/test_grids.py",
    "metrics/test_histogram.py",
    "metrics/test_operators.py",
    "metrics/test_regions.py",
    "report/test_schema.py",
    "test_layers.py",
    "test_readme.py",
    "test_registry.py",
)
"""Files and folders in `tests/` that together take under 20 seconds on two cores."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing all other tests would take longer than running the quick ones."""
    if config.option.markexpr != "quick" or not collection_path.is_relative_to(TESTS):
        return None
    above = any(place.is_relative_to(collection_path) for place in map(TESTS.joinpath, QUICK))
    return None if above or _is_quick(collection_path) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_quick(item.path) and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.quick)


def _is_quick(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / place) for place in QUICK)
