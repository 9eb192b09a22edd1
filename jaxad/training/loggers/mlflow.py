"""MLflow: in the database `mlflow/mlflow.db` of the run, or where MLFLOW_TRACKING_URI says."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from jaxad.io.atomic import write_whole
from jaxad.training.logger import LoggedRun, register_logger

LONGEST = 6000
"""Characters that MLflow takes of a value."""


@register_logger
class MLflow:
    """A run of MLflow's client; a resumed run goes on in it."""

    name = "mlflow"
    packages, extra = ("mlflow", "sqlalchemy", "alembic"), "mlflow"

    def __init__(self, run: LoggedRun):
        from mlflow import MlflowClient  # type: ignore[import-not-found]
        from sqlalchemy import URL  # type: ignore[import-not-found]

        # It tells of every table that it makes.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        folder = run.workdir.absolute() / "mlflow"
        folder.mkdir(exist_ok=True)
        database = URL.create("sqlite", database=str(folder / "mlflow.db")).render_as_string()
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", database))
        file = folder / "run-id"
        if not file.is_file():
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "jaxad")
            known = self._client.get_experiment_by_name(name)
            experiment = self._experiment(name, folder) if known is None else known.experiment_id
            made = self._client.create_run(experiment, run_name=run.workdir.name)
            write_whole(file, made.info.run_id)
            for key, value in _flat(run.settings):
                self._client.log_param(made.info.run_id, key, str(value)[:LONGEST])
        self._id = file.read_text("utf-8")
        self._client.update_run(self._id, status="RUNNING")
        # It keeps what it gets twice, as after a kill, twice.
        names = self._client.get_run(self._id).data.metrics
        histories = {name: self._client.get_metric_history(self._id, name) for name in names}
        self._last = {name: max(metric.step for metric in history) for name, history in histories.items()}

    def _experiment(self, name: str, folder: Path) -> str:
        """A new experiment; one in the run's folder keeps its artifacts there too, and not where the process stands."""
        own = None if "MLFLOW_TRACKING_URI" in os.environ else (folder / "artifacts").as_uri()
        return self._client.create_experiment(name, artifact_location=own)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A metric for each value that it does not have yet."""
        from mlflow.entities import Metric  # type: ignore[import-not-found]

        now = int(time.time() * 1000)
        new = {name: value for name, value in values.items() if step > self._last.get(name, -1)}
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in new.items()])

    def close(self, error: BaseException | None) -> None:
        """Marks the run as finished, killed or failed."""
        ended = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self._client.set_terminated(self._id, "FINISHED" if error is None else ended)


def _flat(values: Mapping, at: str = "") -> list[tuple[str, object]]:
    """Settings as pairs of a dotted name and a plain value."""
    pairs = []
    for name, value in values.items():
        pairs += _flat(value, f"{at}{name}.") if isinstance(value, Mapping) else [(f"{at}{name}", value)]
    return pairs
