import gc
import weakref
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jaxad
from jaxad import metrics
from jaxad.data import FolderSource, Tiling
from jaxad.errors import ConfigError, DataError, ProtocolError
from jaxad.inference import evaluation
from jaxad.inference.evaluation import Scored, make_report, score
from jaxad.inference.figures import figures
from jaxad.inference.maps import heat_scale
from jaxad.inference.predictor import Output, Predictor
from jaxad.inference.results import Evaluation
from jaxad.inference.threshold import Limits, Threshold
from jaxad.report.figures import gallery
from jaxad.report.schema import validate_report
from jaxad.testing import make_parts
from jaxad.types import Record
from tests.data.counting import counted
from tests.inference.test_tiled import Brightness
from tests.oracles import image_metrics, pixel_metrics

SEVEN = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")


@pytest.fixture(scope="module")
def report(trained, parts):
    noted = replace(parts, notes={"notes": ["Its defects are drawn."]})
    return jaxad.evaluate(trained.model, noted, threshold=trained.threshold)


def test_the_report_has_its_format_and_every_category(report, trained):
    validate_report(report)
    assert report["protocol"] == "exact-256"
    assert report["config"]["system"] == "dpdiff"
    assert report["config"]["model"]["backbone"] == "random:32x2"
    assert report["config"]["threshold"]["false_alarm"] == 0.01
    assert report["config"]["threshold"]["limits"]["tile"] == asdict(trained.threshold.limits["tile"])
    assert report["data"]["notes"] == ["Its defects are drawn."]
    assert [note.startswith("DPDiff-AD was built on random weights") for note in report["notes"]] == [True]
    assert "backbone = random:32x2" in report["notes"][0]
    assert set(report["classes"]) == {"disc", "tile"}
    for values in report["classes"].values():
        assert (values["n_normal"], values["n_anomalous"], values["undefined"]) == (4, 4, {})
    for name in (*SEVEN, "mad"):
        mean = np.mean([values[name] for values in report["classes"].values()])
        assert report["mean"][name] == pytest.approx(mean, abs=1e-9)


def test_metrics_are_those_of_exact_oracles_on_the_predictions(report, trained, parts):
    protocol = metrics.protocol("exact-256")
    outputs = list(Predictor(trained.model, batch_size=8).stream(parts.test))
    scores, maps = (np.concatenate([getattr(o, name) for o in outputs]) for name in ("scores", "maps"))
    records = parts.test.records
    masks = [parts.test.mask(i) for i in range(len(records))]
    resized = np.stack([np.zeros((256, 256), bool) if m is None else protocol.resize_mask(m) for m in masks])
    labels = np.array([record.label for record in records])
    for category, values in report["classes"].items():
        own = np.array([record.category == category for record in records])
        expected = image_metrics(labels[own], scores[own]) | pixel_metrics(maps[own], resized[own])
        for name in SEVEN:
            assert values[name] == pytest.approx(expected[name], abs=1e-3), (category, name)


def test_a_source_is_evaluated_like_the_data_set_it_belongs_to(report, trained, parts):
    alone = jaxad.evaluate(trained.model, parts.test, batch_size=3)
    validate_report(alone)
    for category, values in alone["classes"].items():
        for name in SEVEN:
            assert values[name] == pytest.approx(report["classes"][category][name], abs=1e-4)
    assert alone["data"]["counts"]["disc"] == {"test_normal": 4, "test_anomalous": 4}
    assert datetime.fromisoformat(alone["environment"]["date"]) <= datetime.now(UTC)


def test_the_report_says_which_images_by_their_content(report, trained, parts):
    def content(source):
        return jaxad.evaluate(trained.model, source)["data"]["sha256"]["test"]

    # Not their order.
    backwards = parts.test.select(range(len(parts.test) - 1, -1, -1))
    assert content(backwards) == report["data"]["sha256"]["test"]
    others = parts.test.select([1, *range(1, len(parts.test))])
    assert content(others) != report["data"]["sha256"]["test"]


def test_tiles_make_no_other_images_of_them(report, trained, parts, monkeypatch):
    monkeypatch.setattr(trained.model, "tiling", Tiling(28, 0.25))
    tiled = jaxad.evaluate(trained.model, parts.test)["data"]["sha256"]["test"]
    assert tiled == report["data"]["sha256"]["test"]


def test_undefined_metrics_are_null_with_a_reason_and_left_out_of_the_mean(report, trained, parts):
    records = [
        replace(r, mask=None) if r.category == "disc" else r
        for r in parts.test.records
        if r.category == "disc" or r.label == 0
    ]
    result = jaxad.evaluate(trained.model, FolderSource("some", tuple(records)))
    validate_report(result)
    disc, tile = result["classes"]["disc"], result["classes"]["tile"]
    for name in SEVEN[:3]:
        assert disc[name] == pytest.approx(report["classes"]["disc"][name], abs=1e-6)
        assert tile[name] is None
        assert tile["undefined"][name]
        assert result["mean"][name] == pytest.approx(disc[name], abs=1e-9)
    for name in SEVEN[3:]:
        assert disc[name] is None
        assert tile[name] is None
        assert disc["undefined"][name]
        assert result["mean"][name] is None


def test_images_without_label_are_all_named_before_work_starts(trained, parts):
    records = [replace(record, label=None) if i in (1, 4) else record for i, record in enumerate(parts.test.records)]
    with pytest.raises(DataError) as error:
        jaxad.evaluate(trained.model, FolderSource("some", tuple(records)))
    for i in (1, 4):
        assert str(records[i].file) in str(error.value)
    assert str(records[0].file) not in str(error.value)


def test_the_speed_is_that_of_the_batches_after_the_second(trained, parts, monkeypatch):
    """A clock that moves by reading and by counting a batch alone."""
    now = [0.0]

    def stream(self, source, **options):
        for first in range(0, 16, 5):
            now[0] += 100 if first == 0 else 3
            indices = tuple(range(first, min(first + 5, 16)))
            records = [source.records[index] for index in indices]
            maps = np.random.default_rng(first).random((len(indices), 256, 256), np.float32)
            none = [None] * len(indices)
            batch = SimpleNamespace(seed=np.zeros(5, np.uint32))
            loaded = SimpleNamespace(records=records, indices=indices, masks=none, sizes=none, batch=batch)
            yield Output(maps.max((1, 2)), maps, loaded)

    monkeypatch.setattr(Predictor, "stream", stream)
    monkeypatch.setattr(evaluation, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    scored = score(trained.model, parts)
    assert (scored.images, scored.seconds) == (6, 9)


def test_no_test_images_is_an_error(trained):
    with pytest.raises(DataError, match="no test images"):
        jaxad.evaluate(trained.model, FolderSource("empty", ()))


def test_a_threshold_of_another_protocol_decides_nothing(trained, parts):
    with pytest.raises(ConfigError, match="exact-448"):
        jaxad.evaluate(trained.model, parts, protocol="exact-448", threshold=trained.threshold)


def test_an_unknown_protocol_is_an_error(trained, parts):
    with pytest.raises(ProtocolError, match="exact-257"):
        jaxad.evaluate(trained.model, parts, protocol="exact-257")


@pytest.mark.parametrize("tiling", [None, Tiling(256)])
def test_figures_decode_what_they_show_once_and_keep_it_small(tmp_path, tiling):
    data = jaxad.data.load(f"folder:{make_parts(tmp_path, ('disc',), train=1, test=6, size=500)}")
    rule = Threshold(0.1, "exact-256", {"": Limits(-1.0, 0.5, 0.0, 5)})
    scored = score(Brightness(tiling=tiling), data.test, threshold=rule)
    with counted(tmp_path) as counts:
        shown = figures(scored)
    decoded = sum(counts.decoded[str(record.file)] for record in data.test.records)
    # One good and one defective image are explained besides, by another program.
    explained = 2 if tiling is None else 0
    assert decoded == len({case.decision.index for case in shown.cases} | set(shown.pictures)) + explained
    for one in (*shown.cases, *shown.pictures.values()):
        assert one.image.shape in ((360, 360, 3), (320, 320, 3))
        assert max(one.map.shape) <= 360
        assert one.mask is None or one.mask.shape == one.image.shape[:2]
        assert one.image.base is None or one.image.base.nbytes < 500 * 500
    assert set(shown.heat) == {"disc"}


def test_where_not_all_have_room_the_gallery_is_of_the_weakest_categories(tmp_path, monkeypatch):
    names = ("disc", "ring", "tile")
    data = jaxad.data.load(f"folder:{make_parts(tmp_path, names, train=1, test=6, size=100)}")
    scored = score(Brightness(tiling=None), data.test)  # type: ignore[arg-type]
    report = {"classes": scored.results()}
    aurocs = {name: values["image_auroc"] for name, values in report["classes"].items()}
    everything = figures(scored).cases
    assert {case.decision.category for case in everything} == {*names}
    whole = gallery(report, Evaluation(cases=everything, scores=dict.fromkeys(names)))  # type: ignore[arg-type]
    assert whole is not None
    assert whole["left_out"] == 0
    weakest = min(names, key=lambda name: aurocs[name])
    expected = [case for case in everything if case.decision.category == weakest]
    arrays = [array for case in expected for array in (case.image, case.map, case.mask) if array is not None]
    monkeypatch.setattr("jaxad.inference.figures.HELD", sum(array.nbytes for array in arrays) + 1000)
    monkeypatch.setattr("jaxad.inference.figures.SMALLER", ())
    shown = figures(scored)
    assert [case.decision.file for case in shown.cases] == [case.decision.file for case in expected]
    found = gallery(report, shown)
    assert found is not None
    assert found["left_out"] == 2
    assert [part["category"] for part in found["categories"]] == [weakest]


def test_figures_show_the_chosen_cases_with_their_own_maps(trained, parts, report):
    scored = score(trained.model, parts, threshold=trained.threshold, batch_size=8)
    assert make_report(scored, parts)["mean"]["image_auroc"] == pytest.approx(report["mean"]["image_auroc"], abs=1e-6)
    shown = figures(scored)
    assert set(shown.curves) == set(shown.scores) == set(shown.thresholds) == {"disc", "tile"}
    predictions = {
        record.identity: (score, map)
        for output in Predictor(trained.model, batch_size=8).stream(parts.test)
        for record, score, map in zip(output.loaded.records, output.scores, output.maps, strict=True)
    }
    assert {case.decision.category for case in shown.cases} == {"disc", "tile"}
    for case in shown.cases:
        assert case.decision is scored.decisions[case.decision.index]
        expected, map = predictions[case.decision.file]
        assert case.decision.score == pytest.approx(float(expected), rel=1e-5)
        np.testing.assert_allclose(case.map, map, rtol=1e-4, atol=1e-4 * map.max())
        assert case.image.shape == (56, 56, 3)
        assert (case.mask is not None) == bool(case.decision.label)
    assert shown.tsne is not None
    assert len(shown.prototypes) == 4


def made(order):
    """Records, maps and masks of images of these categories, every other one of a category defective."""
    draw, seen, images = np.random.default_rng(0), dict.fromkeys(order, 0), []
    for number, category in enumerate(order):
        label, map = seen[category] % 2, draw.random((64, 64), np.float32)
        seen[category] += 1
        mask = np.add.outer(np.arange(64), np.arange(64)) < 20 + number if label else None
        images.append((Record(Path(f"{number}.png"), category, label), map, mask))
    return images


def counted_in(images, threshold=None):
    """A pass over such images, as it stands after each."""
    source = FolderSource("made", tuple(record for record, _, _ in images))
    predictor = SimpleNamespace(protocol=metrics.protocol("exact-256"))
    scored = Scored(SimpleNamespace(), source, predictor, threshold)  # type: ignore[arg-type]
    for index, (record, map, mask) in enumerate(images):
        batch = SimpleNamespace(seed=np.zeros(1, np.uint32))
        loaded = SimpleNamespace(records=[record], indices=[index], masks=[mask], sizes=[(64, 64)], batch=batch)
        scored.add(Output(map.max((0, 1))[None], map[None], loaded))  # type: ignore[arg-type]
        yield scored


ORDERS = {"in order": "aaaabbbbcccc", "by turns": "abcabcabcabc", "coming back": "aabbbbccccaa"}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_results_are_those_of_metrics_that_keep_all_in_whatever_order(order):
    images = made(order)
    *_, scored = counted_in(images)
    assert list(scored.results()) == list("abc")
    for name, found in scored.classes.items():
        whole = metrics.protocol("exact-256").class_metrics()
        for record, map, mask in images:
            if record.category == name:
                whole.update(map.max((0, 1))[None], [record.label], map[None], [mask])
        assert scored.results()[name] == found.result() == whole.result()
        assert found.scores.tolist() == whole.scores.tolist()
        assert found.labels.tolist() == whole.labels.tolist()
        assert {kind: points.tolist() for kind, points in found.curves().items()} == {
            kind: points.tolist() for kind, points in whole.curves().items()
        }


@pytest.mark.usefixtures("few_collected")
def test_a_category_without_further_images_leaves_nothing_but_results():
    images = made(ORDERS["coming back"])
    states, held, values = None, [], []
    for scored in counted_in(images):
        states = states or [
            weakref.ref(state.pixels) for state in scored.classes.values() if isinstance(state, metrics.ClassMetrics)
        ]
        gc.collect()
        held.append(sum(state() is not None for state in states))
        values.append(sum(len(kept) for kept in scored._normal_values.values()))
    # a comes back after c: it is held until then.
    assert held == [3, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 0]
    assert values == [1, 1, 2, 2, 3, 1, 2, 2, 3, 1, 2, 0]


def test_results_that_a_caller_changes_stay_in_the_evaluation():
    *_, scored = counted_in(made("aaaa"))
    scored.results()["a"]["undefined"]["mad"] = "changed"
    assert scored.results()["a"]["undefined"] == {}


@pytest.mark.parametrize("rule", [None, Threshold(0.1, "exact-256", {"": Limits(0.5, 0.75, 0.0, 5)})])
def test_colors_of_a_category_come_from_its_normal_images_and_its_limit(rule):
    images = made(ORDERS["by turns"])
    *_, scored = counted_in(images, rule)
    for name in "abc":
        normal = np.concatenate(
            [m.ravel()[::5] for record, m, _ in images if (record.category, record.label) == (name, 0)]
        )
        assert scored.heat[name] == heat_scale(None if rule is None else 0.75, normal)
