"""Nearest patches, the sample of a stream, and the coreset, against slow definitions."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxad.memory import bank as bank_module
from jaxad.memory.bank import Reservoir, bank_entries, greedy_coreset, nearest_distance, stack_banks


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def as_accelerators(*given, **options):
    """What accelerators compute, here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank_module, "_nearest", bank_module._nearest_of_candidates)
        return nearest_distance(*given, **options)


def brute_force(tokens, banks, which, distance, neighbors):
    result = np.empty(tokens.shape[:2])
    for i, image in enumerate(tokens.astype(np.float64)):
        bank = banks[which[i]].astype(np.float64)
        bank = bank[~np.isnan(bank[:, 0])]
        if distance == "cosine":
            image = image / np.linalg.norm(image, axis=-1, keepdims=True)
            bank = bank / np.linalg.norm(bank, axis=-1, keepdims=True)
            far = 1 - image @ bank.T
        else:
            far = np.linalg.norm(image[:, None] - bank[None], axis=-1)
        result[i] = np.sort(far, axis=-1)[:, :neighbors].mean(-1)
    return result


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("neighbors", [1, 3])
@pytest.mark.parametrize(("groups", "chunk"), [(1, 100), (1, 7), (3, 5)])
def test_nearest_distance_agrees_with_brute_force(distance, neighbors, groups, chunk):
    tokens, banks = numbers(4, 6, 5), numbers(groups, 23, 5, seed=1)
    banks[-1, 15:] = np.nan
    which = np.array([0, groups - 1, groups // 2, 0], np.int32)
    entries = np.stack([bank_entries(bank, distance) for bank in banks])
    found = nearest_distance(tokens, entries, which, distance=distance, neighbors=neighbors, chunk=chunk)
    np.testing.assert_allclose(found, brute_force(tokens, banks, which, distance, neighbors), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize(("groups", "chunk", "neighbors"), [(1, 100, 1), (1, 7, 3), (3, 5, 2)])
def test_candidates_are_searched_in_16_bits_and_measured_in_32(distance, groups, chunk, neighbors):
    tokens, banks = numbers(4, 6, 64), numbers(groups, 23, 64, seed=1)
    # Fewer than are looked for.
    banks[-1, 3:] = np.nan
    which = np.array([0, groups - 1, groups // 2, 0], np.int32)
    entries = np.stack([bank_entries(bank, distance) for bank in banks])

    def search(tokens):
        return as_accelerators(tokens, entries, which, distance=distance, neighbors=neighbors, chunk=chunk)

    np.testing.assert_allclose(search(tokens), brute_force(tokens, banks, which, distance, neighbors), rtol=1e-5)
    program = str(jax.make_jaxpr(search)(tokens))
    # In either branch, which are the same here.
    assert program.count("dot_general") == 2 * 2
    assert "bf16" in program


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_platform_that_it_is_lowered_for_says_how_is_searched(platform):
    traced = jax.jit(nearest_distance).trace(numbers(2, 6, 64), numbers(1, 23, 64), np.zeros(2, np.int32))
    assert ("bf16" in traced.lower(lowering_platforms=(platform,)).as_text()) == (platform != "cpu")


def test_candidates_are_found_far_from_the_origin():
    """In 16 bits, products of such vectors say nothing of their distances."""
    bank = numbers(1, 400, 16) + 300
    tokens, which = bank[:, ::40] + 0.01 * numbers(1, 10, 16, seed=1), np.zeros(1, np.int32)
    found = as_accelerators(tokens, bank, which, distance="euclidean")
    expected = np.linalg.norm(tokens - bank[:, ::40], axis=-1)
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_remembered_patch_is_at_distance_zero(distance):
    tokens = numbers(1, 6, 5)
    bank = bank_entries(tokens[0], distance)[None]
    found = nearest_distance(tokens, bank, np.zeros(1, np.int32), distance=distance)
    # The euclidean distance is a root of a difference of float32 numbers near 5.
    np.testing.assert_allclose(found, 0, atol=2e-3 if distance == "euclidean" else 1e-6)


def test_fewer_entries_than_neighbors_average_those_there_are():
    tokens, bank = numbers(1, 4, 5), numbers(1, 2, 5, seed=1)
    found = nearest_distance(
        tokens, bank_entries(bank[0], "euclidean")[None], np.zeros(1, np.int32), distance="euclidean", neighbors=5
    )
    expected = brute_force(tokens, bank, [0], "euclidean", 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 40))
def test_reservoir_holds_the_same_sample_however_the_stream_is_cut(sizes, kept):
    stream = np.arange(sum(sizes), dtype=np.float32)[:, None]
    pieces, whole = Reservoir(kept, 3), Reservoir(kept, 3)
    whole.add(stream)
    for piece in np.split(stream, np.cumsum(sizes)[:-1]):
        pieces.add(piece)
    sample = whole.patches()
    np.testing.assert_array_equal(pieces.patches(), sample)
    assert len(sample) == min(kept, len(stream))
    assert (np.diff(sample[:, 0]) > 0).all()


def test_reservoir_takes_every_patch_equally_often():
    counts = np.zeros(40)
    for seed in range(1000):
        reservoir = Reservoir(10, seed)
        for piece in np.split(np.arange(40)[:, None], [3, 11, 30]):
            reservoir.add(piece)
        counts[reservoir.patches()[:, 0]] += 1
    # Binomial(1000, 1/4): standard deviation 13.7.
    assert np.abs(counts - 250).max() < 4 * 13.7


def test_greedy_coreset_is_the_k_center_search():
    patches = numbers(60, 4)
    chosen = greedy_coreset(patches, 12, jax.random.key(0))
    expected = [int(chosen[0])]
    for _ in range(11):
        far = np.linalg.norm(patches[:, None] - patches[expected][None], axis=-1).min(-1)
        expected.append(int(far.argmax()))
    assert chosen.tolist() == expected


def test_greedy_coreset_covers_better_than_chance_also_after_projection():
    patches = np.concatenate([0.1 * numbers(200, 300), 0.1 * numbers(5, 300, seed=1) + 3 * numbers(5, 300, seed=2)])
    chosen = greedy_coreset(patches, 10, jax.random.key(0), projection=64)
    assert set(range(200, 205)) <= set(chosen.tolist())
    assert len(set(chosen.tolist())) == 10


def test_greedy_coreset_of_equal_patches_takes_different_ones_and_no_more_than_there_are():
    assert sorted(greedy_coreset(np.ones((5, 3)), 9, jax.random.key(0)).tolist()) == [0, 1, 2, 3, 4]


def test_wrong_shapes_are_named_while_tracing():
    def shapes(**changes):
        given = {"tokens": ((2, 6, 5), "f4"), "banks": ((1, 9, 5), "f4"), "which": ((2,), "i4")} | changes
        return [jax.ShapeDtypeStruct(*wanted) for wanted in given.values()]

    assert jax.eval_shape(nearest_distance, *shapes()).shape == (2, 6)
    for change, message in (
        ({"tokens": ((6, 5), "f4")}, r"tokens must be \[b n c\]"),
        ({"banks": ((9, 5), "f4")}, r"banks must be \[g k c\]"),
        ({"banks": ((1, 9, 4), "f4")}, r"banks must be \[g k c\]"),
        ({"which": ((1,), "i4")}, r"which must be \[b\]"),
        ({"which": ((2,), "f4")}, "which must hold integers"),
    ):
        with pytest.raises(AssertionError, match=message):
            jax.eval_shape(nearest_distance, *shapes(**change))
    with pytest.raises(AssertionError, match=r"patches must be \[m c\]"):
        greedy_coreset(numbers(2, 3, 4), 2, jax.random.key(0))
    with pytest.raises(AssertionError, match="groups must be"):
        stack_banks([numbers(3, 4), numbers(3, 5)])


def test_an_empty_bank_is_at_distance_zero():
    bank = np.full((1, 4, 5), np.nan, np.float32)
    np.testing.assert_array_equal(nearest_distance(numbers(2, 3, 5), bank, np.zeros(2, np.int32)), 0)
