"""After damage of any kind to the newest step, everything goes on from the one before, or says why not."""

import errno
import shutil

import pytest

import jaxad
from jaxad.errors import ChangedError, CheckpointError, DamagedError
from jaxad.inference.steps import newest, numbered, set_aside_damaged
from jaxad.io import digests
from jaxad.testing import toy_model, toy_training
from tests.training.damage import BEFORE, KINDS, NO_THRESHOLD, SAME, WHY, biggest, cut, flip
from tests.training.test_trainer import assert_bit_equal, rows


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.workdir, tmp_path / "run")


def bring_about(kind, workdir, monkeypatch):
    """The damage, and the newest step's folder."""
    step = workdir / "checkpoints" / "12"
    KINDS[kind].damage(step)
    number = {"a bad sector (EIO)": errno.EIO, "no permission (EACCES)": errno.EACCES}.get(kind)
    if number:
        read = digests.digest

        def fail(file):
            if step in file.parents:
                raise OSError(number, "cannot be read", str(file))
            return read(file)

        monkeypatch.setattr(digests, "digest", fail)
    return step


def whole(step):
    """What `restore` asks of a step before it reads arrays."""
    step.check("meta", "model", "backbone")
    return step


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_whole_step_counts(copy, kind, monkeypatch):
    bring_about(kind, copy, monkeypatch)
    there, wanted = sorted(copy.rglob("*")), KINDS[kind].judged
    if wanted == WHY:
        with pytest.raises(CheckpointError, match="cannot be read") as error:
            newest(copy, whole)
        assert not isinstance(error.value, DamagedError)
        return
    step, notes = newest(copy, whole)
    assert step.number == (8 if wanted == BEFORE else 12)
    assert len(notes) == (wanted == BEFORE or "higher number" in kind)
    if wanted == NO_THRESHOLD:
        with pytest.raises(DamagedError, match=r"complete\.json"):
            step.ending()
    else:
        assert bool(step.ending()) == (wanted == SAME)
    # Whoever only reads moves nothing.
    assert sorted(copy.rglob("*")) == there


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].changed])
def test_restore_asks_before_it_passes_over_a_step_that_was_whole(copy, kind, monkeypatch):
    bring_about(kind, copy, monkeypatch)
    with pytest.raises(ChangedError, match="12"):
        jaxad.restore(copy)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_sets_damaged_steps_aside_and_deletes_nothing(copy, kind, monkeypatch):
    step = bring_about(kind, copy, monkeypatch)
    root, wanted = copy / "checkpoints", KINDS[kind].fitted
    files = sum(1 for path in root.rglob("*"))
    if wanted == WHY:
        with pytest.raises(CheckpointError, match="cannot be read"):
            set_aside_damaged(root)
        assert step.exists()
        return
    told = set_aside_damaged(root)
    assert numbered(root)[0].name == ("8" if wanted == BEFORE else "12")
    aside = [path.name for path in root.iterdir() if path.name.startswith("damaged-")]
    assert len(told) == len(aside) == (1 if wanted == BEFORE or "higher number" in kind else 0)
    assert all(name in line for name, line in zip(aside, told, strict=True))
    lost = 1 if kind.startswith("Orbax's times") else 0
    assert sum(1 for path in root.rglob("*")) == files - lost


def test_a_step_whose_times_cannot_be_mended_says_why(copy):
    times = copy / "checkpoints" / "12" / "_CHECKPOINT_METADATA"
    times.unlink()
    times.mkdir()
    with pytest.raises(CheckpointError, match="_CHECKPOINT_METADATA"):
        set_aside_damaged(copy / "checkpoints")
    assert times.is_dir()


def test_a_run_goes_on_beside_a_damaged_step_to_the_same_end(copy, trained, parts):
    flip(biggest(copy / "checkpoints" / "12" / "training"), keep_date=True)
    (copy / "metrics.csv").write_text("step,secon")
    (copy / "config.json").write_text('{"data"')
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(), workdir=copy, holdout=parts.holdout)
    assert_bit_equal(resumed.model, trained.model)
    assert resumed.threshold == trained.threshold == jaxad.restore(copy).threshold
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["12", "8", "damaged-12"]
    assert [row["step"] for row in rows(copy)] == ["9", "10", "11", "12"]
    assert (copy / "metrics-damaged.csv").read_text() == "step,secon"


def test_only_a_finished_run_can_do_without_its_training_state(copy):
    shutil.rmtree(copy / "checkpoints" / "12" / "training")
    assert set_aside_damaged(copy / "checkpoints") == []
    (copy / "checkpoints" / "12" / "complete.json").unlink()
    assert jaxad.restore(copy).meta["step"] == 12
    (told,) = set_aside_damaged(copy / "checkpoints")
    assert "training" in told
    assert numbered(copy / "checkpoints")[0].name == "8"


def test_a_run_without_any_whole_step_begins_anew(copy, trained, parts):
    for step in ("8", "12"):
        cut(biggest(copy / "checkpoints" / step / "training"))
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(), workdir=copy, holdout=parts.holdout)
    assert_bit_equal(resumed.model, trained.model)
    names = sorted(path.name for path in (copy / "checkpoints").iterdir())
    assert names == ["12", "8", "damaged-12", "damaged-8"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].fitted != WHY])
def test_whatever_happened_to_the_newest_step_the_run_ends_with_the_same_bits(copy, trained, parts, kind, monkeypatch):
    bring_about(kind, copy, monkeypatch)
    wanted, judged = KINDS[kind].judged, jaxad.restore(copy, pass_over=True)
    assert judged.meta["step"] == (8 if wanted == BEFORE else 12)
    assert (judged.threshold is None) == (wanted in (BEFORE, NO_THRESHOLD))
    assert bool(judged.notes) == (wanted != SAME or "higher number" in kind)
    if wanted != BEFORE:
        assert_bit_equal(judged.detector, trained.model)
    monkeypatch.undo()
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(), workdir=copy, holdout=parts.holdout)
    assert_bit_equal(resumed.model, trained.model)
    assert resumed.threshold == trained.threshold
    restored = jaxad.restore(copy)
    assert_bit_equal(restored.detector, trained.model)
    assert (restored.threshold, restored.notes) == (trained.threshold, ())
