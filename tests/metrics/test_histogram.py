import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxad.metrics.histogram import ScoreHistogram, key_scores, score_keys
from tests.metrics import cases

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram(*parts, resolution=16):
    result = ScoreHistogram(resolution)
    for part in parts:
        result.add(part)
    return result


def test_so_many_scores_as_are_asked_for_are_kept():
    scores = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    result = ScoreHistogram(16, exact=2 * len(scores))
    for part in np.split(scores, 10):
        result.add(part)
    back = ScoreHistogram.from_arrays(result.to_arrays()).merge(ScoreHistogram(16))
    back.add(scores)
    for each in (result, back):
        np.testing.assert_array_equal(each.lower, np.unique(scores))
        np.testing.assert_array_equal(each.upper, np.unique(scores))
    back.add(np.concatenate([scores + 0.1, scores + 0.2]))
    assert back.shifts.any()


@given(st.lists(finite, min_size=1, max_size=50))
def test_keys_keep_the_order_and_invert(values):
    scores = np.array(sorted(values), np.float32)
    keys = score_keys(scores)
    np.testing.assert_array_equal(keys[1:] > keys[:-1], scores[1:] > scores[:-1])
    np.testing.assert_array_equal(key_scores(keys), scores)


def test_both_zeros_are_one_score():
    zeros = histogram(np.array([0.0, -0.0], np.float32))
    assert zeros.keys.size == 1
    assert zeros.mass[0] == 2


@pytest.mark.parametrize("name", cases.NAMES)
def test_every_cell_is_one_score_or_a_small_share_of_what_outranks_it(name):
    scores = cases.maps(name, cases.masks(8)).reshape(4, -1)
    result = histogram(*scores)
    result._compact()
    above = result.mass.sum() - np.cumsum(result.mass)
    wide = result.shifts > 0
    assert (result.mass[wide] <= above[wide] / 16).all()
    assert result.mass.sum() == scores.size


@pytest.mark.parametrize("name", cases.NAMES)
def test_rank_of_every_score_lies_between_its_bounds(name):
    scores = cases.maps(name, cases.masks(8)).reshape(4, -1)
    result = histogram(*scores)
    for threshold in np.quantile(scores, [0, 0.01, 0.3, 0.9, 0.999, 1]):
        rank = (scores >= threshold).sum()
        assert result.mass[result.lower >= threshold].sum() <= rank <= result.mass[result.upper >= threshold].sum()


def test_widest_cells_are_as_wide_as_the_rule_allows():
    scores = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    result = histogram(scores)
    keys, mass, total = result.keys.astype(np.int64), result.mass, result.mass.sum()
    for key, shift in zip(keys, result.shifts, strict=True):
        low = key >> (shift + 1) << (shift + 1)
        inside = (keys >= low) & (keys < low + (2 << int(shift)))
        assert mass[inside].sum() > mass[keys >= low + (2 << int(shift))].sum() / 16
    assert total == 4000


def test_memory_does_not_grow_with_the_data():
    random = np.random.default_rng(0)
    result, sizes = ScoreHistogram(256), []
    for _ in range(40):
        result.add(random.standard_normal(20_000).astype(np.float32))
        sizes.append(result.nbytes)
    assert max(sizes) < 4 * 800_000 / 40
    assert max(sizes[20:]) < 1.5 * max(sizes[:20])


def test_late_mass_in_an_old_wide_cell_is_told_apart():
    random = np.random.default_rng(0)
    late = (1 + 1e-5 * random.standard_normal(20_000)).astype(np.float32)
    result = histogram(random.uniform(0, 4, 20_000).astype(np.float32), late, resolution=64)
    inside = (result.lower > 0.9999) & (result.upper < 1.0001)
    assert inside.sum() > 50


def test_merging_is_associative_and_commutative_and_loses_nothing():
    random = np.random.default_rng(0)
    a, b, c = (histogram(random.standard_normal(n).astype(np.float32)) for n in (3000, 500, 7000))
    for one, other in ((a.merge(b).merge(c), a.merge(b.merge(c))), (a.merge(b), b.merge(a))):
        for name, array in one.to_arrays().items():
            np.testing.assert_array_equal(array, other.to_arrays()[name])
    assert a.merge(b).mass.sum() == 3500
    assert a.mass.sum() == 3000


def test_merging_with_nothing_changes_nothing():
    full = histogram(np.arange(100, dtype=np.float32))
    np.testing.assert_array_equal(full.merge(ScoreHistogram(16)).keys, full.keys)
    assert ScoreHistogram(16).merge(full).range == (0, 99)


def test_different_resolutions_do_not_merge():
    with pytest.raises(ValueError, match="16 and 32"):
        ScoreHistogram(16).merge(ScoreHistogram(32))


def test_arrays_round_trip_through_npz(tmp_path):
    full = histogram(np.random.default_rng(0).standard_normal(5000).astype(np.float32))
    np.savez(tmp_path / "state.npz", **full.to_arrays())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as arrays:
        back = ScoreHistogram.from_arrays(arrays)
    for name, array in full.to_arrays().items():
        np.testing.assert_array_equal(array, back.to_arrays()[name])
    assert ScoreHistogram.from_arrays(ScoreHistogram(16).to_arrays()).range is None


@settings(max_examples=40, deadline=None)
@given(st.lists(finite, min_size=1, max_size=200), st.integers(1, 8))
def test_extreme_scores_keep_their_mass_and_range(values, resolution):
    scores = np.array(values, np.float32)
    result = histogram(scores, scores[::-1].copy(), resolution=resolution)
    result._compact()
    assert result.mass.sum() == 2 * len(values)
    assert result.lower.min() == scores.min()
    assert result.upper.max() == scores.max()
    assert np.isfinite(result.upper).all()
