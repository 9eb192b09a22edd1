"""What a run goes through: full disks, other processes, a clock that is set back. docs/reliability/life.md lists it."""

from __future__ import annotations

import errno
import os
import shutil
import time
from types import SimpleNamespace

import orbax.checkpoint as ocp
import pytest
from jax.errors import JaxRuntimeError

import jaxad
from jaxad import parallel
from jaxad.config import PatchBankConfig
from jaxad.detectors.patch_bank import PatchBank
from jaxad.errors import CheckpointError, ConfigError
from jaxad.inference.checkpoint_writer import CheckpointWriter
from jaxad.inference.saving import SaveError, saving
from jaxad.io import locks
from jaxad.io.locks import occupied
from jaxad.parallel import FullDeviceError, LostProcessError
from jaxad.testing import BACKBONE, toy_model, toy_training
from tests.io.test_locks import held  # noqa: F401  a folder that another process holds
from tests.training.test_trainer import assert_bit_equal

WORDS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EROFS: "Read-only file system",
    errno.EFBIG: "File too large",
}


def fails_at(monkeypatch, bad_step: int, error: Exception) -> None:
    """Lets Orbax fail when it writes a step."""
    save = ocp.CheckpointManager.save

    def failing(self, step, *args, **options):
        if step == bad_step:
            raise error
        return save(self, step, *args, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "save", failing)


@pytest.mark.parametrize("number", WORDS)
@pytest.mark.parametrize("by_tensorstore", [True, False])
def test_a_disk_that_fails_while_a_step_is_saved(parts, trained, tmp_path, monkeypatch, number, by_tensorstore):
    """In TensorStore's words or the system's: one line, the step before is kept, and the same call goes on from it."""
    text = f'OUT: Error writing "x" in "/a:b": Failed to write: {WORDS[number]} [os_error_code=\'{number}\']\nmore'
    error = ValueError(text) if by_tensorstore else OSError(number, WORDS[number], str(tmp_path))
    call = {"workdir": tmp_path / "run", "holdout": parts.holdout}
    with monkeypatch.context() as patch:
        fails_at(patch, 8, error)
        with pytest.raises(SaveError) as failure:
            jaxad.fit(toy_model(), parts.train, toy_training(), **call)
    message = str(failure.value)
    assert f"checkpoints: step 8 could not be saved ({WORDS[number]}); step 4 is kept" in message
    assert "\n" not in message
    assert ("Make room" in message) == (number != errno.EROFS)
    assert jaxad.restore(tmp_path / "run").meta["step"] == 4
    if by_tensorstore and number == errno.ENOSPC:
        resumed = jaxad.fit(toy_model(), parts.train, toy_training(), **call)
        assert_bit_equal(resumed.model, trained.model)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TypeError("a bug"), TypeError),
        (JaxRuntimeError("INTERNAL: Connection reset by peer"), LostProcessError),
        (TimeoutError("Timed out after 600 seconds."), LostProcessError),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), FullDeviceError),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), SaveError),
    ],
)
def test_what_no_disk_is_to_blame_for_is_not_laid_on_it(tmp_path, monkeypatch, error, told):
    monkeypatch.setattr(parallel.jax, "process_count", lambda: 2)
    with pytest.raises(told) as caught, saving(tmp_path, 8):
        raise error
    assert (told is TypeError) or getattr(caught.value, "abrupt", False)


def test_the_main_process_alone_fails_but_all_stop(monkeypatch):
    told, elsewhere = [], ConfigError("elsewhere")
    monkeypatch.setattr(parallel, "from_main", lambda value: told.append(value) or value)
    with pytest.raises(ZeroDivisionError):
        parallel.by_main(lambda: 1 // 0, elsewhere)
    monkeypatch.setattr(parallel, "is_main_process", lambda: False)
    monkeypatch.setattr(parallel, "from_main", lambda _: False)
    with pytest.raises(ConfigError, match="elsewhere"):
        parallel.by_main(lambda: pytest.fail("ran"), elsewhere)
    assert told == [False]


def test_a_run_whose_end_cannot_be_recorded_tells_all(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(parallel, "from_main", lambda value: told.append(value) or value)
    with CheckpointWriter(tmp_path) as writer, pytest.raises(CheckpointError):
        writer.complete(3, None)
    assert told == [False]


def test_a_first_step_that_cannot_be_saved(parts, tmp_path, monkeypatch):
    fails_at(monkeypatch, 0, OSError(errno.ENOSPC, WORDS[errno.ENOSPC]))
    bank = PatchBank.create(PatchBankConfig(backbone=BACKBONE, image_size=56))
    with pytest.raises(SaveError, match="no earlier one is there"):
        jaxad.fit(bank, parts.train, workdir=tmp_path / "run")


def test_room_for_all_checkpoints_is_looked_for_before_the_first_step(parts, trained, tmp_path, monkeypatch):
    folder = trained.workdir / "checkpoints" / "12"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    stepped = []
    monkeypatch.setattr("jaxad.training.trainer.run_steps", lambda *_, **__: stepped.append(1))
    # Enough for any of them, but not for two and the one that is being written.
    monkeypatch.setattr(locks, "RESERVE", 0)
    monkeypatch.setattr(locks.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * size))
    with pytest.raises(ConfigError, match=r"workdir = .*needed.*make room"):
        jaxad.fit(toy_model(), parts.train, toy_training(keep_checkpoints=2), workdir=tmp_path / "run")
    assert stepped == []
    # What the run has written already is not needed again.
    shutil.copytree(trained.workdir, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/checkpoints/12")
    with pytest.raises(TypeError):
        jaxad.fit(toy_model(), parts.train, toy_training(), workdir=tmp_path / "resumed", holdout=parts.holdout)
    assert stepped == [1]


def test_a_workdir_in_use_is_refused_before_work(parts, held, monkeypatch):  # noqa: F811
    folder, process = held
    monkeypatch.setattr("jaxad.training.fit.content_hash", lambda *_, **__: pytest.fail("worked"))
    with pytest.raises(ConfigError, match=f"workdir = .*another process.*{process.pid}"):
        jaxad.fit(toy_model(), parts.train, toy_training(), workdir=folder)
    process.kill()
    process.wait()
    with occupied(folder, "workdir"):
        pass


def test_a_clock_that_is_set_back(parts, trained, tmp_path, monkeypatch):
    """Steps are told apart by their numbers: the run goes on from the highest, and ends with the same bits."""
    shutil.copytree(trained.workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/12")
    for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]:
        newer = "8" not in path.relative_to(tmp_path / "run").parts
        os.utime(path, (2e9, 2e9) if newer else (1e9, 1e9))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10 * 365 * 86400)
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(), workdir=tmp_path / "run", holdout=parts.holdout)
    monkeypatch.undo()
    assert_bit_equal(resumed.model, trained.model)
    assert resumed.threshold == trained.threshold
    assert jaxad.restore(tmp_path / "run").meta["step"] == 12
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["12", "8"]
