"""CLIPFusion from the command line on real photos: small untrained networks, and reports that say so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxad import checkpoint, cli, commands
from jaxad.results import validate_report

pytestmark = pytest.mark.real

DEFECTS = {"bottle": "broken_large", "grid": "bent"}
NETWORKS = ("--model.clip", "random:8", "--model.diffusion", "random:8")
SMALL = (*NETWORKS, "--image-size", "64", "--model.output-size", "60", "--holdout", "0")
SIX = ("--batch-size", "6")
"""As many as the report's gallery holds, so that all of a detector's predictions are one compiled program."""


def jaxad(*words: object) -> None:
    commands.run(cli.parse([str(word) for word in words]))


@pytest.fixture(scope="module")
def data(real_data, tmp_path_factory) -> Path:
    """Links to six training images and six test images of each category, and to the masks of these."""
    root = tmp_path_factory.mktemp("parts")
    for category, defect in DEFECTS.items():
        counts = {"train/good": 6, "test/good": 3, f"test/{defect}": 3, f"ground_truth/{defect}": 3}
        for part, count in counts.items():
            (root / category / part).mkdir(parents=True)
            for file in sorted((real_data / "parts" / category / part).iterdir())[:count]:
                (root / category / part / file.name).symlink_to(file)
    return root


def evaluated(run: Path, data: Path, name: str) -> dict:
    """The report of a run, which is the same when it is made once more."""
    found = []
    for time in ("first", "second"):
        out = run.parent / f"{name}-{time}"
        protocol = ("--protocol", "winclip")
        jaxad("evaluate", "--checkpoint", run, "--data", f"folder:{data}", "--out", out, *protocol, *SIX)
        found.append(json.loads((out / "report.json").read_text()))
        assert "built on random weights" in (out / "report.html").read_text("utf-8")
    validate_report(found[0])
    assert found[0]["classes"] == found[1]["classes"]
    return found[0]


def test_two_shots_and_none(data, tmp_path, capsys):
    few, zero, again = tmp_path / "few", tmp_path / "zero", tmp_path / "again"
    jaxad("fit", "clipfusion", "--shots", 2, "--data", f"folder:{data}", "--workdir", few, *SMALL)
    for run, seed in ((zero, 0), (again, 7)):
        jaxad("fit", "clipfusion", "--shots", 0, "--seed", seed, "--classes", *DEFECTS, "--workdir", run, *SMALL)
    reports = {run.name: evaluated(run, data, f"{run.name}-report") for run in (few, zero)}

    said = "random weights in place of pretrained ones (clip = random:8, diffusion = random:8)"
    for report in reports.values():
        assert [said in note for note in report["notes"]] == [True]
        assert list(report["classes"]) == list(DEFECTS)
        for values in report["classes"].values():
            assert (values["n_normal"], values["n_anomalous"], values["undefined"]) == (3, 3, {})
    assert capsys.readouterr().out.count(f"note: {reports['few']['notes'][0]}") == 4
    assert reports["few"]["classes"] != reports["zero"]["classes"]
    assert [reports[name]["config"]["data"]["shots"] for name in ("few", "zero")] == [2, 0]

    detectors = {run.name: checkpoint.restore(run).detector for run in (few, zero, again)}
    assert [detector.few_shot for detector in detectors.values()] == [True, False, False]
    # Two images: CLIP's 15 x 15 patches of two blocks; UNet features on 8 x 8 latents or half of that.
    assert [bank[...].shape for bank in detectors["few"].clip_banks] == [(2, 450, 8)] * 2
    assert [bank[...].shape[:2] for bank in detectors["few"].diffusion_banks] == [(2, 128), (2, 128), (2, 32)]
    # Without images there is nothing to draw.
    np.testing.assert_array_equal(detectors["zero"].queries[...], detectors["again"].queries[...])

    images = [data / "grid" / "test" / part for part in ("good", DEFECTS["grid"])]
    flags = ("--category", "grid", "--save", "map", *SIX)
    jaxad("predict", *images, "--checkpoint", few, "--out", tmp_path / "out", *flags)
    assert said in capsys.readouterr().err
    maps = [np.load(file) for file in sorted((tmp_path / "out" / "map").rglob("*.npy"))]
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert len(maps) == len(lines) == 6
    assert all(map.shape == (448, 448) and np.isfinite(map).all() and np.ptp(map) > 0 for map in maps)
    assert len({line["score"] for line in lines}) == 6
