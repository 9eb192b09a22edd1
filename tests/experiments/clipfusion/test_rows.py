"""The rows of CLIPFusion's tables: what they set, what was published, what is kept from earlier runs."""

from __future__ import annotations

import dataclasses
import json

import pytest

import jaxad
from experiments.clipfusion import (
    promptad,
    rows,
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
    table8,
    table9,
    table10,
    table11,
    table12,
    table13,
    winclip,
)
from experiments.clipfusion.rows import METRICS, Row, RowOptions, over_seeds
from experiments.rows import slug
from jaxad.config import CLIPFusionConfig, DataConfig, to_json
from jaxad.data import load
from jaxad.errors import ConfigError
from jaxad.inference.checkpoint import read_meta
from jaxad.metrics import METRICS as REPORTED
from jaxad.report.schema import validate_report
from tests.detectors.clipfusion.made_checkpoints import write_clip

TABLES = (
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
    table8,
    table9,
    table10,
    table11,
    table12,
    table13,
    winclip,
    promptad,
)
MAPDIFF = (table5, table6, table9, table10)
"""Tables on MapDiff alone, whose last row is its published setting."""


def ids(table):
    return table.__name__.rpartition(".")[2]


@pytest.mark.parametrize("table", TABLES, ids=ids)
def test_rows_are_those_that_were_published(table, tmp_path):
    names = [row.name for row in table.ROWS]
    assert len(set(names)) == len(names)
    for benchmark, published in table.PUBLISHED.items():
        assert benchmark in ("mvtec_ad", "visa")
        assert list(published) == names
        for values in published.values():
            assert len(values) == len(METRICS)
            assert all(value is None or 10 < value < 100 for value in values)
    configs = [(row.config(RowOptions(tmp_path)), row.shots, row.category) for row in table.ROWS]
    for config, shots, _ in configs:
        config.check()
        assert shots in (0, 1, 2, 4)
    assert len(set(configs)) == len(configs)


def test_tables_agree_where_they_hold_the_same_runs():
    for benchmark in ("mvtec_ad", "visa"):
        main = table1.PUBLISHED[benchmark]
        one_shot = main["CLIPFusion, 1-shot"]
        for table in (table3, table4):
            both = list(table.PUBLISHED[benchmark].values())[-1]
            assert (both[0], both[2]) == (one_shot[0], one_shot[2])
        alone = table3.PUBLISHED[benchmark]["diffusion"]
        for table in MAPDIFF:
            assert list(table.PUBLISHED[benchmark].values())[-1] == alone
        language = table4.PUBLISHED[benchmark]["language"]
        # The paper contradicts itself there: 93.2 and 93.6.
        assert language[0] == pytest.approx(main["CLIPFusion, 0-shot"][0], abs=0.41)
        assert language[2] == main["CLIPFusion, 0-shot"][2]
        deviations = table1.SPREAD[benchmark]
        assert list(deviations) == [name for name in main if not name.endswith("0-shot")]


def test_tables_of_classification_are_those_of_the_paper():
    two, eight, thirteen = (t.PUBLISHED for t in (table2, table8, table13))
    assert two["visa"]["CLIP-AC, 0-shot"] == (59.3, 67.0, None, None)
    assert two["mvtec_ad"]["CLIPFusion, 4-shot"] == (96.9, 98.6, None, None)
    assert [len(lines) for lines in two.values()] == [9, 9]
    assert table2.SPREAD["mvtec_ad"]["WinCLIP, 1-shot"] == (2.0, 0.9, None, None)
    assert eight == {"mvtec_ad": {"one for all, 1-shot": (94.5, 97.3, None, None)}}
    assert thirteen["visa"]["one for all, 4-shot"] == (88.3, 90.0, None, None)


def test_published_rows_that_are_not_run_are_printed_behind_the_others(tmp_path, capsys, monkeypatch):
    for table in (table1, table2, table8, table12, table13):
        for benchmark, lines in table.BESIDE.items():
            assert lines
            assert not set(lines) & set(table.PUBLISHED[benchmark])
            # Columns that one is published for are those of the others.
            columns = {tuple(value is None for value in values) for values in lines.values()}
            assert columns == {(False, False, *[table in (table2, table8, table13)] * 2)}
    assert table12.BESIDE["visa"]["IIPAD, 2-shot"] == (86.7, 88.6, 97.2, 87.9)
    assert table2.BESIDE["mvtec_ad"]["PatchCore, 4-shot"] == (88.8, 94.5, None, None)
    monkeypatch.setattr(rows.Runner, "complete", lambda *_: None)
    monkeypatch.setattr(rows.Runner, "reports", lambda *_: [made_up_report(0, 0.9)])

    def printed():
        options = RowOptions(tmp_path, ("visa",))
        rows.run(options, table12.ROWS[:1], table12.PUBLISHED, "Table 12", beside=table12.BESIDE)
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    other = printed()
    assert (len(other), other[-1][:4]) == (3, ["visa", "published", "left", "out:"])
    monkeypatch.setattr(rows, "misfits", lambda *_: "")
    lines = printed()
    assert lines[-2] == ["visa", "IIPAD,", "2-shot", "published", "86.7", "88.6", "97.2", "87.9"]
    assert [line[-5] for line in lines[1:3]] == ["ours", "published"]


def test_last_rows_of_ablations_are_the_published_setting(tmp_path):
    options = RowOptions(tmp_path)
    assert table3.ROWS[-1].config(options) == table4.ROWS[-1].config(options)
    assert table4.ROWS[-1].config(options) == CLIPFusionConfig()
    for table in MAPDIFF:
        assert table.ROWS[-1].config(options) == CLIPFusionConfig.preset("mapdiff")


def test_options_reach_every_row_that_does_not_set_them_itself(tmp_path):
    model = CLIPFusionConfig(image_size=256, states=("rust",))
    options = RowOptions(tmp_path, clip="/my/clip", model=model)
    first, second = (row.config(options) for row in table10.ROWS)
    assert {first.image_size, second.image_size} == {256}
    assert (first.clip, first.diffusion) == ("/my/clip", CLIPFusionConfig().diffusion)
    assert first.states == ("damage",)
    assert table3.ROWS[1].config(options).states == ("rust",)
    assert table3.ROWS[1].config(options).models == ("diffusion",)


def test_options_leave_presets_what_they_are(tmp_path):
    model = CLIPFusionConfig(clip_blocks=(3, 8), models=("clip",), chunk=7)
    options = RowOptions(tmp_path, diffusion="/my/sd", model=model)
    configs = {row.name: row.config(options) for row in (*table1.ROWS, *table3.ROWS)}
    assert configs["WinCLIP, 1-shot"].clip_blocks == CLIPFusionConfig.preset("winclip").clip_blocks == (-1,)
    assert configs["CLIPFusion, 1-shot"].clip_blocks == (3, 8)
    assert configs["diffusion"].models == ("diffusion",)
    assert {(config.chunk, config.diffusion) for config in configs.values()} == {(7, "/my/sd")}
    assert Row("other", "sd15").config(options).diffusion == "/my/sd"


def test_promptad_is_trained_on_the_references(parts, tmp_path, monkeypatch):
    write_clip(tmp_path / "clip")
    changes = {"clip_blocks": (1, 2), "output_size": 20, "prompts": (1, 1), "suffixes": 1}
    row = promptad.PromptADRow("PromptAD, 1-shot", changes=changes)
    assert row.config(RowOptions(tmp_path)).clip == jaxad.PromptADConfig().clip
    short = jaxad.TrainConfig(steps=1, batch_size=2)
    monkeypatch.setattr(jaxad.PromptADConfig, "training", lambda *_, **changes: dataclasses.replace(short, **changes))
    options = RowOptions(tmp_path / "runs", (parts.name,), clip=str(tmp_path / "clip"), seeds=(3,))
    runner = rows.Runner(options)
    runner.complete(parts.name, [(row, None)])
    (report,) = runner.reports(parts.name, row)
    assert (report["config"]["system"], report["config"]["shots"]) == ("promptad", 1)
    folder = runner.folder(parts.name, row) / "seed-3"
    (run,) = folder.glob("run-*")
    meta = read_meta(run)
    assert (meta["train"]["seed"], meta["train"]["batch_size"], meta["data"]["images"]) == (3, 2, 2)
    # Another setting is another run, beside the first.
    runner.complete(parts.name, [(dataclasses.replace(row, changes={**changes, "margin": 0.1}), None)])
    assert len(list(folder.glob("run-*"))) == 2


def test_promptad_takes_the_settings_that_both_configs_have(tmp_path):
    model = CLIPFusionConfig(output_size=24, precision="bfloat16", vv_blocks=3, map_weight=0.5)
    options = RowOptions(tmp_path, clip="/my/clip", model=model)
    expected = jaxad.PromptADConfig(clip="/my/clip", output_size=24, precision="bfloat16", vv_blocks=3)
    assert promptad.ROWS[0].config(options) == expected
    own = promptad.PromptADRow("own", preset="equations", changes={"vv_blocks": 4})
    model = dataclasses.replace(model, temperature=0.5, clip_block_path="vv")
    found = own.config(dataclasses.replace(options, model=model))
    assert (found.vv_blocks, found.temperature, found.clip_block_path) == (4, None, "original")


def kept_report(options, row, data, seed, weights):
    """Leaves a report as an earlier run of that row with these weights would."""
    dataset = load(data, config=DataConfig(holdout=0.0))
    settings = {"system": "clipfusion", "model": to_json(row.config(options)), "row": row.name, "shots": row.shots}
    settings |= {"seed": seed, "reference_lists": None, "threshold": None, "weights": weights}
    report = {"config": settings, "protocol": "winclip", "data": {"counts": dataset.counts}}
    folder = options.out / slug(data) / slug(row.name) / f"seed-{seed}"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))


def test_runs_that_are_kept_say_their_weights_and_those_of_two_are_not_mixed(parts, tmp_path, capsys):
    options, row = RowOptions(tmp_path, (parts.name,), seeds=(0, 1)), Row("CLIP", "patchclip")
    for seed, digit in enumerate("ab"):
        kept_report(options, row, parts.name, seed, f"clip={64 * digit}")
    runner = rows.Runner(options)
    runner.complete(parts.name, [(row, None)])
    with pytest.raises(ConfigError, match="different weights"):
        runner.reports(parts.name, row)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        f"kept from before; SHA-256 of its weights: clip={12 * digit}" for digit in "ab"
    ]
    alone = dataclasses.replace(options, seeds=(1,))
    (report,) = rows.Runner(alone).reports(parts.name, row)
    assert report["config"]["weights"] == f"clip={64 * 'b'}"


def made_up_report(seed, auroc, recall=0.5):
    values = dict.fromkeys(REPORTED, 0.5) | {"image_auroc": auroc, "aupro": recall}
    reasons = {} if recall is not None else {"aupro": "no defect"}
    counts = {"n_normal": 1, "n_anomalous": 1, "undefined": reasons}
    return {
        "protocol": "winclip",
        "config": {"seed": seed},
        "environment": {"versions": {}, "device": "cpu", "seconds": 1.0, "images_per_second": None},
        "data": {"source": "made up", "counts": {}, "licence": None, "bad_files": []},
        "mean": values,
        "classes": {"bottle": {**values, **counts}},
    }


def test_report_over_seeds_has_means_and_standard_deviations():
    merged = over_seeds([made_up_report(0, 0.7), made_up_report(1, 0.9, recall=None)])
    validate_report(merged)
    for results in (merged["mean"], merged["classes"]["bottle"]):
        assert results["image_auroc"] == pytest.approx(0.8)
        assert results["std"]["image_auroc"] == pytest.approx(0.02**0.5)
        assert results["aupro"] is None
        assert results["std"]["aupro"] is None
    assert merged["classes"]["bottle"]["undefined"] == {"aupro": "no defect"}
    assert merged["config"]["seed"] == [0, 1]
    assert "std" not in over_seeds([made_up_report(0, 0.7)])["mean"]
