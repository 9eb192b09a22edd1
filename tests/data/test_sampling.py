from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxad.data.sampling import TrainingOrder

categories = st.lists(st.sampled_from("abcd"), min_size=1, max_size=30)


@settings(max_examples=50)
@given(categories, st.integers(0, 5))
def test_even_draws_every_category_equally_often(names, seed):
    order, kinds = TrainingOrder(names, "even", seed), set(names)
    drawn = [order[i] for i in range(12 * len(kinds))]
    for start in range(0, len(drawn), len(kinds)):
        assert {names[i] for i in drawn[start : start + len(kinds)]} == kinds


@settings(max_examples=50)
@given(categories, st.integers(0, 5))
def test_even_walks_through_a_category_before_it_repeats_an_image(names, seed):
    order = TrainingOrder(names, "even", seed)
    drawn = [order[i] for i in range(3 * len(names) * len(set(names)))]
    for kind in set(names):
        own, size = [i for i in drawn if names[i] == kind], names.count(kind)
        for start in range(0, len(own) - size + 1, size):
            assert sorted(own[start : start + size]) == [i for i, name in enumerate(names) if name == kind]


@settings(max_examples=50)
@given(categories, st.integers(0, 5))
def test_size_draws_every_image_once_an_epoch(names, seed):
    order = TrainingOrder(names, "size", seed)
    for epoch in range(3):
        drawn = [order[i] for i in range(epoch * len(names), (epoch + 1) * len(names))]
        assert sorted(drawn) == list(range(len(names)))


@pytest.mark.parametrize("sampling", ["even", "size"])
def test_a_batch_depends_on_seed_and_step_alone(sampling):
    names = ["a"] * 7 + ["b"] * 3
    straight, late = TrainingOrder(names, sampling, 1), TrainingOrder(names, sampling, 1)
    batches = [straight.batch(step, 4) for step in range(30)]
    np.testing.assert_array_equal(late.batch(29, 4), batches[29])
    np.testing.assert_array_equal(np.concatenate(batches), [straight[i] for i in range(120)])
    other = TrainingOrder(names, sampling, 2)
    assert not np.array_equal(np.concatenate([other.batch(step, 4) for step in range(30)]), np.concatenate(batches))


def test_epochs_differ_and_small_categories_are_not_left_behind():
    names = ["big"] * 90 + ["small"] * 10
    order = TrainingOrder(names, "size", 0)
    first, second = ([order[i] for i in range(start, start + 100)] for start in (0, 100))
    assert first != second
    share = Counter(names[i] for i in np.concatenate([TrainingOrder(names).batch(step, 10) for step in range(20)]))
    assert share == {"big": 100, "small": 100}
