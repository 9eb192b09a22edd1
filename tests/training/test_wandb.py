"""W&B's runs as they end, with a library that only keeps what it is told."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from jaxad.io.signals import Stopped
from jaxad.training.logger import LoggedRun
from jaxad.training.loggers.wandb import WandB


@pytest.mark.parametrize(("error", "status"), [(None, 0), (Stopped(15), 255), (ValueError("not finite"), 1)])
def test_the_run_ends_as_the_training_did(tmp_path, monkeypatch, error, status):
    ended = []
    module = ModuleType("wandb")
    module.Settings = dict
    module.init = lambda **_: SimpleNamespace(finish=lambda exit_code: ended.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", module)
    WandB(LoggedRun(tmp_path, {}, 0)).close(error)
    assert ended == [status]
