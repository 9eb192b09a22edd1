"""The four real categories (counts in the README of the test data)."""

import numpy as np
import pytest

from jaxad.config import DataConfig
from jaxad.data import load
from jaxad.data.batches import batches
from jaxad.types import View
from tests.data.prepared import prepare

pytestmark = pytest.mark.real

COUNTS = {
    "bottle": (209, 20, 63),
    "grid": (243, 21, 57),
    "magnetic_tile": (300, 100, 192),
    "metal_plate": (54, 26, 71),
}


@pytest.fixture(scope="module")
def parts(real_data):
    return load(f"folder:{real_data / 'parts'}", config=DataConfig(workers=2))


def test_counts(parts):
    found = {
        name: (n["train"] + n["holdout"], n["test_normal"], n["test_anomalous"]) for name, n in parts.counts.items()
    }
    assert found == COUNTS
    assert {name: n["masks"] for name, n in parts.counts.items()} == {name: n[2] for name, n in COUNTS.items()}
    assert {name: n["holdout"] for name, n in parts.counts.items()} == {
        "bottle": 21,
        "grid": 24,
        "magnetic_tile": 30,
        "metal_plate": 5,
    }


def test_no_problem_is_found(parts):
    assert [problem for problem in parts.problems if problem.fatal] == []


def test_batches_of_every_category(parts):
    few = parts.train.per_class(3)
    loaded = list(batches(few, {"image": View(224, 224)}, 5))
    assert [len(item.records) for item in loaded] == [5, 5, 2]
    assert len({int(seed) for item in loaded for seed in item.batch.seed[item.batch.valid]}) == 12
    assert {size for item in loaded for size in item.sizes} >= {(448, 448)}


def test_prepared_they_are_the_same_images_in_the_same_parts(parts, real_data, tmp_path):
    prepared = load("own_parts", prepare(real_data / "parts", tmp_path))
    assert prepared.counts == parts.counts
    for part in ("train", "holdout", "test"):
        mine, theirs = getattr(prepared, part), getattr(parts, part)
        assert [r.identity for r in mine.records] == [r.identity for r in theirs.records]
        assert [mine.digest(i) for i in range(len(mine))] == [theirs.digest(i) for i in range(len(mine))]
        for index in range(0, len(mine), 20):
            np.testing.assert_array_equal(mine[index].image, theirs[index].image)
            np.testing.assert_equal(mine.mask(index), theirs.mask(index))
