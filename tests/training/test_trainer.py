import csv
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import jaxad
from jaxad import parallel
from jaxad.data.pixels import pixel_hash
from jaxad.errors import CheckpointError, ConfigError, DataError, TrainingError
from jaxad.features import Encoder, FeatureCache, LastFeatures, LiveFeatures
from jaxad.inference.checkpoint_writer import CheckpointWriter
from jaxad.io.progress import Reporter
from jaxad.nn import module_state
from jaxad.nn.precision import product
from jaxad.testing import MODEL, TRAINING, make_parts, toy_model, toy_training
from jaxad.training.log import MetricsLog
from jaxad.training.optimizer import make_optimizer
from jaxad.training.run_folder import content_hash
from jaxad.training.step import DetectorTrainer, accumulated
from jaxad.types import Features


class Stopped(Exception):
    pass


class StopAt(Reporter):
    """Ends the run at a step as a crash would."""

    def __init__(self, step):
        super().__init__(quiet=True)
        self._at = step

    def steps(self, what, total, done):
        class Counter:
            def due(counter):
                return True

            def __call__(counter, step, loss):
                if step == self._at:
                    raise Stopped

        @contextmanager
        def counting():
            yield Counter()

        return counting()


def arrays(model):
    return {path: np.asarray(array) for path, array in module_state.split(model)[1].items()}


def assert_bit_equal(one, other):
    one, other = arrays(one), arrays(other)
    assert one.keys() == other.keys()
    assert [path for path in one if one[path].tobytes() != other[path].tobytes()] == []


def rows(workdir):
    with (workdir / "metrics.csv").open(newline="") as stream:
        return [
            {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
            for row in csv.DictReader(stream)
        ]


def test_a_run_names_itself_in_a_line_and_shows_its_limits(trained):
    rule = "a false-alarm rate of 0.01, 10 hold-out images"
    assert repr(trained).startswith(f"<Run in {trained.workdir}: <DPDiff-AD: disc, tile, random:32x2>, time 0:")
    assert repr(trained).endswith(f"threshold {rule}>")
    assert repr(trained.threshold) == f"<Threshold: {rule}, exact-256>"
    html = trained._repr_html_()
    assert f"{trained.threshold.of('tile').image:.4g}</td>" in html
    assert [name for name in ("all together", "disc", "tile") if f">{name}</th>" in html] == [
        "all together",
        "disc",
        "tile",
    ]
    assert len(html) < 3000


@pytest.mark.parametrize("step", [2, 7])
def test_a_run_stopped_at_any_step_and_resumed_is_bit_equal_to_an_undisturbed_one(parts, trained, tmp_path, step):
    again = {"workdir": tmp_path / "run", "holdout": parts.holdout}
    with pytest.raises(Stopped):
        jaxad.fit(toy_model(), parts.train, toy_training(), reporter=StopAt(step), **again)
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(), **again)
    assert_bit_equal(resumed.model, trained.model)
    assert resumed.threshold == trained.threshold
    assert rows(resumed.workdir) == rows(trained.workdir)


def test_every_logged_step_stands_once_in_metrics_csv(trained):
    table = rows(trained.workdir)
    assert [int(row["step"]) for row in table] == list(range(1, 13))
    names = {"step", "learning_rate", "loss", "diffusion", "local", "global", "sinkhorn_error", "gradient_norm"}
    assert table[0].keys() == names
    for row in table:
        total = float(row["diffusion"]) + 0.2 * float(row["local"]) + 0.001 * float(row["global"])
        assert float(row["loss"]) == pytest.approx(total, rel=1e-4)
        assert float(row["sinkhorn_error"]) < 1e-4
    assert float(table[0]["diffusion"]) == pytest.approx(1, abs=0.15)


def test_a_pass_after_the_last_step_shows_how_far_it_is(parts, tmp_path):
    class Counts(Reporter):
        def __init__(self):
            super().__init__(quiet=True)
            self.seen = {}

        @contextmanager
        def images(self, what, total, *, unit="images"):
            self.seen[what] = [total]
            yield self.seen[what].append

    without, with_one = Counts(), Counts()
    for name, reporter, changes in (("without", without, {}), ("with", with_one, {"levels": (20, 600)})):
        model = toy_model(local_prototypes=0, global_prototypes=0, sampling_steps=1, **changes)
        jaxad.fit(model, parts.train, toy_training(steps=1), workdir=tmp_path / name, reporter=reporter)
    total, *counts = with_one.seen["last pass"]
    assert sum(counts) == total == len(parts.train)
    assert "last pass" not in without.seen


def test_an_error_in_the_choice_of_the_threshold_costs_no_step(parts, trained, tmp_path, monkeypatch):
    again = {"workdir": tmp_path / "run", "holdout": parts.holdout}
    with monkeypatch.context() as patch:
        patch.setattr("jaxad.training.fit.measure_holdout", lambda *a, **k: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                jaxad.fit(toy_model(), parts.train, toy_training(), **again)
            assert jaxad.restore(tmp_path / "run").meta["step"] == TRAINING["steps"]
        assert jaxad.restore(tmp_path / "run").threshold is None
    table = (tmp_path / "run" / "metrics.csv").read_bytes()
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(), **again)
    assert_bit_equal(resumed.model, trained.model)
    assert resumed.threshold == trained.threshold == jaxad.restore(tmp_path / "run").threshold
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == table


def test_a_finished_workdir_is_loaded_without_work(parts, trained):
    before = (trained.workdir / "metrics.csv").read_bytes()
    loaded = jaxad.fit(toy_model(), parts.train, toy_training(), workdir=trained.workdir, holdout=parts.holdout)
    assert_bit_equal(loaded.model, trained.model)
    assert loaded.threshold == trained.threshold
    assert (trained.workdir / "metrics.csv").read_bytes() == before


@pytest.mark.slow
def test_a_killed_run_and_its_second_start_are_bit_equal_to_an_undisturbed_one(parts, trained, tmp_path):
    workdir, step = tmp_path / "run", random.Random(0).randrange(1, TRAINING["steps"])
    root = parts.train.records[0].file.parents[3]
    settings = {
        "data": str(root),
        "workdir": str(workdir),
        "model": MODEL,
        "train": TRAINING,
        "out": str(tmp_path / "o"),
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "tests.worker", str(tmp_path / "settings.json")]
    folder = Path(__file__).parents[1]
    victim = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    table = workdir / "metrics.csv"
    while victim.poll() is None and (not table.is_file() or table.read_text().count("\n") <= step):
        time.sleep(0.001)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, f"ended by itself before step {step}: {victim.communicate()[1]}"
    subprocess.run(command, cwd=folder, check=True)
    print(f"killed after step {step}")
    assert_bit_equal(jaxad.restore(workdir).detector, trained.model)
    assert rows(workdir) == rows(trained.workdir)


def test_a_workdir_of_another_run_is_refused_and_the_differences_named(parts, trained):
    with pytest.raises(CheckpointError) as error:
        jaxad.fit(toy_model(draws=2), parts.train, toy_training(learning_rate=1e-3, steps=11), workdir=trained.workdir)
    for difference in (
        "config.draws: 1 there, 2 now",
        "train.learning_rate: 0.005 there, 0.001 now",
        "train.steps: 12 are done there, 11 now",
    ):
        assert difference in str(error.value)
    assert "batch_size" not in str(error.value)


def test_a_run_belongs_to_its_images_wherever_they_lie(tmp_path):
    def fit(root, workdir):
        ds = jaxad.data.load(f"folder:{root}")
        model = jaxad.PatchBank.create(jaxad.PatchBankConfig(backbone="random:32x2", image_size=28, bank_size=8))
        return jaxad.fit(model, ds.train, workdir=workdir, provenance={"where": str(root)})

    here, elsewhere, run = make_parts(tmp_path / "here"), tmp_path / "elsewhere", tmp_path / "run"
    fit(here, run)
    shutil.copytree(here, elsewhere)
    fit(elsewhere, run)
    first, second = sorted((elsewhere / "disc" / "train" / "good").iterdir())[:2]
    kept = [file.read_bytes() for file in (first, second)]
    for file in (first, second):
        Image.fromarray(np.random.default_rng(len(file.name)).integers(0, 255, (64, 64, 3), np.uint8)).save(file)
    with pytest.raises(CheckpointError, match=r"data\.sha256\.images") as error:
        fit(elsewhere, run)
    assert "data.where" in str(error.value)
    # A source of the same images in another order of categories is another.
    first.write_bytes(kept[0])
    second.write_bytes(kept[1])
    ds = jaxad.data.load(f"folder:{elsewhere}").train
    assert content_hash(ds) == content_hash(jaxad.data.load(f"folder:{here}").train)
    assert content_hash(ds) != content_hash(ds.select(reversed(range(len(ds)))))
    assert content_hash(ds) != content_hash(ds, {"caption": np.arange(len(ds))})


def test_changed_notes_on_the_holdout_are_another_run(parts, trained, monkeypatch):
    """Captions at test time condition the threshold too."""
    monkeypatch.setattr(
        "jaxad.training.fit.extras_of",
        lambda _, records, training: {} if training else {"caption": np.arange(len(records))},
    )
    with pytest.raises(CheckpointError, match=r"sha256\.holdout") as caught:
        jaxad.fit(toy_model(), parts.train, toy_training(), workdir=trained.workdir, holdout=parts.holdout)
    assert "sha256.images" not in str(caught.value)


def test_a_folder_with_other_files_is_left_alone(parts, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(CheckpointError, match="not empty"):
        jaxad.fit(toy_model(), parts.train, toy_training(), workdir=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_no_training_images_is_an_error(parts, tmp_path):
    from jaxad.data import FolderSource

    with pytest.raises(DataError, match="no normal training images"):
        jaxad.fit(toy_model(), FolderSource("empty", ()), toy_training(), workdir=tmp_path / "run")


def test_caches_in_memory_and_on_disk_give_the_same_bits(parts, trained, tmp_path):
    config = toy_training(cache="disk")
    model = jaxad.fit(toy_model(), parts.train, config, workdir=tmp_path / "run").model
    assert_bit_equal(model, trained.model)
    assert (tmp_path / "run" / "features" / "manifest.json").is_file()


def test_training_without_a_cache_rounds_as_the_cache_does(parts, trained, tmp_path, monkeypatch):
    sizes, kept = set(), Encoder.kept
    monkeypatch.setattr(Encoder, "kept", lambda self, *a, **k: sizes.add(self.batch_size) or kept(self, *a, **k))
    # The first steps only: training amplifies what other batches of the frozen network change in the last bit.
    config = toy_training(cache="off", steps=2)
    jaxad.fit(toy_model(), parts.train, config, workdir=tmp_path / "run")
    for row, cached in zip(rows(tmp_path / "run"), rows(trained.workdir), strict=False):
        assert float(row["loss"]) == pytest.approx(float(cached["loss"]), rel=1e-5)
    # The frozen network takes no more images than a step needs.
    assert sizes == {config.batch_size}


def test_features_that_float16_cannot_hold_are_refused(parts, monkeypatch):
    bad = pixel_hash(parts.train[3].image)

    def encode(self, batch):
        return Features(jnp.where((batch.seed == bad)[:, None, None], 1e5, jnp.zeros((1, 16, 32))), (4, 4))

    monkeypatch.setattr(jaxad.DPDiff, "encode", encode)
    for read in (
        lambda: FeatureCache.build(toy_model(), parts.train),
        lambda: LiveFeatures(Encoder(toy_model()), parts.train)[[3]],
    ):
        with pytest.raises(TrainingError, match=parts.train.records[3].file.name) as error:
            read()
        assert parts.train.records[4].file.name not in str(error.value)


def test_a_disk_cache_is_reused_for_the_same_images_and_network_only(parts, tmp_path):
    model, calls = toy_model(), []
    build = lambda model, source: FeatureCache.build(model, source, folder=tmp_path, progress=calls.append)  # noqa: E731
    first = np.array(build(model, parts.holdout)[range(10)].tokens)
    assert sum(calls) == 10
    calls.clear()
    np.testing.assert_array_equal(build(model, parts.holdout)[range(10)].tokens, first)
    assert calls == []
    os.utime(parts.holdout.records[3].file)
    build(model, parts.holdout)
    assert sum(calls) == 10
    calls.clear()
    build(toy_model(blocks=(0,)), parts.holdout)
    assert sum(calls) == 10
    (tmp_path / "manifest.json").write_text('{"identi')
    build(toy_model(blocks=(0,)), parts.holdout)
    assert sum(calls) == 20


def test_fits_share_features_in_memory_of_the_same_images_and_networks(parts, tmp_path, monkeypatch):
    built, build = [], FeatureCache.build.__func__

    def counted(cls, detector, source, **how):
        built.append(len(source))
        return build(cls, detector, source, **how)

    monkeypatch.setattr(FeatureCache, "build", classmethod(counted))
    shared, count = LastFeatures(), len(parts.train)

    def fitted(name, features=shared, **changes):
        model, training = toy_model(local_prototypes=0, global_prototypes=0), toy_training(**{"steps": 2} | changes)
        return jaxad.fit(model, parts.train, training, workdir=tmp_path / name, features=features).model

    fitted("first")
    second = fitted("second", seed=1)
    assert built == [count]
    assert_bit_equal(second, fitted("alone", None, seed=1))
    # Features on disk let those in memory go.
    fitted("on disk", steps=1, cache="disk")
    fitted("again", steps=1)
    assert built == [count] * 4


def test_other_images_and_networks_have_features_of_their_own(parts):
    shared, built = LastFeatures(), []

    def asked(model, source):
        def build():
            built.append(len(source))
            return FeatureCache.build(model, source)

        return shared.of(model, source, build)

    few = parts.train.select(range(3))
    first = asked(toy_model(), few)
    assert asked(toy_model(sampling_steps=2), few) is first
    for model, source in ((toy_model(), few.select(range(2))), (toy_model(blocks=(0,)), few.select(range(2)))):
        asked(model, source)
    assert built == [3, 2, 2]
    shared.clear()
    asked(toy_model(blocks=(0,)), few.select(range(2)))
    assert built == [3, 2, 2, 2]


def test_a_damaged_disk_cache_is_named_and_built_anew(parts, tmp_path):
    model, told = toy_model(), []
    first = np.array(FeatureCache.build(model, parts.holdout, folder=tmp_path)[range(10)].tokens)
    file = tmp_path / "0.npy"
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = FeatureCache.build(model, parts.holdout, folder=tmp_path, warn=told.extend)
    np.testing.assert_array_equal(again[range(10)].tokens, first)
    assert [str(file) in line for line in told] == [True]


def small_step(**changes):
    """A trainer, its first state and a batch, with one block and no prototypes for a quick compilation."""
    model = toy_model(local_prototypes=0, global_prototypes=0)
    trainer = DetectorTrainer(model, toy_training(**changes), parallel.make_mesh())
    tokens = np.random.default_rng(0).normal(size=(4, 16, 32)).astype(np.float32)
    return model, trainer, trainer.init(), Features(tokens, (4, 4))


def test_moving_average_follows_the_parameters_and_is_what_is_evaluated():
    _, trainer, state, batch = small_step(ema=0.75)
    path = "denoiser/project_out/kernel"
    average = np.asarray(state.params[path])
    for step in range(3):
        state, _ = trainer.step(state, batch, jax.random.key(step))
        average = 0.75 * average + 0.25 * np.asarray(state.params[path])
    np.testing.assert_allclose(state.ema[path], average, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(arrays(trainer.detector(state))[path], np.asarray(state.ema[path]))
    assert np.abs(average - np.asarray(state.params[path])).max() > 1e-4


def test_training_leaves_the_detector_it_was_given_and_its_backbone_as_they_were():
    model, trainer, state, batch = small_step()
    before = arrays(model)
    state, _ = trainer.step(state, batch, jax.random.key(0))
    after = arrays(trainer.detector(state))
    assert_bit_equal(model, module_state.merge(module_state.split(model)[0], before))
    changed = {path for path in before if before[path].tobytes() != after[path].tobytes()}
    assert "denoiser/project_out/kernel" in changed
    assert not [path for path in changed if path.startswith(("backbone/", "channel_"))]


def test_state_keeps_its_layout_from_step_to_step():
    _, trainer, state, batch = small_step()
    layout = jax.tree.map(lambda array: array.sharding, state)
    state, _ = trainer.step(state, batch, jax.random.key(0))
    assert jax.tree.map(lambda array: array.sharding, state) == layout


def test_gradients_of_several_batches_are_averaged():
    batch = {"x": jnp.arange(6.0), "n": jnp.arange(6)}

    def differentiate(w, batch, key):
        return jax.value_and_grad(lambda w: ((w * batch["x"] + batch["n"]) ** 2).mean())(w)

    whole, parts = differentiate(2.0, batch, None), accumulated(differentiate, 3, 2.0, batch, jax.random.key(0))
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    seen = accumulated(lambda w, batch, key: w * batch["x"] * 3 ** batch["n"], 2, 1.0, batch, jax.random.key(0))
    # Images 0, 2, 4 make the first batch and 1, 3, 5 the second.
    np.testing.assert_allclose(seen, [(0 + 1 * 3) / 2, (2 * 9 + 3 * 27) / 2, (4 * 81 + 5 * 243) / 2])


def test_kernels_in_the_compute_type_are_not_kept_from_batch_to_batch():
    """As copies beside all parameters they would cost half as much memory again, and transposed ones as much."""

    def loss(kernel, batch, key):
        return product(jnp.tanh(product(batch, kernel, "bfloat16", "float32")), kernel, "bfloat16", "float32").sum()

    step = jax.jit(partial(accumulated, jax.value_and_grad(loss), 4))
    text = step.lower(jnp.zeros((48, 48)), jnp.zeros((16, 48)), jax.random.key(0)).compile().as_text()
    (loop,) = [line.partition(" while(")[0] for line in text.splitlines() if " while(" in line]
    assert "f32[48,48]" in loop
    assert "bf16[48,48]" not in loop


def test_learning_rate_warms_up_and_decays():
    _, rate = make_optimizer(toy_training(steps=110, warmup_steps=10, learning_rate=2.0, schedule="cosine"))
    values = [float(rate(step)) for step in range(110)]
    np.testing.assert_allclose(values[:11], np.linspace(0, 2, 11), atol=1e-6)
    np.testing.assert_allclose(values[10:], 1 + np.cos(np.pi * np.arange(100) / 100), atol=1e-5)
    _, rate = make_optimizer(toy_training(learning_rate=2.0))
    assert [float(rate(step)) for step in (0, 5, 1000)] == [2.0, 2.0, 2.0]


def test_gradients_are_clipped_to_their_global_norm():
    params = {"a": jnp.zeros(3), "b": jnp.zeros(1)}
    gradient = {"a": jnp.array([3.0, 0.0, 0.0]), "b": jnp.array([4.0])}
    for clip, expected in ((None, 1.0), (10.0, 1.0), (0.5, 0.1)):
        optimizer, _ = make_optimizer(toy_training(clip_norm=clip))
        state = optimizer.update(gradient, optimizer.init(params), params)[1]
        moments = optax.tree_utils.tree_get(state, "mu")
        np.testing.assert_allclose(moments["b"], 0.1 * 4 * expected, rtol=1e-5)


def test_weight_decay_is_decoupled():
    params = {"a": jnp.full(2, 10.0)}
    optimizer, _ = make_optimizer(toy_training(clip_norm=None, weight_decay=0.1, learning_rate=0.5))
    updates, _ = optimizer.update({"a": jnp.zeros(2)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.5 * 0.1 * 10, rtol=1e-6)


def test_sgd_decays_with_the_gradient_and_has_momentum():
    params = {"a": jnp.full(2, 10.0)}
    training = toy_training(optimizer="sgd", clip_norm=None, weight_decay=0.1, learning_rate=0.5)
    optimizer, _ = make_optimizer(training)
    state = optimizer.init(params)
    for expected in (3.0 + 1.0, 0.9 * 4.0 + 3.0 + 1.0):
        updates, state = optimizer.update({"a": jnp.full(2, 3.0)}, state, params)
        np.testing.assert_allclose(updates["a"], -0.5 * expected, rtol=1e-6)


def test_metrics_log_drops_what_comes_after_the_checkpoint_and_what_was_cut_off(tmp_path):
    file = tmp_path / "metrics.csv"
    with MetricsLog(file, 0) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step / 3, "images_per_second": None})
    file.write_text(file.read_text() + "1")
    with MetricsLog(file, 2):
        assert [line[:2] for line in file.read_text().splitlines()] == ["st", "1,", "2,"]
    with MetricsLog(file, 2) as log:
        log.write(3, {"loss": math.nan, "images_per_second": 5.0})
    with file.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [(row["step"], row["loss"], row["images_per_second"]) for row in table] == [
        ("1", "0.333333", ""),
        ("2", "0.666667", ""),
        ("3", "nan", "5.0"),
    ]
    assert float(table[2]["seconds"]) >= float(table[1]["seconds"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("\n2,", "\nx2,"),
        lambda text: "".join(text.splitlines(True)[1:]),
        lambda text: text + "3,nan,1\n",
        lambda text: text.replace("\n1,", "\n1,7,7,7,"),
        lambda text: "\udcff\0" * 9,
        lambda text: text.replace("loss", "lost"),
    ],
    ids=["step", "no head", "seconds", "too long", "binary", "column"],
)
def test_a_damaged_metrics_log_is_set_aside_and_begun_anew(tmp_path, damage):
    file, told = tmp_path / "metrics.csv", []
    with MetricsLog(file, 0) as log:
        for step in (1, 2):
            log.write(step, {"loss": step / 3})
    damaged = damage(file.read_text()).encode("utf-8", "surrogateescape")
    file.write_bytes(damaged)
    with MetricsLog(file, 2, told.extend) as log:
        log.write(3, {"loss": 0.5})
        log.write(4, {"loss": 0.25})
    with file.open(newline="") as stream:
        assert [(row["step"], row["loss"]) for row in csv.DictReader(stream)] == [("3", "0.5"), ("4", "0.25")]
    assert (tmp_path / "metrics-damaged.csv").exists()
    assert [str(file) in line for line in told] == [True]


def test_batches_must_divide_over_the_devices(parts, tmp_path):
    with pytest.raises(ConfigError, match="multiple of the number of devices, 2"):
        jaxad.fit(toy_model(), parts.train, toy_training(batch_size=3), workdir=tmp_path / "run")


def test_old_checkpoints_are_removed(trained):
    steps = sorted(int(folder.name) for folder in (trained.workdir / "checkpoints").iterdir())
    assert steps == [8, 12]
    with CheckpointWriter(trained.workdir) as writer:
        assert writer.latest == 12


def test_features_of_other_images_are_refused(parts, tmp_path):
    features = FeatureCache.build(toy_model(), parts.holdout)
    with pytest.raises(DataError, match="other images or another network"):
        jaxad.fit(toy_model(), parts.train, toy_training(), workdir=tmp_path / "run", features=features)
    assert not (tmp_path / "run").exists()
