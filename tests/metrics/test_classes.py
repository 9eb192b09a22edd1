import json

import numpy as np
import pytest

from jaxad.errors import ProtocolError
from jaxad.metrics import METRICS, AuproGrid, ClassMetrics, MetricRules, summarize
from tests import oracles
from tests.metrics import cases

KEYS = [*METRICS, "n_normal", "n_anomalous", "undefined", "pixel_error_bound"]
PIXEL = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")


@pytest.fixture(scope="module")
def images():
    """Scores, labels, maps and masks of 12 images, every other one anomalous."""
    masks = cases.masks(12, side=32)
    maps = cases.maps("normal", masks)
    return maps.mean(axis=(1, 2)), masks.any(axis=(1, 2)).astype(int), maps, masks


def collected(*batches, rules=MetricRules()):  # noqa: B008
    metrics = ClassMetrics(rules)
    for batch in batches:
        metrics.update(*batch)
    return metrics


def test_all_metrics_agree_with_the_oracles(images):
    scores, labels, maps, masks = images
    result = collected(images).result()
    expected = oracles.image_metrics(labels, scores) | oracles.pixel_metrics(maps, masks)
    assert list(result) == KEYS
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert result["mad"] == pytest.approx(np.mean(list(expected.values())), abs=1e-9)
    assert (result["n_normal"], result["n_anomalous"], result["undefined"]) == (6, 6, {})
    assert list(result["pixel_error_bound"]) == list(PIXEL)
    json.dumps(result, allow_nan=False)


def test_batches_and_merging_and_arrays_change_nothing(images):
    whole = collected(images).result()
    parts = [collected(tuple(column[i::3] for column in images)) for i in range(3)]
    sent = ClassMetrics.from_arrays(parts[2].to_arrays())
    for metrics in (parts[0].merge(parts[1]).merge(sent), parts[0].merge(parts[1].merge(sent)), sent.merge(parts[0])):
        if len(metrics.labels) == 12:
            result = metrics.result()
            assert {k: result[k] for k in METRICS} == pytest.approx({k: whole[k] for k in METRICS}, abs=1e-12)
    assert len(parts[0].labels) == 4


def test_normal_images_need_no_mask(images):
    scores, labels, maps, masks = images
    given = [mask if label else None for mask, label in zip(masks, labels, strict=True)]
    assert collected((scores, labels, maps, given)).result() == collected(images).result()


def test_an_anomalous_image_of_unknown_mask_leaves_pixel_metrics_undefined(images):
    scores, labels, maps, masks = images
    given = [None, *masks[1:]]
    assert labels[0] == 1
    result = collected((scores, labels, maps, given)).result()
    assert [result[name] for name in PIXEL] == [None] * 4
    assert result["undefined"]["aupro"] == "no mask for 1 of 6 anomalous images"
    assert result["image_auroc"] is not None
    assert result["mad"] is None
    assert result["undefined"]["mad"] == "needs pixel_auroc, pixel_ap, pixel_f1max, aupro"
    assert result["pixel_error_bound"] == {}


def test_no_masks_at_all_are_unknown_not_empty(images):
    scores, labels, maps, _ = images
    assert collected((scores, labels, maps)).result()["undefined"]["pixel_ap"] == "no mask for 6 of 6 anomalous images"


def test_known_empty_masks_count_as_normal_pixels(images):
    scores, labels, maps, masks = images
    emptied = masks.copy()
    emptied[0] = False
    expected = oracles.pixel_metrics(maps, emptied)
    result = collected((scores, labels, maps, emptied)).result()
    assert {name: result[name] for name in PIXEL} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("keep", "undefined", "reason"),
    [
        (lambda labels: labels == 0, METRICS, "no anomalous image"),
        (lambda labels: labels == 1, ("image_auroc", "image_ap", "image_f1max", "mad"), "no normal image"),
        (lambda labels: labels == 2, METRICS, "no test images"),
    ],
    ids=["only normal", "only anomalous", "nothing"],
)
def test_one_label_only_is_undefined_with_a_reason(images, keep, undefined, reason):
    kept = keep(images[1])
    result = collected(tuple(column[kept] for column in images)).result()
    assert [name for name in METRICS if result[name] is None] == list(undefined)
    assert result["undefined"]["image_auroc"] == reason
    assert set(result["undefined"]) == set(undefined)


def test_masks_without_a_positive_or_a_negative_pixel(images):
    scores, labels, maps, masks = images
    empty = collected((scores, labels, maps, np.zeros_like(masks))).result()
    assert empty["undefined"]["aupro"] == "no anomalous pixel"
    full = collected((scores[:1], [1], maps[:1], np.ones_like(masks[:1]))).result()
    assert full["undefined"]["pixel_auroc"] == "no normal pixel"


def test_missing_maps_are_counted(images):
    scores, labels, maps, masks = images
    result = collected((scores[:4], labels[:4], maps[:4], masks[:4]), (scores[4:], labels[4:])).result()
    assert result["undefined"]["pixel_auroc"] == "no anomaly map for 8 of 12 images"


def test_scores_that_are_not_finite_are_rejected_by_name_and_nothing_is_added(images):
    scores, labels, maps, masks = (column[:4].copy() for column in images)
    maps = maps.astype(np.float64)
    scores[0], maps[1, 2, 3], maps[2, 0, 0], maps[3, 5, 5] = np.inf, np.nan, -np.inf, 1e39
    metrics = ClassMetrics()
    with pytest.raises(ProtocolError) as error, np.errstate(over="ignore"):
        metrics.update(scores, labels, maps, masks, ["a.png", "b.png", "c.png", "d.png"])
    for line in ("a.png: image score is inf", "b.png: 1 scores", "c.png: 1 scores", "d.png: 1 scores"):
        assert line in str(error.value)
    assert len(metrics.labels) == 0
    assert metrics.nbytes == ClassMetrics().nbytes


def test_contradictions_are_rejected(images):
    scores, labels, maps, masks = (column[:2] for column in images)
    for batch, message in (
        ((scores, [1, 2], maps, masks), "image 1 of the category: label is 2"),
        ((scores, [0, 0], maps, masks), "labeled normal, but its mask shows a defect"),
        ((scores, labels, maps, masks[:, :9]), r"differ in size, \(9, 32\) and \(32, 32\)"),
        ((scores, labels, maps[:1], masks), "'maps': 1"),
        ((scores, labels, maps[0], masks), r"shape \(32, 32\)"),
    ):
        with pytest.raises(ProtocolError, match=message):
            ClassMetrics().update(*batch)


def test_flipped_auroc(images):
    scores, labels, maps, masks = images
    plain = collected((-scores, labels, -maps, masks)).result()
    flipped = collected((-scores, labels, -maps, masks), rules=MetricRules(flip_auroc=True)).result()
    for name in ("image_auroc", "pixel_auroc"):
        assert plain[name] < 0.5
        assert flipped[name] == pytest.approx(1 - plain[name])
    assert flipped["pixel_ap"] == plain["pixel_ap"]


def test_grid_rules_on_constant_maps_are_undefined_with_a_reason(images):
    scores, labels, maps, masks = images
    rules = MetricRules(f1_steps=21, aupro_grid=AuproGrid(100))
    result = collected((scores, labels, np.ones_like(maps), masks), rules=rules).result()
    assert "same score" in result["undefined"]["pixel_f1max"]
    assert "fewer than two of the 100 thresholds" in result["undefined"]["aupro"]
    assert result["pixel_auroc"] == 0.5


def test_rules_must_agree_to_merge(images):
    with pytest.raises(ProtocolError, match="different rules"):
        collected(images).merge(ClassMetrics(MetricRules(flip_auroc=True)))


def test_curves(images):
    scores, labels, _, _ = images
    curves = collected(images).curves(most=100)
    assert list(curves) == ["image_roc", "pixel_roc", "image_pr", "pixel_pr"]
    assert len(curves["image_roc"]) == len(set(scores)) + 1
    assert len(curves["pixel_roc"]) <= 100
    area = np.trapezoid(curves["pixel_roc"][:, 1], curves["pixel_roc"][:, 0])
    assert area == pytest.approx(collected(images).result()["pixel_auroc"], abs=1e-3)
    assert collected((scores, np.zeros_like(labels))).curves() == {}


def test_mean_counts_every_category_alike(images):
    few, many = collected(tuple(column[:4] for column in images)).result(), collected(images).result()
    assert few["image_auroc"] != many["image_auroc"]
    mean = summarize({"few": few, "many": many})
    assert mean == pytest.approx({name: (few[name] + many[name]) / 2 for name in METRICS})


def test_mean_leaves_undefined_categories_out(images):
    scores, labels, maps, _ = (column[:4] for column in images)
    whole = collected(images).result()
    half = collected((scores, labels, maps)).result()
    assert half["image_auroc"] != whole["image_auroc"]
    mean = summarize({"a": whole, "b": half})
    assert list(mean) == list(METRICS)
    assert mean["aupro"] == whole["aupro"]
    assert mean["image_auroc"] == pytest.approx((whole["image_auroc"] + half["image_auroc"]) / 2)
    assert summarize({"b": half})["mad"] is None
    assert summarize({})["image_ap"] is None


def test_pixels_outside_enter_no_metric_and_defects_end_there():
    rng = np.random.default_rng(1)
    maps, masks = rng.random((3, 20, 20)).astype(np.float32), rng.random((3, 20, 20)) > 0.8
    masks[2] = False
    inside = [np.zeros((20, 20), bool) for _ in range(3)]
    for part in inside:
        part[:, :12] = True
    labels, scores = [1, 1, 0], [0.5, 0.6, 0.1]
    with_region, cropped = ClassMetrics(), ClassMetrics()
    with_region.update(scores, labels, maps, masks, inside=inside)
    cropped.update(scores, labels, maps[:, :, :12], masks[:, :, :12])
    for name, value in cropped.result().items():
        assert with_region.result()[name] == pytest.approx(value), name


def test_state_is_small_when_there_are_many_categories():
    random = np.random.default_rng(0)
    metrics, sizes = ClassMetrics(), []
    assert metrics.nbytes == 0
    mask = np.zeros((8, 128, 128), bool)
    mask[:, 20:40, 30:50] = True
    for _ in range(24):
        maps = random.standard_normal(mask.shape).astype(np.float32)
        metrics.update(maps.max(axis=(1, 2)), np.ones(8), maps, mask)
        sizes.append(metrics.nbytes)
    assert max(sizes) < 5e6
    assert max(sizes[12:]) < 1.3 * max(sizes[:12])
