"""Every experiment file runs on toy settings and leaves what its header says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.clipfusion.picture_rows import PictureOptions
from experiments.clipfusion.rows import RowOptions as FewShotOptions
from experiments.rows import slug
from experiments.sheets import SheetOptions
from experiments.sheets import main as draw_sheet
from experiments.vlmdiff.rows import RowOptions as VLMDiffOptions
from jaxad.config import CLIPFusionConfig
from jaxad.inference.sheet import GAP, HEAD, SIDE
from tests.experiments.dpdiff.toy_rows import toy_rows
from tests.experiments.vlmdiff.made_captions import captioned
from tests.models.stable_diffusion.made_checkpoints import write_pipeline

FOLDER = Path(__file__).parents[2] / "experiments"
ELSEWHERE = {
    **{f"clipfusion.table{number}": "clipfusion.tables" for number in (*range(1, 7), *range(8, 14))},
    "dpdiff.departures": "tests/experiments/dpdiff/test_departures.py",
    "dpdiff.figure3": "experiments.sheets",
    **{f"scaling.{name}": "tests/experiments/test_scaling.py" for name in ("page", "study", "synthetic_categories")},
    "vlmdiff.figure6": "experiments.sheets",
    "vlmdiff.sampling": "tests/experiments/vlmdiff/test_rows.py",
    "vlmdiff.table12": "tests/experiments/vlmdiff/test_rows.py",
    "vlmdiff.table13": "tests/experiments/vlmdiff/test_rows.py",
}
"""Files that no test here names, and what runs them."""


def of(name):
    """The module of an experiment."""
    return importlib.import_module(f"experiments.{name}")


def test_no_experiment_is_forgotten():
    text = Path(__file__).read_text("utf-8")
    for file in (file for file in FOLDER.glob("*/*.py") if "rows" not in file.stem and file.stem != "__init__"):
        name = f"{file.parent.name}.{file.stem}"
        assert name in ELSEWHERE or f'of("{name}")' in text, name


def keeps(folder, count):
    """Records below a folder, which are so many."""
    found = list(folder.rglob("report.json"))
    assert len(found) == count
    return found


ABLATIONS = {
    of("dpdiff.table5"): {},
    of("dpdiff.table6"): {},
    of("dpdiff.table7"): {},
    # Blocks up to 11 need as many.
    of("dpdiff.table8"): {"backbone": "random:48x12"},
    of("dpdiff.table9"): {},
}


@pytest.mark.slow
@pytest.mark.parametrize("module", ABLATIONS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_ablations_of_dpdiff(module, parts, tmp_path):
    rows = module.main(toy_rows(parts, tmp_path, **ABLATIONS[module]))
    keeps(tmp_path / "reports", len(rows))
    assert not (tmp_path / "features").exists()


@pytest.mark.slow
def test_settings_and_numbers_of_dpdiff(parts, tmp_path):
    own = {"data": parts.name, "preset": "small", "steps": 2, "backbone": "random:48x8", "image_size": 56}
    settings, names = of("dpdiff.training_settings"), ("preset", "depth 1")
    assert tuple(settings.main(settings.Training(out=tmp_path / "settings", rows=names, **own))) == names
    figure5 = of("dpdiff.figure5")
    rows = figure5.main(figure5.Figure5(out=tmp_path / "figure5", local=(0, 2), total=(0, 1), **own))
    assert list(rows) == ["0 local, 0 global", "2 local, 0 global", "0 local, 1 global", "2 local, 1 global"]
    assert (tmp_path / "figure5" / "figure5.svg").stat().st_size > 0


@pytest.mark.slow
def test_benchmarks_of_dpdiff(parts, tmp_path, capsys):
    own = {"out": tmp_path, "preset": "small", "steps": 2, "backbone": "random:48x8", "image_size": 56}
    own |= {"benchmarks": (parts.name,)}
    table3, table2 = of("dpdiff.table3"), of("dpdiff.table2")
    (mean,) = table3.main(table3.Benchmarks(**own)).values()
    (report,) = keeps(tmp_path, 1)
    rows = table2.main(table2.Table2(**own))
    assert set(rows[table2.RANGE].values()) == {0.0}
    svg, pdf = of("dpdiff.figure1").main(table2.Table2(**own))
    assert svg.read_text().count("published") >= 2
    assert pdf.read_bytes().startswith(b"%PDF")
    categories = of("dpdiff.tableB1")
    for given in ({}, {"reports": (report,)}):
        found = categories.main(categories.TableB1(**own, **given))[parts.name]
        assert found["mean"] == {name: mean[name] for name in categories.METRICS}
    appendix = of("dpdiff.appendixA")
    assert appendix.main(appendix.AppendixA()) == {}
    assert "s3 (100): 2pin_block_plug" in capsys.readouterr().out
    speed = of("dpdiff.table4")
    small = {"backbone": "random:48x12", "image_size": 112, "batch_size": 2, "seconds": 0.1}
    found = speed.main(speed.Table4(tmp_path, ("UniAD", "DPDiff-AD"), **small))
    assert all(row["images_per_second"] > 0 for row in found.values())
    assert json.loads((tmp_path / speed.FILE).read_text())["batch_size"] == 2


@pytest.mark.slow
def test_figures_of_a_checkpoint(parts, trained, tmp_path):
    figure6, figure7 = of("dpdiff.figure6"), of("dpdiff.figure7")
    swept = {"timesteps": (100, 250), "steps": (1, 3), "draws": (1,), "out": tmp_path}
    assert len(figure6.main(figure6.Figure6(trained.workdir, parts.name, **swept))) == 8
    assert not (tmp_path / "features").exists()
    assert (tmp_path / "figure6.pdf").is_file()
    files = figure7.main(figure7.Figure7(checkpoint=trained.workdir, data=parts.name, out=tmp_path / "seven"))
    assert [file.name for file in files] == ["report.html", "figure7-before.svg", "figure7-after.svg"]
    both = (trained.workdir, trained.workdir)
    sheet = draw_sheet(SheetOptions(both, parts.name, tmp_path / "sheet.png", images=1))
    height, width = np.asarray(Image.open(sheet)).shape[:2]
    # A row for each category, scores above it; image, defect and two maps.
    assert (height, width) == (HEAD + 2 * (HEAD + 56 + GAP), 4 * (SIDE + GAP))


@pytest.mark.slow
def test_tables_of_clipfusion(parts, tmp_path):
    tiny = CLIPFusionConfig(clip="random:8", diffusion="random:8", image_size=64, output_size=16)
    few = {"data": (parts.name,), "seeds": (0, 1), "shots": (0, 1), "model": tiny, "batch_size": 4}
    found = of("clipfusion.tables").main(FewShotOptions(tmp_path / "runs", **few))
    # There is no capsule and no pill among the parts.
    assert [number for number, rows in found.items() if rows[parts.name]] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13]
    images = of("clipfusion.table14").main(FewShotOptions(tmp_path / "runs", **few))[parts.name]
    assert list(images) == ["WinCLIP, 0-shot", "WinCLIP, 1-shot", "CLIPFusion, 0-shot", "CLIPFusion, 1-shot"]
    assert list(images["CLIPFusion, 1-shot"]) == [*parts.categories, "mean"]
    # Two of these presets name a CLIP of their own.
    zero = {**few, "shots": (0,), "clip": tiny.clip}
    rows = of("clipfusion.winclip").main(FewShotOptions(tmp_path / "runs", **zero))
    names = ["WinCLIP, 0-shot", "WinCLIP of caoyunkang, 0-shot", "Accurate-WinCLIP, 0-shot"]
    assert list(rows[parts.name]) == names
    readings = of("clipfusion.readings")
    chosen = {**few, "seeds": (0,), "readings": ("default", "map_weight=0.5"), "tables": (3,)}
    assert readings.main(readings.ReadingOptions(tmp_path / "readings", **chosen))["compared"] == 6
    how = PictureOptions(tmp_path, data=(parts.name,), model=tiny, categories=("tile",))
    for figure in (of("clipfusion.figure1"), of("clipfusion.figure3"), of("clipfusion.figure5")):
        (file,) = figure.main(how)
        assert file.is_file()
    latency = of("clipfusion.table7")
    speed = latency.main(latency.Table7(tmp_path, shots=(0, 1), size="tiny", repeats=1))
    assert all(row["ms"] > 0 for rows in speed.values() for row in rows)


@pytest.mark.slow
def test_rows_of_promptad(parts, tmp_path):
    few = {"data": (parts.name,), "seeds": (0, 1), "shots": (1,), "clip": "random:8", "batch_size": 4}
    promptad = of("clipfusion.promptad")
    (row,) = promptad.main(FewShotOptions(tmp_path, **few))[parts.name].items()
    assert row[0] == "PromptAD, 1-shot"
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("seed-*/report.json")}
    assert len(written) == 2
    promptad.main(FewShotOptions(tmp_path, **few))
    assert {file: file.stat().st_mtime_ns for file in written} == written


@pytest.mark.slow
def test_tables_of_vlmdiff(parts, tmp_path):
    write_pipeline(tmp_path / "sd")
    for vlm in ("blip2", "deepseek", "internvl2-8b"):
        captioned(tmp_path / "captions", parts, "train", "with a hole", Path(parts.name).name, vlm)
    own = {"out": tmp_path / "runs", "data": (parts.name,), "captions": tmp_path / "captions", "preset": "small"}
    own |= {"stable_diffusion": str(tmp_path / "sd"), "autoencoder_steps": 2, "backbone": "random:32x1x8"}
    own |= {"image_size": 32, "steps": 3}
    both = {**own, "detectors": ("vlmdiff", "diad")}
    assert list(of("vlmdiff.results").main(VLMDiffOptions(**own))) == [parts.name]
    assert len(of("vlmdiff.table9").main(VLMDiffOptions(**both))) == 4
    assert len(of("vlmdiff.table11").main(VLMDiffOptions(**own))) == 3
    assert {"Avg, VLMDiff", "Avg, DiAD"} < set(of("vlmdiff.table14").main(VLMDiffOptions(**both)))
    table15 = of("vlmdiff.table15")
    rows, names = table15.main(table15.Table15(**both)), [*parts.categories, "mean"]
    assert {name: list(own) for name, own in rows.items()} == {"vlmdiff": names, "diad": names}
    assert (tmp_path / "runs" / "reports" / slug(parts.name) / "seed-1" / "report.json").is_file()
