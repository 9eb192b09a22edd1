"""Runs of a sweep: each is done once, whoever else is at it, whatever became of the others."""

from __future__ import annotations

import multiprocessing
import threading
import time
from dataclasses import replace

import jax
import pytest

import jaxad
from jaxad.errors import ConfigError, TrainingError
from jaxad.io.locks import occupied
from jaxad.testing import MODEL, toy_training
from jaxad.training.sweep import sweep

SMALL = {"backbone": MODEL["backbone"], "image_size": MODEL["image_size"]}
SETTINGS = {f"depth-{depth}/seed-{seed}": {"depth": depth, "seed": seed} for depth in (1, 2) for seed in (0, 1)}


def note(folder, setting):
    """Work that leaves its setting as result."""
    (folder / "result").write_text(str(setting["depth"]))
    return setting["depth"]


def test_what_has_its_result_is_not_done_again(tmp_path):
    assert sweep(tmp_path, SETTINGS, note).done == {name: one["depth"] for name, one in SETTINGS.items()}
    (tmp_path / "depth-1/seed-1/result").unlink()
    assert sweep(tmp_path, SETTINGS, note, result="result").done == dict.fromkeys(SETTINGS) | {"depth-1/seed-1": 1}


def test_another_setting_of_the_same_name_is_refused_before_any_work(tmp_path):
    sweep(tmp_path, {"a": toy_training(), "b": {"x": (1, 2)}, "c": 3}, lambda folder, setting: None)
    work: list[object] = []
    with pytest.raises(ConfigError) as error:
        sweep(tmp_path, {"d": 1, "a": toy_training(steps=9), "b": {"x": (1, 3)}, "c": 3}, lambda *one: work.append(one))
    assert f"{tmp_path / 'a.json'}: steps: 12 there, 9 now; give it another name" in str(error.value)
    assert "x: [1, 2] there, [1, 3] now" in str(error.value)
    with pytest.raises(ConfigError, match=r"'\.\./a': a path out of the folder"):
        sweep(tmp_path, {"../a": 1}, lambda *one: work.append(one))
    with pytest.raises(ConfigError, match="'a/b': lies in the folder of another one"):
        sweep(tmp_path / "more", {"a": 1, "a/b": 2, "ab": 3}, lambda *one: work.append(one))
    assert work == []


def test_an_error_does_not_keep_the_others_from_being_done(tmp_path):
    def work(folder, setting):
        if setting["depth"] == 1:
            raise TrainingError(f"no loss of seed {setting['seed']}")
        return setting["seed"]

    swept = sweep(tmp_path, SETTINGS, work)
    assert swept.done == {"depth-2/seed-0": 0, "depth-2/seed-1": 1}
    assert {name: str(error) for name, error in swept.failed.items()} == {
        f"depth-1/seed-{seed}": f"no loss of seed {seed}" for seed in (0, 1)
    }


@pytest.mark.parametrize("ends", [True, False])
def test_a_run_that_another_is_at_is_left_out_and_looked_at_again(tmp_path, ends):
    held, go = threading.Event(), threading.Event()

    def other():
        with occupied(tmp_path / "a", "workdir"):
            held.set()
            go.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(30)

    def work(folder, setting):
        if ends:
            go.set()
            thread.join()
        return setting

    swept = sweep(tmp_path, {"a": 1, "b": 2}, work)
    go.set()
    thread.join()
    assert swept.done == ({"a": 1, "b": 2} if ends else {"b": 2})
    assert list(swept.elsewhere) == ([] if ends else ["a"])


def _share(root, place):
    def work(folder, setting):
        with (folder / "by").open("a") as stream:
            stream.write(f"{place}\n")
        time.sleep(0.3)
        (folder / "result").write_text("")

    sweep(root, {str(number): number for number in range(6)}, work, result="result")


@pytest.mark.slow
def test_processes_share_the_runs(tmp_path):
    start = multiprocessing.get_context("spawn").Process
    processes = [start(target=_share, args=(tmp_path, place)) for place in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    by = [(tmp_path / str(number) / "by").read_text().splitlines() for number in range(6)]
    assert [len(one) for one in by] == [1] * 6
    assert {one for (one,) in by} == {"0", "1"}


def test_fit_goes_on_in_a_sweep(parts, tmp_path):
    def work(folder, setting):
        return jaxad.fit(jaxad.PatchBank.create(setting, key=jax.random.key(0)), parts.train, workdir=folder).seconds

    settings = {f"seed-{seed}": jaxad.PatchBankConfig(**SMALL, seed=seed) for seed in (0, 1)}
    assert min(sweep(tmp_path, settings, work).done.values()) > 0
    # A larger chunk is no other setting.
    settings["seed-1"] = replace(settings["seed-1"], chunk=8192)
    assert set(sweep(tmp_path, settings, work).done.values()) == {0.0}
