"""Which reading of CLIPFusion's paper fits its ablations best: cells, shared runs, and the account of them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from types import SimpleNamespace

import pytest

from experiments.clipfusion import ablation_rows, readings, rows
from experiments.clipfusion.ablation_rows import Cell, Reading, account, cells, combined, row_under
from experiments.clipfusion.readings import ReadingOptions
from jaxad.config import CLIPFusionConfig
from jaxad.errors import ConfigError, WeightsError
from jaxad.metrics import METRICS as REPORTED
from tests.detectors.clipfusion.made_checkpoints import CONFIG, write_clip, write_diffusion

TINY = CLIPFusionConfig(clip="random:8", diffusion="random:8", image_size=64, output_size=16)


@pytest.fixture
def options(tmp_path):
    return ReadingOptions(tmp_path / "runs", clip="random:8", diffusion="random:8", model=TINY)


def test_there_are_64_cells():
    found = cells()
    assert len(set(found)) == 64
    assert Counter(cell.table for cell in found) == {3: 12, 4: 12, 5: 8, 6: 8, 9: 12, 10: 8, 11: 4}
    assert {cell.metric for cell in found} == {"image_auroc", "pixel_auroc"}
    assert Cell(3, "visa", "diffusion", "pixel_auroc", 96.5) in found


def test_readings_are_settings_that_work_and_all_differ(options):
    every = readings.readings(options)
    assert len({reading.name for reading in every}) == len(every) > 30
    whole = {}
    for reading in every:
        row = row_under(reading, 3, "CLIP, diffusion", options)
        row.config(options).check()
        assert row.name not in whole, (reading.name, whole[row.name])
        whole[row.name] = reading.name
    literal = row_under(every[1], 3, "CLIP, diffusion", options).config(options)
    assert (literal.clip_map, literal.clip_block_path, literal.vision_prompt) == ("original", "vv", "last-state")
    assert literal.image_size == 64


def test_rows_that_a_reading_cannot_change_are_shared(options):
    def runs(reading):
        return {(cell.table, cell.row): row_under(reading, cell.table, cell.row, options).name for cell in cells()}

    default, clip = runs(Reading("default")), runs(Reading("plain", changes=(("clip_map", "original"),)))
    # MapDiff alone in Tables 3, 5, 6, 9 and 10, and references alone in Table 4, know nothing of it.
    assert {key for key in default if default[key] != clip[key]} == {
        *((3, "CLIP"), (3, "CLIP, diffusion"), (4, "language"), (4, "language, vision")),
        *((11, row.name) for row in ablation_rows.table11.ROWS),
    }
    vision = runs(Reading("reference", changes=(("vision_prompt", "reference"),)))
    assert default[4, "language"] == vision[4, "language"] != default[4, "language, vision"]
    assert default[3, "CLIP"] == vision[3, "CLIP"]
    assert default[3, "diffusion"] != vision[3, "diffusion"]
    same = {default[key] for key in default if key[1] in ("diffusion", "without block 0", "encoder, decoder")}
    assert len(same | {default[5, "step up, block down"], default[10, "crack, hole, residue, damage"]}) == 1
    assert default[11, "pill, all states"] == default[4, "language"]
    assert len(set(default.values())) == 12


def made_up():
    first, second = Cell(3, "mvtec_ad", "CLIP", "image_auroc", 90.0), Cell(3, "visa", "CLIP", "image_auroc", 80.0)
    taken = [
        Reading("default"),
        Reading("a", "one", changes=(("latents", "sample"),)),
        Reading("b", "one", changes=(("latents", "mode"),)),
        Reading("c", "two", changes=(("subtokens", "max"),)),
        Reading("d", "three", changes=(("tap_place", "layers"),)),
    ]
    values = {"default": (86, 80), "a": (88, 80), "b": (89, 80), "c": (91, 79), "d": (80, 80)}
    found = {name: dict(zip((first, second), map(float, pair), strict=True)) for name, pair in values.items()}
    return [first, second], taken, found


def test_the_nearest_of_each_open_point_are_combined():
    wanted, taken, found = made_up()
    joined = combined(wanted, taken, found)
    assert joined.settings == {"latents": "mode", "subtokens": "max"}
    assert combined(wanted, taken[:3], {name: found[name] for name in ("default", "a", "b")}) is None


def test_account_by_cell_and_by_reading():
    wanted, taken, found = made_up()
    del found["d"][wanted[1]]
    result = account(wanted, taken, found)
    assert (result["best"], result["compared"]) == ("b", 1)
    assert [cell["nearest"] for cell in result["cells"]] == [["b", "c"], ["default", "a", "b"]]
    rows = {row["name"]: row for row in result["readings"]}
    assert (rows["default"]["mean"], rows["c"]["mean"]) == (4.0, 1.0)
    assert [rows[name]["nearest_in"] for name in "abcd"] == [1, 2, 1, 0]


def test_what_there_is_not_is_named_at_once(options, tmp_path):
    with pytest.raises(ConfigError, match=r"readings = verbatim: .*literal[\s\S]*tables = 7: there are 3, 4"):
        readings.main(ReadingOptions(tmp_path, readings=("default", "verbatim"), tables=(3, 7)))


class MadeUpRunner:
    """Reports whose metrics hang on the run alone; notes what is run."""

    def __init__(self, options):
        self.ran = MadeUpRunner.ran = []
        self.options = options

    def dataset(self, data, category=None):
        return SimpleNamespace(categories=("capsule", "pill"))

    def complete(self, data, rows):
        if any("nowhere" in row.config(self.options).diffusion for row, _ in rows):
            raise WeightsError("nowhere: no such folder")

    def reports(self, data, row):
        self.ran.append((data, row.name, row.category))
        value = int(row.name, 16) % 1000 / 1000
        metrics = dict.fromkeys(REPORTED, value)
        classes = {name: {**metrics, "pixel_auroc": value / 2} for name in ("capsule", "pill")}
        return [{"config": {"seed": 0}, "mean": metrics, "classes": classes}]


def test_every_reading_is_run_and_told_cell_by_cell(options, capsys, monkeypatch):
    monkeypatch.setattr(readings, "Runner", MadeUpRunner)
    options = dataclasses.replace(options, diffusion_base="nowhere")
    result = readings.main(options)
    assert json.loads((options.out / readings.FILE).read_text()) == json.loads(json.dumps(result))
    every = readings.readings(options)
    names = [row["name"] for row in result["readings"]]
    assert names == [reading.name for reading in every if reading.name != "diffusion=base"] + ["combined"]
    assert result["left_out"] == {"diffusion=base": "nowhere: no such folder"}
    assert len(result["cells"]) == result["compared"] == 64
    # A run is made once, on all categories where other cells have it on all.
    assert len(set(MadeUpRunner.ran)) == len(MadeUpRunner.ran) < 2 * 12 * len(names)
    default = row_under(every[0], 11, "pill, all states", options)
    assert {category for _, name, category in MadeUpRunner.ran if name == default.name} == {None}
    (pill,) = (cell for cell in result["cells"] if cell["row"] == "pill, all states")
    assert pill["ours"]["default"] == pytest.approx(int(default.name, 16) % 1000 / 20)
    for cell in result["cells"]:
        apart = {name: abs(value - cell["published"]) for name, value in cell["ours"].items()}
        assert {apart[name] for name in cell["nearest"]} == {min(apart.values())}
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("3, CLIP ") for line in lines) == 4
    assert lines[-1] == f"best: {result['best']}"


@pytest.mark.slow
def test_readings_on_tiny_weights(parts, tmp_path, monkeypatch):
    for name, write in (("clip", write_clip), ("diffusion", write_diffusion)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    options = ReadingOptions(
        tmp_path / "runs",
        data=(parts.name,),
        clip=str(tmp_path / "clip"),
        diffusion=str(tmp_path / "diffusion"),
        diffusion_base=str(tmp_path / "nowhere"),
        readings=("default", "clip_map=original", "diffusion=base"),
        tables=(3,),
        model=CLIPFusionConfig(**CONFIG),
    )
    result = readings.main(options)
    assert [row["name"] for row in result["readings"]] == ["default", "clip_map=original"]
    assert (result["compared"], list(result["left_out"])) == (6, ["diffusion=base"])
    for cell in result["cells"]:
        ours = cell["ours"]
        assert len(ours) == (0 if cell["benchmark"] == "visa" else 2)
        assert all(0 <= value <= 100 for value in ours.values())
        if cell["row"] == "diffusion" and ours:
            # CLIP does not count there.
            assert ours["clip_map=original"] == ours["default"]
    monkeypatch.setattr(rows, "load_networks", None)
    assert readings.main(dataclasses.replace(options, readings=options.readings[:2]))["cells"] == result["cells"]
