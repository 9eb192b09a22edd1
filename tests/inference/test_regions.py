"""Judging a region: nothing outside moves a score, a map, a metric or a decision."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.data import ImageList, Region, Tiling
from jaxad.errors import DataError
from jaxad.inference.answer import Answer
from jaxad.inference.calibrate import choose_threshold
from jaxad.inference.evaluation import score
from jaxad.inference.figures import figures
from jaxad.inference.heat import fit_mask, overlay
from jaxad.inference.holdout_scores import measure_holdout
from jaxad.inference.inspector import Inspector
from jaxad.inference.maps import heat_scale
from jaxad.inference.predictor import Predictor
from jaxad.inference.threshold import Limits, Threshold
from jaxad.metrics.large import mask_like
from jaxad.report.figures import gallery
from jaxad.report.watched_folder import WatchedFolder
from jaxad.serve.batcher import Batcher
from tests.compilations import counted
from tests.inference.test_tiled import SIDE, TILING, Brightness, smooth

REGION = Region.from_json({"box": [16, 8, 56, 48]})


def detector(region=REGION, tiling=None, scores=False):
    made = Brightness(tiling=tiling, scores=scores)
    made.regions = () if region is None else (("", region),)
    return made


def judged(made, image, **how):
    (output,) = Predictor(made, batch_size=2).stream(ImageList([image]), **how)
    return output


@pytest.mark.parametrize("tiling", [None, TILING])
@pytest.mark.parametrize("scores", [False, True])
def test_what_lies_outside_moves_nothing(tiling, scores):
    image = np.random.default_rng(0).integers(60, 120, (SIDE, SIDE, 3), np.uint8)
    # Maps are interpolated between pixels, so that the next pixel is seen from inside.
    near = Region.from_json({"box": [15, 7, 57, 49]}).inside(SIDE, SIDE)
    bright = np.where(near[..., None], image, 255).astype(np.uint8)
    plain, lit = (judged(detector(tiling=tiling, scores=scores), i) for i in (image, bright))
    whole = judged(detector(None, tiling, scores), bright)
    assert whole.scores > 1.5 * lit.scores
    np.testing.assert_array_equal(plain.inside, lit.inside)
    np.testing.assert_allclose(lit.scores, plain.scores, rtol=1e-5)
    np.testing.assert_allclose(lit.maps, plain.maps, rtol=1e-4)
    assert lit.maps[~lit.inside].max() <= lit.maps[lit.inside].min()


def test_a_region_of_the_whole_image_changes_nothing():
    image = smooth(SIDE, SIDE)
    every = Region.from_json({"box": [0, 0, SIDE, SIDE]})
    whole, same = judged(detector(None), image), judged(detector(every), image)
    np.testing.assert_allclose(same.maps, whole.maps, rtol=1e-5)
    np.testing.assert_allclose(same.scores, whole.scores, rtol=1e-5)
    assert same.inside.all()


@pytest.mark.parametrize("tiling", [None, Tiling(SIDE, 0.5)])
def test_predictions_mark_and_box_nothing_outside(tiling):
    made = detector(tiling=tiling)
    normal = [np.full((100, 90, 3), 80 + i, np.uint8) for i in range(4)]
    threshold = choose_threshold(made, ImageList(normal), false_alarm=0.3)
    image = normal[0].copy()
    image[60:, :] = 255
    (clean,) = jaxad.predict(made, [image], threshold=threshold)
    assert not clean.anomalous
    assert not clean.mask.any()
    image[20:30, 20:30] = 255
    (found,) = jaxad.predict(made, [image], threshold=threshold)
    assert found.anomalous
    x0, y0, x1, y1 = found.box
    assert found.mask.any()
    assert not found.mask[~REGION.inside(100, 90)].any()
    assert (x0, y0) >= (15, 7)
    assert x1 <= 57
    assert y1 <= 49


def test_evaluation_leaves_out_what_lies_outside(parts):
    """A defect outside of the region makes no image anomalous."""
    test, made = parts.test, Brightness(side=56, step=8, tiling=None)
    everything = jaxad.evaluate(made, test, batch_size=4)["classes"]["disc"]
    made.regions = (("disc", Region.from_json({"box": [0, 0, 3, 3]})),)
    corner = jaxad.evaluate(made, test, batch_size=4)
    assert corner["config"]["regions"] == ["disc"]
    assert everything["n_anomalous"] > corner["classes"]["disc"]["n_anomalous"]
    assert corner["classes"]["tile"]["n_anomalous"] == everything["n_anomalous"]
    rule = Threshold(0.1, "exact-256", {"": Limits(9.0, 9.0, 0.0, 5)})
    shown = gallery(corner, figures(score(made, test, threshold=rule)))
    for group in shown["categories"]:
        for card in group["cards"]:
            anomalous = test.records[card["decision"].index].label and group["category"] == "tile"
            assert card["decision"].verdict == ("missed" if anomalous else "passed")


def test_colors_begin_at_the_middle_of_what_is_judged(parts):
    """Outside, where a map has its least value, nothing counts."""
    made = detector(Region.from_json({"box": [0, 0, 20, 20]}))
    images = [np.random.default_rng(i).integers(0, 255, (SIDE, SIDE, 3), np.uint8) for i in range(3)]
    outputs = list(Predictor(made, batch_size=2).stream(ImageList(images)))
    medians = [np.median(output.maps[output.inside]) for output in outputs]
    assert measure_holdout(made, ImageList(images)).medians == pytest.approx(medians, rel=1e-6)
    assert medians[0] > np.median(outputs[0].maps)
    (answer, *_) = jaxad.predict(made, images)
    inside = fit_mask(answer.inside, (SIDE, SIDE))
    cold, hot = heat_scale(normal=answer.map[inside])
    np.testing.assert_array_equal(answer.overlay, overlay(answer.image, answer.map, low=cold, high=hot))


def spots(folder, side):
    """Three photos with a spot of 4 px, which the whole image's map hardly has, and one without; with masks."""
    for number in range(4):
        image, mask = smooth(side, side), np.zeros((side, side), np.uint8)
        if number:
            y, x = 31 * number + 20, 40 * number
            image[y : y + 4, x : x + 4] = mask[y : y + 4, x : x + 4] = 255
            file = folder / f"cup/ground_truth/spot/{number}_mask.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(file)
        file = folder / f"cup/test/{'spot' if number else 'good'}/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return jaxad.data.load(f"folder:{folder}").test


@pytest.mark.parametrize("region", [None, Region.from_json({"box": [30, 30, 150, 150]})])
@pytest.mark.parametrize("tiling", [None, TILING])
@pytest.mark.parametrize("resolution", ["image", "tile"])
def test_decisions_are_those_of_predictions(tmp_path, region, tiling, resolution):
    """Whatever size metrics compare at."""
    test, made = spots(tmp_path, 180), detector(region, tiling)
    whole = Threshold(0.1, "exact-256", {"": Limits(0.2, 1.0, 0.0, 5)})
    decisions = score(made, test, threshold=whole, resolution=resolution).decisions
    answers = jaxad.predict(made, [record.file for record in test.records], threshold=whole, category="cup")
    assert len(decisions) == 4
    for decision, answer, record in zip(decisions, answers, test.records, strict=True):
        assert decision.score == pytest.approx(answer.score, rel=1e-5)
        assert decision.box == answer.box
        small = answer.small_map if answer.inside is None else np.where(answer.inside, answer.small_map, 0)
        assert decision.flagged == (small > 1.0).mean()
        if record.label:
            mask = mask_like(test.mask(test.records.index(record)), small.shape)
            mask = mask if answer.inside is None else mask & answer.inside
            assert decision.overlap == (mask & (small > 1)).sum() / (mask | (small > 1)).sum()


def test_a_region_that_misses_an_image_names_it():
    far = detector(Region.from_json({"box": [500, 500, 600, 600]}))
    with pytest.raises(DataError, match=r"image-0.*region"):
        judged(far, smooth(SIDE, SIDE))


FAR = Region.from_json({"box": [90, 90, 120, 120]})
"""Of images of at least 91 px."""


def photos(folder):
    """Three that the region `FAR` meets, one that it misses, and one that cannot be read."""
    folder.mkdir()
    for name, side in {"a": 128, "b": 64, "d": 130, "e": 100}.items():
        Image.fromarray(smooth(side, side)).save(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module", params=[None, TILING], ids=["whole", "tiles"])
def inspector(request):
    return Inspector(detector(FAR, request.param), batch_size=2).warm()


def test_who_is_warm_compiles_nothing(tmp_path):
    made = Inspector(detector(FAR), batch_size=2).warm()
    with counted() as counts:
        assert made(smooth(100, 140)).score > 0
    assert counts["programs"] == 0


def test_an_image_without_the_region_is_a_problem_and_all_others_are_judged(inspector, tmp_path):
    folder = photos(tmp_path / "photos")
    assert inspector(smooth(128, 128)).score > 0
    with pytest.raises(DataError, match=r"2 of 5 images") as error:
        inspector(folder)
    assert [problem.kind for problem in error.value.problems] == ["outside the region", "unreadable image"]
    bad = []
    answers = list(inspector.stream(ImageList(folder), on_bad=bad.extend))
    assert [answer.file for answer in answers] == [str(folder / f"{name}.png") for name in "ade"]
    assert [problem.file for problem in bad] == [str(folder / f"{name}.png") for name in "bc"]
    alone = [inspector(answer.file).score for answer in answers]
    assert [answer.score for answer in answers] == pytest.approx(alone, rel=1e-5)


def test_a_server_and_a_watched_folder_judge_what_the_region_meets(inspector, tmp_path):
    batcher = Batcher(inspector)
    jobs = [batcher.submit(smooth(side, side), str(side), "") for side in (128, 64, 100)]
    kinds = [type(job.result(60)) for job in jobs]
    batcher.close()
    assert kinds == [Answer, tuple, Answer]
    out = tmp_path / "out"
    out.mkdir()
    watched = WatchedFolder(photos(tmp_path / "photos"), out, inspector, interval=0, patience=0)
    found = [*watched.look(), *watched.look()]
    assert sorted(type(each) is Answer for each in found) == [False, False, True, True, True]


def test_a_run_records_its_region_and_flags_replace_it(tmp_path, capsys):
    from jaxad.testing import make_parts
    from tests.cli.shell import BANK
    from tests.cli.shell import jaxad as command

    data = f"folder:{make_parts(tmp_path / 'parts', ('disc',), train=10, test=2)}"
    (tmp_path / "parts/disc/roi.json").write_text('{"box": [0, 0, 40, 40]}')
    command("fit", "patch-bank", "--data", data, "--workdir", tmp_path / "run", *BANK)
    restored = jaxad.restore(tmp_path / "run")
    assert dict(restored.detector.regions) == {"disc": Region.from_json({"box": [0, 0, 40, 40]})}
    scores = {}
    for name, flags in {"run": (), "whole": ("--roi", '{"box": [0, 0, 56, 56]}')}.items():
        out = tmp_path / name
        command("predict", tmp_path / "parts/disc/test/blot", "--checkpoint", tmp_path / "run", "--out", out, *flags)
        scores[name] = (out / "predictions.jsonl").read_text()
    assert scores["run"] != scores["whole"]
    wrong, place = (
        ("--roi", '{"disk": {"box": [0, 0, 9, 9]}}'),
        ("--out", tmp_path / "wrong", "--checkpoint", tmp_path / "run"),
    )
    for words in (
        ("predict", tmp_path / "parts/disc/test/blot", *place),
        ("evaluate", "--data", data, *place),
        ("fit", "patch-bank", "--data", data, "--workdir", tmp_path / "other", *BANK),
    ):
        with pytest.raises(DataError, match=r"'disk' is unknown \(did you mean disc"):
            command(*words, *wrong)
    capsys.readouterr()
    command(
        "fit",
        "patch-bank",
        "--data",
        data,
        "--workdir",
        tmp_path / "whole run",
        *BANK,
        "--roi",
        '{"box": [0, 0, 56, 56]}',
    )
    words = ("evaluate", "--data", data, "--checkpoint", tmp_path / "run", "--out", tmp_path / "report")
    command(*words, "--baseline", tmp_path / "whole run")
    assert "baseline, roi: the threshold was measured on another region" in capsys.readouterr().err
    with pytest.raises(jaxad.errors.CheckpointError, match="another run"):
        command(
            "fit", "patch-bank", "--data", data, "--workdir", tmp_path / "run", *BANK, "--roi", '{"box": [0,0,9,9]}'
        )
