"""Rows of many tables out of one pass: each image meets the UNet twelve times for all, and numbers stay the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxad
from experiments.clipfusion import table1, table3, table4, table5, table6, table9, table10, table11, table12
from experiments.clipfusion.fused_rows import Run, _tellers, groups, score_runs, widest
from experiments.clipfusion.rows import RowOptions, Runner
from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion.networks import load_networks
from jaxad.inference.evaluation import score
from jaxad.metrics import METRICS
from jaxad.models.stable_diffusion.unet import UNet
from jaxad.testing import make_parts

TINY = CLIPFusionConfig(clip="random:8", diffusion="random:8", image_size=64, output_size=16)


@pytest.fixture
def counted(monkeypatch):
    """Passes of the UNet by the number of their timestep, those that really ran."""
    passes, call = Counter(), UNet.__call__

    def counting(self, latents, timesteps, *args, **options):
        jax.debug.callback(lambda t: passes.update(np.asarray(t).tolist()), timesteps)
        return call(self, latents, timesteps, *args, **options)

    monkeypatch.setattr(UNet, "__call__", counting)
    return passes


def test_runs_are_gathered_where_nothing_contradicts(tmp_path):
    options = RowOptions(tmp_path)
    runs = [Run(row.config(options), row.shots, 0, row.category) for row in (*table1.ROWS, *table3.ROWS, *table11.ROWS)]
    whole, *single = groups(runs, 100)
    assert [run.category for run in whole] == [None] * (len(table1.ROWS) + len(table3.ROWS))
    assert [{run.category for run in own} for own in single] == [{"capsule"}, {"pill"}]
    assert set(widest(whole).models) == {"clip", "diffusion"}
    assert list(map(len, groups(runs[:5], 2))) == [2, 2, 1]
    # Another network, or another size of the same, needs a pass of its own.
    other = [Run(CLIPFusionConfig(image_size=256), 0, 0), Run(CLIPFusionConfig.preset("sd15"), 0, 0)]
    assert len(groups([runs[0], *other], 100)) == 3 - 1


def test_types_of_networks_share_no_pass():
    runs = [
        Run(replace(TINY, models=models, precision=precision), 0, 0)
        for models, precision in ((("clip",), "float32"), (("diffusion",), "bfloat16"), (("diffusion",), "float32"))
    ]
    assert [{run.config.precision for run in own} for own in groups(runs, 9)] == [{"float32"}, {"bfloat16"}]


def test_banks_are_those_of_their_prompts_and_of_no_fusion():
    windows = Run(replace(TINY, models=("clip",), fusion="harmonic-patches"), 1, 0)
    verbatim = Run(replace(TINY, models=("diffusion",), object_names="verbatim"), 1, 0)
    found = _tellers([windows, verbatim])
    assert found[windows] == found[verbatim]
    found[windows].check()
    assert found[windows].object_names == "verbatim"
    worded = Run(TINY, 1, 0)
    names = {run.config.object_names: teller.object_names for run, teller in _tellers([worded, verbatim]).items()}
    assert names == {"words": "words", "verbatim": "verbatim"}


@pytest.mark.slow
def test_uneven_states_and_noise_change_no_number(tmp_path):
    parts = make_parts(tmp_path / "parts", ("disc", "tile"), train=3, test=1)
    dataset = jaxad.data.load(f"folder:{parts}", config=jaxad.DataConfig(holdout=0.0))
    noised = replace(TINY, models=("diffusion",), denoiser_input="noised", latents="sample")
    own = replace(noised, vision_prompt="last-state", class_states=("disc=hole,crack,rust",))
    runs = [Run(own, 2, 1), Run(noised, 2, 0), Run(replace(own, vision_prompt="reference"), 1, 0)]
    networks = load_networks(own)
    together = score_runs(runs, networks, dataset, protocol="winclip", batch_size=3)
    for run, found in zip(runs, together, strict=True):
        detector = jaxad.CLIPFusion.create(run.config, backbone=networks)
        detector.remember(dataset.train.per_class(run.shots, run.seed))
        alone = score(detector, dataset, protocol="winclip", batch_size=3)
        pairs = zip(found.decisions, alone.decisions, strict=True)
        np.testing.assert_allclose(*zip(*((a.score, b.score) for a, b in pairs), strict=True), rtol=1e-4)
        ours, expected = found.results(), alone.results()
        for category in dataset.categories:
            for metric in METRICS:
                assert ours[category][metric] == pytest.approx(expected[category][metric], abs=1e-5), metric


@pytest.mark.slow
def test_twelve_passes_serve_all_rows_and_change_no_number(tmp_path, counted):
    parts = f"folder:{make_parts(tmp_path / 'parts', train=3, test=2)}"
    options = RowOptions(tmp_path / "runs", (parts,), model=TINY, seeds=(0, 1), batch_size=4)
    named = {row.name: row for table in (table1, table12) for row in table.ROWS}
    names = ("CLIPFusion, 0-shot", "CLIPFusion, 1-shot", "WinCLIP, 1-shot", "one for all, 1-shot")
    ablations = (table4.ROWS[1], table5.ROWS[0], table6.ROWS[0], table9.ROWS[0], table10.ROWS[0])
    every = [*(named[name] for name in names), *ablations]
    runner = Runner(options)
    images = len(runner.dataset(parts).test)
    runner.complete(parts, [(row, None) for row in every])
    # One reference of each of two categories for each of two draws, with and without further blocks: one pass for each
    # timestep. All else are the test images.
    of_references = 3 * 2 * 2
    assert sum(counted.values()) - of_references == 12 * images
    assert set(counted) == {201, 401, 801}

    dataset, networks = runner.dataset(parts), load_networks(every[0].config(options))
    for row in (named["one for all, 1-shot"], named["WinCLIP, 1-shot"], *ablations[::2]):
        seed = len(options.seeds) - 1 if row.shots else 0
        config = row.config(options)
        detector = jaxad.CLIPFusion.create(config, backbone=networks.of(config.models))
        names_alone = jaxad.data.ClassNames(dataset.categories)
        detector.remember(dataset.train.per_class(1, seed) if row.shots else names_alone)
        alone = score(detector, dataset, protocol="winclip", batch_size=4)
        report = runner.reports(parts, row)[seed]
        expected, found = alone.results(), report["classes"]
        for category in dataset.categories:
            for metric in METRICS:
                assert found[category][metric] == pytest.approx(expected[category][metric], abs=1e-5), (
                    row.name,
                    metric,
                )
        scores = [decision.score for decision in alone.decisions]
        lines = (runner.folder(parts, row) / f"seed-{seed}" / "images.csv").read_text().splitlines()
        column = lines[0].split(",").index("score")
        kept = [float(line.split(",")[column]) for line in lines[1:]]
        np.testing.assert_allclose(kept, scores, rtol=1e-4)
