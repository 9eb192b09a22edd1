"""What TensorBoard, W&B and MLflow keep of a run, read back by themselves; needs the extras of those names."""

from __future__ import annotations

import csv
import importlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxad
from jaxad.testing import toy_model, toy_training
from jaxad.training.log import evaluations_file

pytestmark = [
    pytest.mark.loggers,
    # MLflow's tables ask SQLAlchemy 2.1 for a way of loading that is on its way out.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

NAMES = ("tensorboard", "wandb", "mlflow")
LEFT_OUT = ("step", "seconds")


@pytest.fixture(scope="module")
def run(parts, tmp_path_factory):
    """A run with all three at once, which ended after step 6 and then got 6 more steps; the folder."""
    workdir = tmp_path_factory.mktemp("logged") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        for steps in (6, 12):
            config = toy_training(steps=steps, loggers=NAMES, eval_every=5, eval_images=4)
            jaxad.fit(toy_model(), parts.train, config, workdir=workdir, holdout=parts.holdout)
    return workdir


def logged(workdir: Path) -> dict[int, dict[str, float]]:
    """Every value of the tables, by step and by the name that loggers know it by."""
    found: dict[int, dict[str, float]] = {}
    for file, prefix in (("metrics.csv", ""), (evaluations_file("holdout"), "evaluation/")):
        with (workdir / file).open(newline="") as stream:
            for row in csv.DictReader(stream):
                own = {f"{prefix}{name}": float(value) for name, value in row.items() if value and name not in LEFT_OUT}
                found.setdefault(int(row["step"]), {}).update(own)
    return found


def same(ours: dict[int, dict[str, float]], theirs: dict[int, dict[str, float]]) -> bool:
    """Whether the same numbers stand under the same names, to the digits that float32 has."""
    return ours.keys() == theirs.keys() and all(
        ours[step].keys() == theirs[step].keys()
        and all(math.isclose(value, theirs[step][name], rel_tol=1e-6) for name, value in ours[step].items())
        for step in ours
    )


def of_leveldb_log(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: a head of 7 bytes, then LevelDB's log format, in blocks of 32 KiB."""
    assert content[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole = content[place + 7 : place + 7 + length] if kind in (1, 2) else whole + content[place + 7 :][:length]
        place += 7 + length
        if kind in (1, 4):
            yield whole


def test_the_run_has_what_is_to_be_found_again(run):
    rows = logged(run)
    assert sorted(rows) == list(range(13))
    assert {step for step, row in rows.items() if "evaluation/loss" in row} == {0, 5, 6, 10, 12}
    assert all("gradient_norm" in rows[step] for step in range(1, 13))


def test_offline_wandb_holds_every_logged_row(run):
    records = importlib.import_module("wandb.proto.wandb_internal_pb2")
    files = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.stem for file in files}) == 1, "a resumed run goes on in the same run"
    found: dict[int, dict[str, float]] = {}
    for file in files:
        for data in of_leveldb_log(file.read_bytes()):
            record = records.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                row = {"/".join(item.nested_key) or item.key: float(item.value_json) for item in record.history.item}
                values = {name: value for name, value in row.items() if not name.startswith("_")}
                found.setdefault(int(row["_step"]), {}).update(values)
    assert same(logged(run), found)


def test_tensorboard_holds_every_logged_value(run):
    module = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    found: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found.setdefault(event.step, {})[name] = event.value
    assert same(logged(run), found)


def test_mlflow_holds_every_logged_value_and_the_settings(run):
    client = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{run / 'mlflow/mlflow.db'}")
    number = (run / "mlflow/run-id").read_text()
    kept = client.get_run(number)
    found: dict[int, dict[str, float]] = {}
    for name in kept.data.metrics:
        for metric in client.get_metric_history(number, name):
            found.setdefault(metric.step, {})[name] = metric.value
    assert same(logged(run), found)
    assert kept.info.status == "FINISHED"
    assert (kept.data.params["system"], kept.data.params["train.batch_size"]) == ("dpdiff", "4")


def test_nothing_of_the_user_is_recorded(run):
    """Neither machine nor code nor output, and nothing where the process stands."""
    assert not Path("mlruns").exists()
    (first, _) = sorted((run / "wandb").glob("offline-run-*"))
    names = {path.name for path in first.rglob("*") if path.is_file()}
    assert not {"output.log", "requirements.txt", "wandb-metadata.json", "code"} & names
