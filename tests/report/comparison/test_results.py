"""Reports are found where they lie, and what they are not is said with their file."""

from __future__ import annotations

import json

import pytest

from jaxad.errors import DataError, ReportError
from jaxad.report.comparison.results import find_reports, read_results
from tests.report.comparison.made_reports import write_made


def made_run(folder):
    """A workdir, as far as the search looks."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_reports_lie_in_folders_in_runs_and_beside_them(tmp_path):
    for seed in (10, 2):
        write_made(made_run(tmp_path / "many" / f"seed-{seed}") / "report", 1.0, seed=seed)
    write_made(tmp_path / "one-report", 1.0)
    made_run(tmp_path / "one")
    made_run(tmp_path / "two/seed-0")
    write_made(tmp_path / "two-report/seed-0", 1.0)
    bare = made_run(tmp_path / "bare")
    places = [tmp_path / name for name in ("many", "one", "two", "bare")]
    reports, runs = find_reports([*places, tmp_path / "one-report/report.json"])
    folders = ("many/seed-2/report", "many/seed-10/report", "one-report", "two-report/seed-0")
    assert reports == [tmp_path / folder / "report.json" for folder in folders]
    assert runs == [bare]


def test_places_without_a_report_are_all_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        find_reports([tmp_path / "empty", tmp_path / "nowhere"])
    assert "empty: holds no report.json" in str(error.value)
    assert "nowhere: does not exist" in str(error.value)


def test_a_sum_of_seeds_gives_way_to_its_parts_and_protocols_can_be_chosen(tmp_path):
    write_made(tmp_path / "seed-0", 1.0)
    write_made(tmp_path / "other", 1.0, under="diad")
    write_made(tmp_path, 1.0, config={"seed": [0, 1]})
    files, _ = find_reports([tmp_path])
    assert {result.file.parent.name for result in read_results(files)} == {"seed-0", "other"}
    assert [result.protocol for result in read_results(files, only="diad")] == ["diad"]


def test_what_is_damaged_or_of_another_report_is_named(tmp_path):
    folders = [write_made(tmp_path / name, 1.0, seed=seed) for seed, name in enumerate("abcde")]
    files = [folder / "report.json" for folder in folders]
    files[0].write_text("{")
    folders[1].joinpath("images.csv").write_bytes(folders[4].joinpath("images.csv").read_bytes())
    images = folders[2] / "images.csv"
    images.write_text(images.read_text().replace(",0,", ",2,", 1).replace("file,", "name,", 0))
    folders[3].joinpath("images.csv").write_text("file,category,label\n")
    with pytest.raises(ReportError) as error:
        read_results(files)
    a, b, c, d = str(error.value).splitlines()
    assert "a/report.json: damaged JSON" in a
    assert "b/images.csv: is not that of report.json (image_auroc of bottle is " in b
    assert "c/images.csv: needs a file, a category, a label of 0 or 1 and a finite score in line 2" in c
    assert "d/images.csv: has no column score" in d


def test_seed_steps_and_places_are_told_apart(tmp_path):
    def made(name, **data):
        train = {"seed": data.pop("seed", 0), "steps": data.pop("steps", 10), "log_every": data.pop("log_every", 10)}
        config = {"train": train, "data": {"sha256": {"images": "aa"}, "source": name, **data}}
        (result,) = read_results([write_made(tmp_path / name, 1.0, config=config) / "report.json"])
        return result

    first = made("first")
    assert (first.seed, made("second", seed=3).seed) == ("0", "3")
    same = (made("third", seed=3), made("fourth", log_every=1), made("fifth", skipped=["a.png"]))
    assert {other.identity for other in same} == {first.identity}
    assert made("sixth", steps=20).identity != first.identity
    assert made("seventh", sha256={"images": "bb"}).identity != first.identity
    # What a seed draws is another choice of images, not another method.
    drawn = [made(f"shots {name}", shots=1, sha256={"images": name}).identity for name in "ab"]
    assert drawn[0] == drawn[1] != first.identity
    assert json.loads(first.identity)[0] == "exact-256"
