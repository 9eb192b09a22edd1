"""CLIPFusion from the command line on real photos: small untrained networks, and reports that say so."""

from __future__ import annotations

import html
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxad import cli
from jaxad.inference import checkpoint
from jaxad.nn import module_state
from jaxad.report.schema import validate_report

pytestmark = pytest.mark.real

DEFECTS = {"bottle": "broken_large", "grid": "bent"}
NETWORKS = ("--model.clip", "random:8", "--model.diffusion", "random:8")
TAPS = ("--model.diffusion-taps", "201", "3", "801", "3")
"""At one block, so that references are one call of the UNet."""
SMALL = (*NETWORKS, *TAPS, "--image-size", "64", "--model.output-size", "60", "--holdout", "0")
SIX = ("--batch-size", "6")
"""As many as the report's gallery holds, so that all of a detector's predictions are one compiled program."""


def jaxad(*words: object) -> None:
    cli.run(cli.parse([str(word) for word in words]))


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


@pytest.fixture(autouse=True)
def quick_compiles():
    """Networks of a few channels are not worth optimizing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def evaluated(run: Path, data: Path) -> dict:
    out = run.parent / f"{run.name}-report"
    protocol = ("--protocol", "winclip")
    jaxad("evaluate", "--checkpoint", run, "--data", f"folder:{data}", "--out", out, *protocol, *SIX)
    report = json.loads((out / "report.json").read_text())
    validate_report(report)
    assert report["notes"][0] in html.unescape((out / "report.html").read_text("utf-8"))
    return report


def test_two_shots_and_none(data, tmp_path, capsys):
    few, zero, again = tmp_path / "few", tmp_path / "zero", tmp_path / "again"
    jaxad("fit", "clipfusion", "--shots", 2, "--data", f"folder:{data}", "--workdir", few, *SMALL)
    for run, seed in ((zero, 0), (again, 7)):
        jaxad("fit", "clipfusion", "--shots", 0, "--seed", seed, "--classes", *DEFECTS, "--workdir", run, *SMALL)
    reports = {run.name: evaluated(run, data) for run in (few, zero)}

    said = "random weights in place of pretrained ones (clip = random:8, diffusion = random:8)"
    for report in reports.values():
        assert [said in note for note in report["notes"]] == [True]
        assert list(report["classes"]) == list(DEFECTS)
        for values in report["classes"].values():
            assert (values["n_normal"], values["n_anomalous"], values["undefined"]) == (3, 3, {})
    assert capsys.readouterr().out.count(f"note: {reports['few']['notes'][0]}") == 2
    assert reports["zero"]["classes"] != reports["few"]["classes"]
    assert [reports[name]["config"]["data"]["shots"] for name in ("few", "zero")] == [2, 0]

    remembered = checkpoint.restore(few).detector
    # Two images: CLIP's 15 x 15 patches of two blocks, and two timesteps of 8 x 8 latents.
    assert [bank[...].shape for bank in remembered.clip_banks] == [(2, 450, 8)] * 2
    assert [bank[...].shape[:2] for bank in remembered.diffusion_banks] == [(2, 128)] * 2
    # Without images there is nothing to draw: seeds make no difference.
    first, second = (module_state.split(checkpoint.restore(run).detector)[1] for run in (zero, again))
    assert all(np.array_equal(array, second[path]) for path, array in first.items())

    lines = [predicted(few, data, tmp_path / name) for name in ("once", "twice")]
    assert said in capsys.readouterr().err
    assert lines[0] == lines[1]
    assert len({json.loads(line)["score"] for line in lines[0].splitlines()}) == 6


def predicted(run: Path, data: Path, out: Path) -> str:
    """predictions.jsonl of six images, whose maps are sound."""
    images = [data / "grid" / "test" / part for part in ("good", DEFECTS["grid"])]
    jaxad("predict", *images, "--checkpoint", run, "--out", out, "--category", "grid", "--save", "map", *SIX)
    maps = [np.load(file) for file in (out / "map").rglob("*.npy")]
    assert len(maps) == 6
    assert all(map.shape == (448, 448) and np.isfinite(map).all() and np.ptp(map) > 0 for map in maps)
    return (out / "predictions.jsonl").read_text()
