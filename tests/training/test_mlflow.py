"""MLflow's runs as they end, and rows that come once more, with a client that only keeps what it is told."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from jaxad.io.signals import Stopped
from jaxad.training.logger import LoggedRun
from jaxad.training.loggers.mlflow import MLflow


class Client:
    """A server with one run."""

    metrics: ClassVar[list[SimpleNamespace]] = []
    ended: ClassVar[list[str]] = []

    def __init__(self, uri):
        pass

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="1")

    def create_run(self, experiment, run_name):
        return SimpleNamespace(info=SimpleNamespace(run_id="run"))

    def update_run(self, run, status):
        pass

    def get_run(self, run):
        return SimpleNamespace(data=SimpleNamespace(metrics={metric.key for metric in self.metrics}))

    def get_metric_history(self, run, key):
        return [metric for metric in self.metrics if metric.key == key]

    def log_batch(self, run, metrics):
        self.metrics.extend(metrics)

    def set_terminated(self, run, status):
        self.ended.append(status)


@pytest.fixture(autouse=True)
def client(monkeypatch):
    url = SimpleNamespace(create=lambda *_, **__: SimpleNamespace(render_as_string=lambda: "sqlite://"))
    entities = {"Metric": lambda key, value, time, step: SimpleNamespace(key=key, value=value, step=step)}
    modules = {"mlflow": {"MlflowClient": Client}, "mlflow.entities": entities, "sqlalchemy": {"URL": url}}
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Client, "metrics", [])
    monkeypatch.setattr(Client, "ended", [])


def test_a_row_that_comes_once_more_is_kept_once(tmp_path):
    first = MLflow(LoggedRun(tmp_path, {}, 0))
    for step in (1, 2, 3):
        first.write(step, {"loss": 1.0})
    # Killed after the checkpoint of step 1; an evaluation comes later than the row of its step.
    again = MLflow(LoggedRun(tmp_path, {}, 1))
    for step in (2, 3, 4):
        again.write(step, {"loss": 1.0})
    again.write(3, {"evaluation/loss": 2.0})
    assert [(metric.key, metric.step) for metric in Client.metrics] == [
        *(("loss", step) for step in (1, 2, 3, 4)),
        ("evaluation/loss", 3),
    ]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (Stopped(15), "KILLED"), (ValueError("not finite"), "FAILED")]
)
def test_the_run_ends_as_the_training_did(tmp_path, error, status):
    MLflow(LoggedRun(tmp_path, {}, 0)).close(error)
    assert Client.ended == [status]
