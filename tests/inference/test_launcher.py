"""Batches on a CPU of several cores go to it as two halves, from two threads."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import parallel
from jaxad.data import ImageList
from jaxad.inference import launcher
from jaxad.inference.launcher import Launcher
from jaxad.inference.predictor import Predictor
from jaxad.testing import toy_model
from tests.compilations import counted

IMAGES = [np.random.default_rng(seed).integers(0, 255, (60, 56, 3), np.uint8) for seed in range(7)]

SMALL = 1000


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


def predictions(detector, mesh, **options):
    outputs = Predictor(detector, batch_size=4, mesh=mesh).stream(ImageList(IMAGES), **options)
    return [(output.scores, output.maps, output.explanations) for output in outputs]


@pytest.mark.parametrize(("cores", "images", "halved"), [(2, 4, True), (8, 2, True), (1, 4, False), (2, 3, False)])
def test_two_threads_have_half_a_batch_each(cores, images, halved, mesh, monkeypatch):
    monkeypatch.setattr(launcher, "cpus", lambda: cores)
    calls = []

    def program(factor, x, y):
        calls.append((threading.get_ident(), len(x)))
        assert isinstance(x, np.ndarray), "the one CPU takes arrays of the host as they are"
        return factor * x, {"sum": x + y["y"], "none": None}

    x, y = np.arange(images, dtype=np.float32), np.ones(images, np.float32)
    doubled, more = Launcher(mesh, images, SMALL)(program, jnp.float32(2), x, {"y": y})()
    np.testing.assert_array_equal(doubled, 2 * x)
    np.testing.assert_array_equal(more["sum"], x + 1)
    assert isinstance(doubled, np.ndarray)
    assert [size for _, size in calls] == ([images // 2] * 2 if halved else [images])
    assert len({thread for thread, _ in calls}) == len(calls)


@pytest.mark.parametrize(("cores", "images", "threads"), [(2, 1, 2), (2, 3, 2), (1, 1, 1)])
def test_batches_that_cannot_be_halved_come_from_two_threads_in_turn(cores, images, threads, mesh, monkeypatch):
    monkeypatch.setattr(launcher, "cpus", lambda: cores)
    launch, calls = Launcher(mesh, images, SMALL), []

    def program(_, x):
        calls.append(threading.get_ident())
        return 2 * x

    pending = [launch(program, None, np.full(images, number, np.float32)) for number in range(4)]
    for number, result in enumerate(pending):
        np.testing.assert_array_equal(result(), np.full(images, 2 * number))
    assert calls.count(threading.get_ident()) == 4 // threads
    assert len(set(calls)) == threads


@pytest.mark.parametrize("images", [1, 4])
def test_large_networks_have_one_program_at_a_time(images, mesh, monkeypatch):
    monkeypatch.setattr(launcher, "cpus", lambda: 4)
    launch, calls, x = Launcher(mesh, images, launcher.LARGE), [], np.zeros(images)
    for _ in range(2):
        launch(lambda _, x: calls.append((threading.get_ident(), len(x))) or x, None, x)()
    assert calls == [(threading.get_ident(), images)] * 2


def test_several_devices_have_the_whole_batch(monkeypatch):
    monkeypatch.setattr(launcher, "cpus", lambda: 4)
    sizes, x = [], np.arange(4, dtype=np.float32)
    two = parallel.make_mesh(2, jax.devices()[:2])
    Launcher(two, 4, SMALL)(lambda _, x: sizes.append(len(x)) or x, None, x)()
    assert sizes == [4]


def test_results_do_not_tell_halves_from_the_whole(mesh, monkeypatch):
    """Of the answer and of pictures; and one half compiles for both."""
    detector = toy_model()
    found = {}
    for cores in (1, 2):
        monkeypatch.setattr(launcher, "cpus", lambda cores=cores: cores)
        with counted() as counts:
            plain = predictions(detector, mesh)
        found[cores] = plain, predictions(detector, mesh, explain=("features",))
        assert counts["programs"] == 1
    assert [len(scores) for scores, _, _ in found[2][0]] == [4, 3]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found[1], found[2])
    assert not np.array_equal(*(output[0][:2] for output in found[2][0]))


def test_an_error_in_the_other_half_is_raised(mesh, monkeypatch):
    monkeypatch.setattr(launcher, "cpus", lambda: 2)

    def program(_, x):
        if x[0]:
            raise ValueError("second half")
        return x

    pending = Launcher(mesh, 2, SMALL)(program, None, np.arange(2))
    with pytest.raises(ValueError, match="second half"):
        pending()
