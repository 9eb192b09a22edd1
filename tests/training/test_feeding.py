"""Every way that features take to a training step brings the same arrays in the same layout."""

import errno
import os
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxad
from jaxad import parallel
from jaxad.features import FEATURES, Encoder, FeatureCache, LiveFeatures
from jaxad.testing import toy_model, toy_training
from jaxad.training import feeding, trainer
from jaxad.training.feeding import Resident, batches_of
from jaxad.types import Features
from tests.training.test_trainer import StopAt, Stopped, assert_bit_equal

MESH = parallel.make_mesh()
NUMBERS = [4, 0, 3, 3]


@pytest.fixture(scope="module")
def cache():
    """Features of five images, which do not divide evenly over two devices."""
    draw = np.random.default_rng(0)
    tokens = draw.normal(size=(5, 4, 3)).astype(np.float16)
    tokens[3, 0, 0] = 65504
    return FeatureCache(Features(tokens, (2, 2), {"caption": draw.integers(0, 9, (5, 7)).astype(np.int32)}), "")


def no_room():
    return 0


def ways(cache):
    return {
        "host": batches_of(cache, MESH, 0.5, no_room),
        "whole": batches_of(cache, MESH, 0.5, no_room, limit=cache.bytes),
        "spread": batches_of(cache, MESH, 0.5, no_room, limit=cache.bytes - 1),
        "too little": batches_of(cache, MESH, 0.5, no_room, limit=cache.bytes // 2),
    }


def test_every_way_gives_the_same_batch(cache):
    found = ways(cache)
    assert [getattr(way, "spread", None) for way in found.values()] == [None, False, True, None]
    for way in found.values():
        batch = way(NUMBERS)
        assert batch.grid == (2, 2)
        for array, kept in zip(jax.tree.leaves(batch), jax.tree.leaves(cache.arrays), strict=True):
            assert array.dtype == kept.dtype
            assert array.sharding.is_equivalent_to(parallel.batch_sharding(MESH), array.ndim)
            np.testing.assert_array_equal(array, kept[NUMBERS])


def test_what_is_spread_is_never_put_together(cache):
    spread = Resident(cache.arrays, MESH, spread=True)
    assert {len(shard.data) for shard in spread._arrays.tokens.addressable_shards} == {3}
    program = spread._gather.lower(spread._arrays, jnp.asarray(NUMBERS)).compile().as_text()
    assert "reduce-scatter" in program
    assert "all-gather" not in program


def test_features_made_anew_stay_on_the_devices_and_are_those_of_a_cache(parts):
    model, numbers = toy_model(), [5, 0, 9, 9, 2, 7]
    live = LiveFeatures(Encoder(model, batch_size=4), parts.train)
    batch = batches_of(live, MESH, 0.5, no_room)(numbers)
    cached = FeatureCache.build(model, parts.train, encoder=Encoder(model, batch_size=4))
    assert batch.tokens.dtype == jnp.float16
    assert batch.tokens.sharding.is_equivalent_to(parallel.batch_sharding(MESH), 3)
    np.testing.assert_allclose(np.asarray(batch.tokens, np.float32), cached[numbers].tokens, rtol=1e-2, atol=1e-2)
    np.testing.assert_array_equal(np.asarray(batch.tokens, np.float32), live[numbers].tokens)
    whole = np.concatenate([part.tokens for part in live.stream()])
    np.testing.assert_array_equal(whole, cached[range(len(cached))].tokens)


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_run_is_the_same_wherever_its_features_are(parts, trained, tmp_path, monkeypatch, share):
    size = FeatureCache.size(toy_model(), len(parts.train))
    monkeypatch.setattr(feeding, "_free", lambda: size)
    made = []
    monkeypatch.setattr(feeding, "Resident", lambda *a, **k: made.append(k["spread"]) or Resident(*a, **k))
    run = jaxad.fit(
        toy_model(), parts.train, toy_training(device_share=share), workdir=tmp_path / "run", holdout=parts.holdout
    )
    assert made == [share < 1]
    assert_bit_equal(run.model, trained.model)


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_resuming_encodes_nothing_twice_and_takes_statistics_from_the_checkpoint(
    parts, trained, tmp_path, monkeypatch, where
):
    again = {"workdir": tmp_path / "run", "holdout": parts.holdout}
    with pytest.raises(Stopped):
        jaxad.fit(toy_model(), parts.train, toy_training(cache=where), reporter=StopAt(7), **again)
    encoded = encoded_from_now(monkeypatch)
    monkeypatch.setattr(jaxad.DPDiff, "prepare", lambda self, features: pytest.fail("computed again"))
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(cache=where), **again)
    assert not encoded
    assert_bit_equal(resumed.model, trained.model)
    assert (tmp_path / "run/features").exists() == (where == "disk"), "of those in memory nothing is left"


def encoded_from_now(monkeypatch):
    """Gets the records of all images that are encoded."""
    encoded, stream = [], Encoder._batches
    monkeypatch.setattr(Encoder, "_batches", lambda *a: (encoded.extend(b.records) or (d, b) for d, b in stream(*a)))
    return encoded


class Telling(StopAt):
    """Keeps what it warns of."""

    def __init__(self, step):
        super().__init__(step)
        self.told = []

    def warn(self, texts):
        self.told.extend(texts)


@pytest.mark.parametrize("fault", ["no room", "disk full", "damaged"])
def test_features_in_memory_without_a_whole_copy_are_computed_again(parts, trained, tmp_path, monkeypatch, fault):
    again, folder = {"workdir": tmp_path / "run", "holdout": parts.holdout}, tmp_path / "run/features"
    first, second = Telling(7), Telling(-1)

    def fails(file, array):
        file.write_bytes(b"begun")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if fault == "no room":
            # For the features alone there would be; checkpoints come first.
            usage = shutil.disk_usage(tmp_path)._replace(free=FeatureCache.size(toy_model(), len(parts.train)) + 1)
            patched.setattr(trainer, "shutil", SimpleNamespace(disk_usage=lambda place: usage))
        elif fault == "disk full":
            patched.setattr(np, "save", fails)
        with pytest.raises(Stopped):
            jaxad.fit(toy_model(), parts.train, toy_training(), reporter=first, **again)
    if fault == "damaged":
        (folder / "0.npy").write_bytes((folder / "0.npy").read_bytes()[:-1] + b"?")
        assert not first.told
    else:
        assert not folder.exists()
        assert len(first.told) == 1
        assert "features cannot be kept beside the run: No space left on device" in first.told[0]
    encoded = encoded_from_now(monkeypatch)
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(), reporter=second, **again)
    assert len(encoded) == len(parts.train)
    assert ("anew" in " ".join(second.told)) == (fault == "damaged")
    assert_bit_equal(resumed.model, trained.model)
    assert not folder.exists()


def test_a_copy_that_a_complete_run_has_left_is_removed_and_a_cache_on_disk_is_not(parts, tmp_path):
    """As of a process that was killed after its last step."""
    cache = FeatureCache.build(toy_model(), parts.train)
    for name, where in (("memory", "memory"), ("disk", "disk")):
        folder = tmp_path / name / FEATURES
        run = {"workdir": tmp_path / name, "holdout": parts.holdout}
        jaxad.fit(toy_model(), parts.train, toy_training(steps=1, cache=where), **run)
        if where == "memory":
            cache.save(folder)
        # Another cache is no other run.
        jaxad.fit(toy_model(), parts.train, toy_training(steps=1), **run)
        assert folder.exists() == (where == "disk")


def test_features_take_no_memory_that_the_step_needs(monkeypatch, cache):
    monkeypatch.setattr(feeding, "_free", lambda: 10 * cache.bytes)
    assert not batches_of(cache, MESH, 0.5, lambda: cache.bytes).spread
    assert batches_of(cache, MESH, 0.5, lambda: cache.bytes - 1).spread
    assert not isinstance(batches_of(cache, MESH, 0.5, lambda: -1), Resident)
