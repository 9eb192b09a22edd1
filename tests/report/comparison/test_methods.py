"""Runs become methods by their settings; what is missing is named, and what does not compare is refused."""

from __future__ import annotations

import numpy as np
import pytest

from jaxad.errors import DataError
from jaxad.report.comparison.methods import grouped
from jaxad.report.comparison.results import find_reports, read_results
from tests.report.comparison.made_reports import write_made


def read(*folders):
    return read_results(find_reports(folders)[0])


def test_runs_that_differ_in_the_seed_alone_are_one_method(tmp_path):
    for seed in (0, 1, 2):
        write_made(tmp_path / f"deep/seed-{seed}/report", 2.0, seed=seed, config={"model": {"depth": 3}})
    write_made(tmp_path / "flat/seed-0/report", 1.0, seed=0)
    methods, notes = grouped(read(tmp_path))
    assert [(method.name, method.seeds) for method in methods] == [("deep", ("0", "1", "2")), ("flat", ("0",))]
    assert [method.changed for method in methods] == [("depth 3",), ("depth 1",)]
    values = [result.report["mean"]["image_auroc"] for result in methods[0].results]
    assert methods[0].mean("image_auroc") == pytest.approx(np.mean(values))
    assert methods[0].deviation("image_auroc") == pytest.approx(np.std(values, ddof=1))
    assert methods[1].deviation("image_auroc") is None
    assert notes == ["flat: no seed 1, 2; its numbers are of 1 alone"]


def test_means_are_of_the_categories_that_all_have(tmp_path):
    write_made(tmp_path / "a", 2.0)
    write_made(tmp_path / "b", 1.0, categories=("bottle",), system="other")
    methods, notes = grouped(read(tmp_path))
    assert methods[0].categories == ("bottle",)
    assert methods[0].mean("aupro") == methods[0].results[0].classes["bottle"]["aupro"]
    assert notes == ["b, seed 0: no category screw", "all numbers are of the categories that every report has, 1 of 2"]


def test_names_are_given_or_what_paths_and_settings_have_of_their_own(tmp_path):
    folders = [write_made(tmp_path / f"x/{name}/seed-0-report", 1.0) for name in "ab"]
    folders.append(write_made(tmp_path / "x/b/other", 1.0, config={"model": {"depth": 2}}))
    folders[1:2] = [write_made(tmp_path / "x/b/seed-0/report", 1.0, seed=0, config={"model": {"depth": 4}})]
    assert [method.name for method in grouped(read(*folders))[0]] == ["a", "b", "b/other"]
    assert [method.name for method in grouped(read(*folders), ("1", "2", "3"))[0]] == ["1", "2", "3"]
    twins = [write_made(tmp_path / f"y/seed-{depth}", 1.0, config={"model": {"depth": depth}}) for depth in (1, 2)]
    assert [method.name for method in grouped(read(*twins))[0]] == ["y depth 1", "y depth 2"]
    with pytest.raises(DataError, match="names = one: 1 names, but there are 3 methods"):
        grouped(read(*folders), ("one",))
    with pytest.raises(DataError, match="names = a b a: each must be another one"):
        grouped(read(*folders), ("a", "b", "a"))


def test_what_does_not_compare_is_refused_with_all_reasons(tmp_path):
    write_made(tmp_path / "a", 2.0)
    write_made(tmp_path / "again", 2.0)
    write_made(tmp_path / "b", 1.0, images=24)
    write_made(tmp_path / "c", 1.5, under="diad")
    bare = write_made(tmp_path / "d", 1.2, images=24)
    (bare / "images.csv").unlink()
    with pytest.raises(DataError) as error:
        grouped(read(tmp_path))
    said = str(error.value)
    assert "again/report.json: the same run of seed 0 as" in said
    assert "b/report.json: bottle: 24 test images, the first that only one has is bottle/024.png; 30 in" in said
    assert "different protocols do not compare: exact-256 (" in said
    assert "d/report.json: bottle: 16 normal and 8 anomalous images, 20 and 10 in" in said


def test_labels_must_be_the_same(tmp_path):
    write_made(tmp_path / "a", 2.0)
    file = write_made(tmp_path / "b", 1.0) / "images.csv"
    results = read(tmp_path)
    results[1].images["screw"].labels[:2] = [1, 0]
    with pytest.raises(DataError, match=r"screw: screw/000.png has the label 1, 0 in"):
        grouped(results)
    assert file.exists()


def test_images_of_the_same_names_must_have_the_same_pixels(tmp_path):
    write_made(tmp_path / "a", 2.0)
    write_made(tmp_path / "b", 1.0, pixels="bb")
    with pytest.raises(DataError, match=r"b/report.json: its test images have other pixels than those of .*a/report"):
        grouped(read(tmp_path))


def test_nothing_in_common(tmp_path):
    write_made(tmp_path / "a", 2.0, categories=("nut",))
    write_made(tmp_path / "b", 1.0, categories=("bolt",))
    with pytest.raises(DataError, match="no category in common"):
        grouped(read(tmp_path))
