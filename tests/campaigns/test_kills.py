"""The campaign at a small size, and what its comparisons see."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.campaigns import kills, results


@pytest.mark.slow
def test_commands_that_are_killed_end_as_undisturbed_ones(tmp_path):
    tallies = kills.campaign(tmp_path, 6, seed=3, names=("fit dpdiff", "predict", "prepare"))
    assert [line for tally in tallies.values() for line in tally.wrong] == []
    assert sum(tally.equal for tally in tallies.values()) == sum(tally.finished for tally in tallies.values()) > 0
    assert sum(tally.kills.total() for tally in tallies.values()) >= 6


def test_comparison_of_runs_sees_every_array_and_setting(trained, tmp_path):
    before = results.run(trained.workdir)
    assert {"config.json", "complete.json", "metrics.csv", "meta"} < before.keys()
    assert sum(name.startswith("training/") for name in before) > 50
    again = shutil.copytree(trained.workdir, tmp_path / "run")
    assert results.run(again) == before
    complete = again / "checkpoints/12/complete.json"
    record = json.loads(complete.read_text())
    complete.write_text(json.dumps(record | {"of": "another manifest", "sha256": "another seal"}))
    assert results.run(again) == before
    complete.write_text(json.dumps(record | {"threshold": None}))
    other = results.run(again)
    assert [name for name in before if before[name] != other[name]] == ["complete.json"]


def test_comparison_of_reports_leaves_out_times_alone(tmp_path):
    found = []
    for number, (seconds, rate) in enumerate([(1.25, 30.0), (2.5, 4.0), (2.5, None)]):
        out = tmp_path / str(number)
        out.mkdir()
        environment = {"seconds": seconds, "images_per_second": rate, "device": "cpu"}
        (out / "report.json").write_text(json.dumps({"environment": environment, "mean": 1}))
        cells = "".join(f'<td class="num">{text}</td>' for text in (f"{seconds:.1f}", f"{rate or 0:.3g}", "0.9"))
        (out / "report.html").write_text(cells)
        found.append(results.report(out))
    assert found[0] == found[1]
    assert b"0.9" in found[0]["report.html"]
    assert found[1]["report.html"] != found[2]["report.html"]


def test_what_is_left_behind_is_seen(tmp_path):
    for name in ("overlay/a.jpg", ".predict-x/new", ".lock", "8.orbax-checkpoint-tmp/x", "incomplete.1/x", "a.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    left = {".predict-x", ".lock", "8.orbax-checkpoint-tmp", "incomplete.1", "a.part"}
    assert set(results.left_behind(tmp_path)) == left
