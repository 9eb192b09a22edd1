"""`jaxad bench dpdiff`: what is timed here, and planned, of DPDiff-AD and of any checkpoint, on toys."""

import json

import jax
import numpy as np
import pytest

import jaxad
from jaxad.bench import _detector_speed, _measured, _topologies, dpdiff
from jaxad.bench._dpdiff_detectors import abstract_dpdiff, drawn_dpdiff
from jaxad.bench._topologies import Chip
from jaxad.bench.dpdiff import main
from jaxad.config import DinomalyConfig, PatchBankConfig
from jaxad.detectors.dinomaly import Dinomaly
from jaxad.detectors.patch_bank import PatchBank
from jaxad.errors import ConfigError
from jaxad.testing import BACKBONE, make_parts, toy_model, toy_training
from tests.cli.shell import failure

TINY = {"backbone": "tiny", "image_size": 28, "depth": 1, "seconds": 1e-3}


@pytest.fixture(autouse=True)
def few_files(monkeypatch):
    monkeypatch.setattr(_detector_speed, "FILES", {40: (3, 3)})


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return jaxad.data.load(f"folder:{make_parts(tmp_path_factory.mktemp('parts'))}")


def rows_of(capsys):
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


def check(row):
    """Every figure is there, and those that belong together agree."""
    ms = row["ms"]
    assert 0 < ms["p50"] <= ms["p95"] <= ms["p99"]
    assert row["runs"] >= 3
    assert row["images_per_second"] > 0
    assert row["end_to_end_images_per_second"] > 0
    assert row["compile_seconds"] > 0
    assert row["gb"]["arguments"] < row["gb"]["total"] < row["peak_process_gb_so_far"]
    assert row["share"] > 0


def test_prediction_and_training_step_of_a_preset(capsys):
    main(batch_size=(1, 4), training_batch_size=4, preset="small", **TINY)
    (one, four, step), table = rows_of(capsys)
    assert [row["program"] for row in (one, four, step)] == ["prediction", "prediction", "training step"]
    # A batch is a multiple of the number of devices.
    assert (one["batch_size"], four["batch_size"], step["batch_size"]) == (jax.device_count(), 4, 4)
    for row in (one, four, step):
        check(row)
        assert (row["detector"], row["depth"], row["devices"]) == ("dpdiff", 1, jax.device_count())
        assert f"| {row['program']} | {row['batch_size']} |" in table
    # Four draws of the preset, each one step of the denoiser.
    assert four["tflop"] / one["tflop"] == pytest.approx(4 / jax.device_count(), rel=0.1)


def test_a_preset_that_remembers_patches(capsys):
    """Its memory is there from the first, as large as the preset has it."""
    detector = abstract_dpdiff("dinov2-small", "float32", preset="retrieval", image_size=28, depth=1)
    memory = detector.nearby
    assert np.prod(memory.patches.get_value().shape[:2]) == detector.config.memory == memory.places.get_value().size
    main(batch_size=(2,), training_batch_size=2, preset="retrieval", image_size=28, depth=1, seconds=1e-3)
    for row in rows_of(capsys)[0]:
        check(row)
        assert row["gb"]["arguments"] > 2e-9 * detector.config.memory * detector.channels


def test_checkpoints_of_any_detector(capsys, tmp_path, parts):
    bank = PatchBank.create(PatchBankConfig(backbone=BACKBONE, image_size=28, bank_size=8))
    jaxad.fit(bank, parts.train, workdir=tmp_path / "bank")
    jaxad.fit(toy_model(image_size=28), parts.train, toy_training(steps=1), workdir=tmp_path / "run")
    main(checkpoint=tmp_path / "bank", batch_size=(2,), seconds=1e-3)
    (only,), _ = rows_of(capsys)
    assert (only["detector"], only["program"], only["checkpoint"]) == (
        "patch-bank",
        "prediction",
        str(tmp_path / "bank"),
    )
    check(only)
    main(checkpoint=tmp_path / "run", programs=("training",), seconds=1e-3)
    (step,), _ = rows_of(capsys)
    assert (step["program"], step["batch_size"]) == ("training step", toy_training().batch_size)
    check(step)


@pytest.fixture
def card(monkeypatch):
    """A card of the name of this machine's devices, so that its compiler is at hand."""
    chip = Chip(jax.devices()[0].device_kind, "cuda", memory_gb=80, peak_tflops=1, bandwidth_gbs=100)
    monkeypatch.setitem(_topologies.CHIPS, "h100", chip)
    monkeypatch.setattr("jaxad.bench._plan.SECONDS", 1e-3)


def test_checkpoints_of_any_detector_are_planned(card, capsys, tmp_path, parts, monkeypatch):
    plan, programs = dpdiff.plan, []
    monkeypatch.setattr(dpdiff, "plan", lambda traced, *a, **k: programs.append(traced) or plan(traced, *a, **k))
    devices = jax.device_count()
    toy, training = {"backbone": BACKBONE, "image_size": 28}, toy_training(steps=1, batch_size=4, accumulate=2)
    decoder = DinomalyConfig(**toy, blocks=(0, 1), depth=2, precision="float32")
    jaxad.fit(Dinomaly.create(decoder), parts.train, training, workdir=tmp_path / "run")
    jaxad.fit(PatchBank.create(PatchBankConfig(**toy, bank_size=8)), parts.train, workdir=tmp_path / "bank")

    def planned(run, **options):
        programs.clear()
        main(topology=(f"h100:{devices}",), checkpoint=tmp_path / run, batch_size=(2,), **options)
        rows, _ = rows_of(capsys)
        for row, traced in zip(rows, programs, strict=True):
            assert (row["checkpoint"], row["devices"], row["fits"]) == (str(tmp_path / run), devices, True)
            assert row["measured"]["runs"] >= 1
            assert ("bf16[" in str(traced.jaxpr)) == (row["dtype"] == "bfloat16")
        return [(row["detector"], row["program"], row["batch_size"], row["dtype"]) for row in rows]

    prediction, step = ("dinomaly", "prediction", 2), ("dinomaly", "training step")
    # As the run has them: its type where it gives one, and as many images at once.
    assert planned("run") == [(*prediction, "float32"), (*step, 8, "float32")]
    assert "length=2" in str(programs[1].jaxpr)
    # The features as fit sends them, half of what they take widened.
    assert ":f16[" in str(programs[1].jaxpr)
    assert planned("run", dtype="bfloat16", training_batch_size=2)[1:] == [(*step, 2, "bfloat16")]
    assert planned("bank") == [("patch-bank", "prediction", 2, "bfloat16")]
    for options in ({"programs": ("training",)}, {"training_batch_size": 4}, {"largest": True}):
        with pytest.raises(ConfigError, match="patch-bank is not trained"):
            planned("bank", **options)


def test_batches_of_plans_divide_over_the_devices_before_any_is_compiled(card, monkeypatch):
    monkeypatch.setattr(dpdiff, "plan", lambda *_, **__: pytest.fail("compiled"))
    tiny = {"topology": ("h100:2",), "backbone": "tiny", "image_size": 28, "depth": 1}
    for given in ({"batch_size": (2, 3)}, {"batch_size": (2,), "training_batch_size": 3}):
        with pytest.raises(ConfigError, match="batch_size = 3"):
            main(**tiny, **given)


def test_random_weights_leave_features_standardized():
    """Else the transport of prototypes would take another number of iterations, or none."""
    detector = drawn_dpdiff(abstract_dpdiff("tiny", "float32", image_size=28, depth=1))
    assert (detector.channel_std[...] == 1).all()
    assert (detector.channel_mean[...] == 0).all()
    assert detector.denoiser.blocks[0].modulation.kernel[...].std() > 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--batch-size", "0"], "--batch-size 0"),
        (["--training-batch-size", "0"], "--training-batch-size 0"),
        (["--seconds", "0"], "--seconds 0"),
        (["--programs"], "--programs"),
        (["--largest"], "--topology"),
        (["--checkpoint", "run", "--depth", "2", "--preset", "small"], "--preset small"),
        (["--checkpoint", "run", "--dtype", "bfloat16"], "--dtype bfloat16"),
        (["--checkpoint", "run", "--topology", "v5e", "--depth", "2"], "--depth 2"),
        (["--checkpoint", "run", "--topology", "v9"], "--topology 'v9'"),
    ],
)
def test_flags_that_cannot_work_are_named(words, named, capsys):
    assert named in failure(capsys, "bench", "dpdiff", *words)


def test_batches_that_the_devices_cannot_share_are_refused():
    with pytest.raises(ConfigError, match="batch_size = 3"):
        main(programs=("training",), training_batch_size=3, **TINY)


def test_percentiles_and_rate():
    found = _measured.spread([0.1] * 98 + [0.2, 1.0], 5)
    assert found["ms"]["p50"] == pytest.approx(100)
    assert 100 <= found["ms"]["p95"] < 200 < found["ms"]["p99"] < 1000
    assert found["images_per_second"] == pytest.approx(500 / 11)


def test_a_slow_program_runs_three_times_and_a_quick_one_not_for_ever(monkeypatch):
    ran = []
    assert len(_measured.latencies(lambda: ran.append(1), seconds=0.0)) == 3
    assert len(ran) == 4
    monkeypatch.setattr(_measured, "MOST_RUNS", 7)
    assert len(_measured.latencies(lambda: None, seconds=1e9)) == 7
