"""What commands leave, as bytes by name, without those that say when or how fast.

Not compared, because two undisturbed runs differ in them as well:

- metrics.csv: the columns seconds and images_per_second.
- report.json and report.html: seconds and images per second.
- Checkpoints: Orbax names its data files at random and notes times; their arrays and notes are compared. Of the steps
  kept before the last, which ones: a run that is stopped saves the step at which it stops. For the same reasons the
  seals differ by which complete.json knows its step's manifest.
- Prepared data: the fields of a record are stored in any order; their values are compared.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

TIMES = ("seconds", "images_per_second")


def files(folder: Path) -> dict[str, bytes]:
    """Every file as it is."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def left_behind(folder: Path) -> list[str]:
    """Names of files and folders that no finished command leaves: hidden ones, and those that say that they are not
    complete."""
    odd = re.compile(r"^\.|\.(part|tmp|new|old|lock|journal)$|-tmp|^incomplete")
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if odd.search(path.name)]


def run(workdir: Path) -> dict[str, bytes]:
    """Settings, metrics, and the arrays and notes of the last step."""
    steps = sorted((workdir / "checkpoints").iterdir(), key=lambda step: int(step.name))
    last = steps[-1]
    found = {
        "entries": _json(sorted(path.name for path in workdir.iterdir())),
        "steps": _json([len(steps), last.name, sorted(path.name for path in last.iterdir())]),
        "config.json": (workdir / "config.json").read_bytes(),
        "complete.json": _json({**json.loads((last / "complete.json").read_bytes()), "of": None, "sha256": None}),
        "meta": _json(ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(last / "meta")),
    }
    if (workdir / "metrics.csv").is_file():
        with (workdir / "metrics.csv").open(newline="") as stream:
            rows = [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(stream)]
        found["metrics.csv"] = _json(rows)
    for item in ("model", "backbone", "training"):
        if (last / item).is_dir():
            found |= {f"{item}/{path}": array for path, array in _arrays(last / item).items()}
    return found


def report(out: Path) -> dict[str, bytes]:
    """Both files of an evaluation."""
    found = files(out)
    content = json.loads(found["report.json"])
    page = found["report.html"].decode()
    environment = content["environment"]
    for name, form in zip(TIMES, ("%.1f", "%.3g"), strict=True):
        value = environment.pop(name)
        if value is not None:
            page = page.replace(f'<td class="num">{form % value}</td>', "")
    return found | {"report.json": _json(content), "report.html": page.encode()}


def prepared(data_dir: Path) -> dict[str, bytes]:
    """Every file, and of the records their fields."""
    import tensorflow_datasets as tfds

    found = {name: content for name, content in files(data_dir).items() if "array_record" not in name}
    skip = {name: tfds.decode.SkipDecoding() for name in ("image", "mask")}
    for info in sorted(data_dir.rglob("dataset_info.json")):
        builder: Any = tfds.builder_from_directory(info.parent)
        for split in sorted(builder.info.splits):
            source = builder.as_data_source(split, decoders=skip)
            rows = [{name: _bytes(value) for name, value in sorted(row.items())} for row in source]
            found[f"{info.parent.parent.name}/{split}"] = repr(rows).encode()
    return found


def _arrays(folder: Path) -> dict[str, bytes]:
    with ocp.PyTreeCheckpointer() as reader:
        tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree  # type: ignore[arg-type]
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        arrays = reader.restore(folder, restore_args=as_numpy)
    leaves, _ = jax.tree_util.tree_flatten_with_path(arrays)
    return {jax.tree_util.keystr(path): _bytes(array) for path, array in leaves}


def _bytes(value: Any) -> bytes:
    array = np.asarray(value)
    return value if isinstance(value, bytes) else f"{array.dtype}{array.shape}".encode() + array.tobytes()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
