"""The scaling study: its synthetic categories, what it measures of a process, its page, and all of it at toy size."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tyro

import jaxad
from experiments.scaling import rows as commands
from experiments.scaling.rows import FailedError, Records, family, measured
from experiments.scaling.synthetic_categories import (
    MISSING,
    UNFINISHED,
    ImageCounts,
    SyntheticCategory,
    category_names,
    write_categories,
)
from jaxad.data.demo.defects import EDGE
from jaxad.errors import ConfigError, DataError
from jaxad.metrics import METRICS

FEW = ImageCounts(train=6, normal=2, defective=3, size=64)


def of(name):
    """The module of an experiment."""
    return importlib.import_module(f"experiments.{name}")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("scaling") / "synthetic"
    write_categories(root, category_names(3), FEW, workers=1)
    return root


def files_of(root):
    return {file.relative_to(root): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_images_depend_on_name_and_number_alone():
    first, again, other = (SyntheticCategory(name, 64) for name in ("part_000", "part_000", "part_001"))
    first.defective(2)
    assert np.array_equal(first.normal(1), again.normal(1))
    assert not np.array_equal(first.normal(1), first.normal(2))
    assert np.abs(first.normal(1).astype(int) - other.normal(1)).mean() > 20
    for one, two in zip(first.defective(1), again.defective(1), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("name", category_names(6))
def test_a_defect_is_where_its_mask_is(name):
    category = SyntheticCategory(name, 224)
    assert 2 <= len(category.kinds) <= 3
    for kind in category.kinds:
        clean, image, mask = category.pair(0, kind)
        assert mask.shape == (224, 224)
        assert 20 < mask.sum() < 0.3 * mask.size
        changed = np.abs(clean.astype(int) - image).max(-1)
        assert changed[mask].mean() > 4
        # A drawn defect fades out within a few pixels; of a mark that is missing hardly more than the edge is left.
        reach = 1 if kind == MISSING else EDGE
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        near = np.zeros_like(mask)
        near[max(rows[0] - reach, 0) : rows[-1] + reach + 1, max(columns[0] - reach, 0) : columns[-1] + reach + 1] = (
            True
        )
        assert changed[~near].max() == 0


def test_the_layout_is_read_without_a_problem(written):
    data = jaxad.data.load(f"folder:{written}", config=jaxad.DataConfig(holdout=0.0))
    assert list(data.categories) == category_names(3)
    assert not data.problems
    assert len(data.train) == 3 * FEW.train
    labels = [record.label for record in data.test.records]
    assert (labels.count(0), labels.count(1)) == (3 * FEW.normal, 3 * FEW.defective)
    for index, record in enumerate(data.test.records):
        assert (data.test.mask(index) is not None and data.test.mask(index).any()) == bool(record.label)
    assert {file.read_bytes()[:2] for file in written.rglob("train/good/*")} == {b"\xff\xd8"}


def test_categories_that_are_not_whole_are_written_anew(written, tmp_path):
    root, whole = tmp_path / written.name, files_of(written)
    write_categories(root, category_names(1), FEW, workers=1)
    kept = (root / "part_000/train/good/000.jpg").stat().st_mtime_ns
    # What a killed process leaves.
    left = root / UNFINISHED / "part_001/train/good"
    left.mkdir(parents=True)
    (left / "stray.jpg").write_bytes(b"half")
    write_categories(root, category_names(3), FEW, workers=1)
    assert files_of(root) == whole
    assert (root / "part_000/train/good/000.jpg").stat().st_mtime_ns == kept
    assert not (root / UNFINISHED).exists()


def test_a_folder_of_other_settings_is_refused(written):
    with pytest.raises(DataError, match="other settings"):
        write_categories(written, category_names(3), ImageCounts(train=7, normal=2, defective=3, size=64))


def test_the_command_writes_them(tmp_path):
    module = of("scaling.synthetic_categories")
    root = module.main(module.SyntheticOptions(tmp_path / "out", count=1, images=FEW))
    assert [place.name for place in root.iterdir()] == ["part_000"]


ALLOCATES = """
import subprocess, sys, time
block = b"x" * (200 << 20) if len(sys.argv) > 1 else subprocess.run([sys.executable, sys.argv[0], "child"])
time.sleep(0.7)
"""


def test_memory_and_time_of_a_process_and_its_children(tmp_path):
    script, watched = tmp_path / "allocates.py", tmp_path / "watched"
    script.write_text(ALLOCATES)
    watched.mkdir()
    (watched / "features").write_bytes(b"x" * 100_000)
    alone = measured([sys.executable, script, "child"], tmp_path / "log")
    cost = measured([sys.executable, script], tmp_path / "log", watch=watched)
    for found in (alone, cost):
        assert 200 << 20 < found.memory < 260 << 20
        assert found.resident > found.memory
        assert found.seconds > 0.7
        assert 0 < found.cpu_seconds < found.seconds + 1
    # That of the parent is there at the same time.
    assert cost.memory > alone.memory
    assert (alone.watched, cost.watched >= 100_000) == (0, True)


def test_a_process_that_has_ended_has_no_family():
    assert family(2**22 + 1) == [2**22 + 1]


def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(FailedError, match="no such thing"):
        measured([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path / "log")


def test_a_command_ends_with_the_study(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.os, "wait4", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        measured([sys.executable, "-c", "import time; time.sleep(120)"], tmp_path / "log")
    assert time.monotonic() - began < 60


def test_variables_are_kept_from_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_TEST", "seen")
    words = [sys.executable, "-c", "import os; print(os.environ.get('SCALING_TEST'))"]
    for unset, said in (((), "seen\n"), (("SCALING_TEST",), "None\n")):
        measured(words, tmp_path / "log", unset=unset)
        assert (tmp_path / "log").read_text() == said


def test_a_command_is_run_once(tmp_path, monkeypatch):
    ran, made = [], tmp_path / "made"

    def run(command, log, **how):
        ran.append(command)
        assert not made.exists()
        made.mkdir()
        return commands.Cost(1.0, 2.0, 3, 4)

    monkeypatch.setattr(commands, "measured", run)
    records = Records(tmp_path / "records")
    for words in (["fit", "a"], ["fit", "a"], ["fit", "b"]):
        found = records.run("name", words, made=made, read=lambda: {"images": 7})
        assert found["command"] == words
        assert (found["memory"], found["images"]) == (3, 7)
    assert [command[-1] for command in ran] == ["a", "b"]
    records.forget("name")
    assert records.get("name", ["fit", "b"]) is None


def row(count, detector="dpdiff", *, part="synthetic", fit=1.0, evaluate=1.0, rate=10.0, accuracy=0.9):
    """A finished row of so many categories; memory in GB."""
    cost = {"seconds": 9.0, "cpu_seconds": 5.0 + count, "resident": 2e9, "watched": 0, "disk": 1, "date": "2026-01-02"}
    classes = {f"c{number}": dict.fromkeys(METRICS, accuracy) for number in range(count)}
    seen = {"trained": 9 * count, "tested": 10 * count, "images_per_second": rate, "classes": classes}
    return {
        "part": part,
        "names": list(classes),
        "detector": detector,
        "prepare": {**cost, "memory": 1e8},
        "fit": {**cost, "memory": fit * 1e9, "step_seconds": 0.5},
        "evaluate": {**cost, **seen, "memory": evaluate * 1e9, "protocol": "exact-256"},
    }


def test_verdicts_say_what_is_flat():
    verdicts = of("scaling.page").verdicts
    lines = verdicts([row(4, evaluate=1.3, rate=9.2), row(160, fit=1.1), row(60)])
    said = {line.split(", ")[2].partition(":")[0]: line for line in lines}
    assert "1.000 to 1.100 GB, flat within 10 %: yes; +0.64 MB" in said["memory of fit"]
    assert "1.000 to 1.300 GB, flat within 10 %: no; -1.92 MB" in said["memory of evaluate"]
    assert "100.0 to 108.7 ms, flat within 10 %: yes." in said["time per image of evaluate"]
    # A CPU second for each category of ten test images.
    assert "100.0 to 100.0 ms, flat within 10 %: yes." in said["CPU time of a further image of evaluate"]
    assert all("4 to 160 synthetic categories" in line for line in lines)
    assert verdicts([row(4)]) == verdicts([row(4, part="real"), row(8, part="real")]) == []


def test_the_page_compares_the_same_categories(tmp_path):
    page = of("scaling.page")
    real = {"part": "real"}
    rows = [row(2, **real), row(8, **real, accuracy=0.8), row(8, "dpdiff, one each", **real, accuracy=0.85), row(4)]
    about = {"command": "study", "steps": {"real": 2, "synthetic": 3}, "image_size": 56, "backbone": None}
    (tmp_path / page.ROWS).write_text(json.dumps({**about, "machine": "a machine", "rows": rows}))
    text, svg, kept = page.main(page.Page(tmp_path))
    findings = json.loads(kept.read_text())["findings"]
    assert any("one model for all and one for each: I-AUROC 80.0 and 85.0" in line for line in findings)
    assert any("the first 2 real categories" in line and "10.0 points" in line for line in findings)
    assert "| real | 8 | dpdiff, one each | 85.0 |" in text.read_text()
    assert svg.read_text().count("dpdiff, one each, real") == 5
    with pytest.raises(DataError, match="nothing is finished"):
        page.main(page.Page(tmp_path / "none"))


def test_what_several_models_cost_together():
    first, second = ({key: row(count)[key] for key in ("fit", "evaluate")} for count in (1, 3))
    first["evaluate"]["classes"] = {"other": first["evaluate"]["classes"]["c0"]}
    second["fit"] |= {"memory": 5e9, "step_seconds": 1.5}
    second["evaluate"]["images_per_second"] = 30.0
    found = of("scaling.study").joined([first, second])
    assert (found["fit"]["memory"], found["fit"]["seconds"], found["fit"]["step_seconds"]) == (5e9, 18.0, 1.0)
    assert found["evaluate"]["images_per_second"] == pytest.approx(40 / (10 / 10 + 30 / 30))
    assert list(found["evaluate"]["classes"]) == ["other", "c0", "c1", "c2"]


def test_steps_are_timed_from_the_first_row_on(tmp_path):
    step_seconds, file = of("scaling.study").step_seconds, tmp_path / "metrics.csv"
    assert step_seconds(file) is None
    file.write_text("step,seconds,loss\n10,30.0,1\n")
    assert step_seconds(file) is None
    file.write_text("step,seconds,loss\n10,30.0,1\n20,35.0,1\n40,45.0,1\n")
    assert step_seconds(file) == 0.5


def test_impossible_options_are_refused(tmp_path):
    study = of("scaling.study")
    said = r"no detector dpdif\b(.|\n)*dpdiff has no preset huge; it has paper, small(.|\n)*counts = \(4, 2\)"
    with pytest.raises(ConfigError, match=said):
        study.main(study.Study(out=tmp_path, detectors=("dpdif",), real_detectors=("dpdiff:huge",), counts=(4, 2)))
    with pytest.raises(ConfigError, match="of different names"):
        study.linked([tmp_path], tmp_path / "real")


@pytest.mark.parametrize(("named", "preset"), [("dpdiff", "small"), ("dpdiff:retrieval", "retrieval")])
def test_a_detector_may_be_named_with_its_preset(tmp_path, named, preset):
    study = of("scaling.study")
    runs = study.Runs(study.Study(out=tmp_path))
    *_, fit, _ = runs._words(study._run_name("real-002", named), named, ("disc",), tmp_path, 100)
    assert fit[:2] == ["fit", "dpdiff"]
    assert fit[fit.index("--preset") + 1] == preset
    assert ":" not in fit[fit.index("--workdir") + 1]


def test_the_command_on_the_page_gives_the_same_study():
    study = of("scaling.study")
    plain = {"counts": (4, 160), "one_each": False, "images": ImageCounts(train=5), "out": Path("scaling")}
    own = study.Study(**plain, real=(Path("here/parts"), Path("more")), backbone="here/dinov2", machine="mine")
    module, *words = shlex.split(study._command(own))[2:]
    assert module == "experiments.scaling.study"
    found = tyro.cli(study.Study, args=words)
    assert found == study.Study(**plain, real=(Path("parts"), Path("more")), backbone="dinov2")
    assert study._command(study.Study(out=Path("x"))) == "python -m experiments.scaling.study --out scaling"


@pytest.mark.slow
def test_the_study_at_toy_size(written, tmp_path, monkeypatch):
    study = of("scaling.study")
    toy = {"backbone": "random:48x8", "image_size": 56, "steps": 2, "real_steps": 2, "compilation_cache": True}
    toy |= {"counts": (1,), "images": FEW, "detectors": ("patch-bank",), "out": tmp_path / "out"}
    # As if these were real ones.
    toy |= {"real": (written,), "real_counts": (2, 8), "real_detectors": ("dpdiff",)}
    text, _, kept = study.main(study.Study(**toy))
    found = json.loads((tmp_path / "out/rows.json").read_text())["rows"]
    assert [(row["part"], len(row["names"]), row["detector"]) for row in found] == [
        ("real", 2, "dpdiff"),
        ("real", 2, "dpdiff, one each"),
        ("synthetic", 1, "patch-bank"),
    ]
    for row in found:
        assert row["evaluate"]["tested"] == 5 * len(row["names"])
        assert row["fit"]["memory"] > 50e6
        assert (row["fit"]["watched"] > 0) == row["detector"].startswith("dpdiff")
    assert "one model for all and one for each" in text.read_text()
    # Nothing is left but records, logs, the page and the images, and nothing is run again.
    assert {place.name for place in (tmp_path / "out").iterdir() if place.is_dir() and any(place.iterdir())} == {
        "records",
        "logs",
        "real",
        "synthetic",
    }
    before = kept.read_bytes()
    monkeypatch.setattr(commands, "measured", None)
    study.main(study.Study(**toy))
    assert kept.read_bytes() == before
