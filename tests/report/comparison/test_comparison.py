"""Comparisons: what is tested against what, published values, and the JSON of all of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxad.errors import ConfigError, DataError
from jaxad.io.json_files import json_text
from jaxad.metrics import METRICS
from jaxad.report.comparison.comparison import compare
from jaxad.report.comparison.methods import MEAN
from jaxad.report.comparison.significance import holm
from jaxad.report.published import Published, published_in
from tests.report.comparison.made_reports import CATEGORIES, write_made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, skill in (("strong", 2.0), ("weak", 0.8), ("poor", 0.2)):
        for seed in (0, 1):
            write_made(root / name / f"seed-{seed}", skill, seed=seed, system=name)
    return root


@pytest.fixture(scope="module")
def found(runs):
    places = [runs / name for name in ("strong", "weak", "poor")]
    return compare(places, resamples=200, metrics=("image_auroc", "aupro"))


def test_every_method_meets_the_first_one(found):
    assert (found.reference, found.metrics, found.categories) == ("strong", ("image_auroc", "aupro"), CATEGORIES)
    met = [(one.method, one.metric, one.category, one.pairs) for one in found.contrasts]
    on_images = [(method, "image_auroc", name, "images") for name in (*CATEGORIES, MEAN) for method in ("weak", "poor")]
    assert met == [*on_images, ("weak", "aupro", MEAN, "categories"), ("poor", "aupro", MEAN, "categories")]
    by_name = {method.name: method for method in found.methods}
    for one in found.contrasts:
        means = [by_name[name].mean(one.metric, one.category) for name in (one.method, "strong")]
        assert one.difference.value == pytest.approx(means[0] - means[1])
        assert one.difference.low < one.difference.value < one.difference.high < 0


def test_p_values_are_adjusted_for_what_is_asked_at_once(found):
    of_images = [one for one in found.contrasts if one.metric == "image_auroc"]
    for family in (of_images[:4], of_images[4:]):
        assert [one.holm_p for one in family] == holm([one.difference.permutation_p for one in family])
    assert "pixel metrics and mAD are tested on 2 categories: p cannot be below 0.5" in found.notes


def test_three_methods_are_ranked(found, runs):
    assert found.rankings["image_auroc"].ranks.tolist() == [1, 2, 3]
    assert compare([runs / "weak", runs / "poor"], resamples=100, metrics=("aupro",)).rankings == {}


def test_json_has_all_and_nothing_else_than_json(found):
    content = json.loads(json_text(found.to_json()))
    (strong, *_) = content["methods"]
    seeds = strong["classes"]["screw"]["aupro"]["seeds"]
    assert strong["classes"]["screw"]["aupro"]["std"] == pytest.approx(np.std(seeds, ddof=1))
    assert (strong["seeds"], len(strong["reports"]), content["protocol"]) == (["0", "1"], 2, "exact-256")
    assert content["contrasts"][0]["difference"]["low"] < 0


def test_one_method_alone_is_shown_and_all_metrics_that_are_defined(runs):
    alone = compare([runs / "weak"], protocol="exact-256")
    assert (alone.contrasts, alone.rankings, alone.metrics) == ((), {}, METRICS)


def test_without_scores_of_images_categories_are_what_is_left(runs, tmp_path):
    bare = write_made(tmp_path / "bare", 1.0, system="bare")
    (bare / "images.csv").unlink()
    found = compare([runs / "strong", bare], resamples=100, metrics=("image_auroc", "aupro"))
    assert [(one.metric, one.pairs) for one in found.contrasts] == [("aupro", "categories")]
    assert any(note.startswith(f"{bare}: no images.csv") for note in found.notes)


def test_wrong_arguments_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError) as error:
        compare([runs], metrics=("auroc",), resamples=9)
    assert "metrics = auroc: unknown" in str(error.value)
    assert "resamples = 9" in str(error.value)
    with pytest.raises(ConfigError, match="reference = strongest: no such method; there are"):
        compare([runs], reference="strongest")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=f"jaxad evaluate --checkpoint {tmp_path}"):
        compare([tmp_path])
    with pytest.raises(DataError, match="under protocol = diad"):
        compare([runs], protocol="diad")


MVTEC = Published("A paper, Table 1", "mvtec_ad", "exact-256", {"image_auroc": 0.99}, "ours")


def test_published_values_stand_beside_what_they_are_of(tmp_path):
    own = Published("A paper, Table 2", "my_parts", "exact-256", {"image_auroc": 0.9}).to_json()
    data = {"source": "my_parts", "counts": {}, "licence": None, "bad_files": []}
    fits = write_made(tmp_path / "fits", 2.0, config={"published": own})
    report = json.loads((fits / "report.json").read_text())
    (fits / "report.json").write_text(json.dumps({**report, "data": data}))
    write_made(tmp_path / "other", 1.0, system="other", config={"published": MVTEC.to_json()})
    found = compare([fits, tmp_path / "other"], resamples=100, metrics=("image_auroc",))
    assert {name: row.source for name, row in found.published.items()} == {"fits": "A paper, Table 2"}
    said = (
        "published values of A paper, Table 1 left out: for the 15 categories of mvtec_ad, of which folder:parts has 2"
    )
    assert f"other: {said}" in found.notes


def test_data_set_categories_images_and_protocol_must_fit():
    from tfds_builders.mvtec_ad.listing import COUNTS

    classes = {name: {"n_normal": normal, "n_anomalous": bad} for name, (_, normal, bad) in COUNTS.items()}
    report = {"protocol": "exact-256", "data": {"source": "folder:/data/mvtec"}, "classes": classes, "config": {}}
    assert MVTEC.misfit(report) == ""
    assert MVTEC.misfit({**report, "protocol": "diad"}) == "under exact-256, not diad"
    fewer = {**classes, "screw": {"n_normal": 41, "n_anomalous": 118}}
    said = "for the test images of mvtec_ad: 41 normal and 119 anomalous ones of screw, not 41 normal and 118"
    assert MVTEC.misfit({**report, "classes": fewer}) == said
    assert "15 categories of mvtec_ad, not 16" in MVTEC.misfit(
        {**report, "classes": {**classes, "nut": fewer["screw"]}}
    )
    one = Published("", "mvtec_ad/screw", "exact-256")
    assert one.misfit({**report, "classes": {"screw": classes["screw"]}}) == ""
    assert published_in(report) is None
    with pytest.raises(Exception, match="published: needs source"):
        published_in({"config": {"published": {**MVTEC.to_json(), "values": {"auroc": 99}}}})
