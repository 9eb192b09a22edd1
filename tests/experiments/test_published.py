"""Published rows of all papers as a file, and beside the reports that they may be compared with."""

from __future__ import annotations

import json

import pytest

from experiments.published import Options, main, rows
from jaxad.errors import ReportError
from jaxad.report.comparison.comparison import compare
from jaxad.report.comparison.tables import overview
from jaxad.report.published import Published, read_published
from tests.report.comparison.made_reports import write_made


def test_the_file_has_what_the_papers_print(tmp_path):
    found = read_published(main(Options(tmp_path / "published.json")))
    assert found == list(rows())
    (row,) = (row for row in found if (row.row, row.data) == ("VLMDiff", "mvtec_ad"))
    assert (row.protocol, row.values["image_auroc"], row.values["aupro"]) == ("diad", 0.906, 0.894)
    assert {row.protocol for row in found} == {"exact-256", "diad", "winclip"}
    (few,) = (row for row in found if (row.row, row.data) == ("CLIP-AC, 0-shot", "visa"))
    assert few.values.keys() == {"image_auroc", "image_ap"}


def test_rows_that_fit_stand_below_the_methods(tmp_path):
    write_made(tmp_path / "a", 2.0)
    theirs = Published("A paper", "folder:parts", "exact-256", {"image_auroc": 0.5}, "theirs")
    mvtec = [Published("Another", "mvtec_ad", "exact-256", {}, name) for name in "xy"]
    found = compare([tmp_path / "a"], metrics=("image_auroc",), published=[theirs, *mvtec])
    assert found.others == (theirs,)
    last = overview(found).rows[-1]
    assert (last[0], last[2].mean) == ("theirs (A paper)", 0.5)
    assert [note for note in found.notes if "Another" in note] == [
        "Another, mvtec_ad: left out: for the 15 categories of mvtec_ad, of which folder:parts has 2"
    ]


WORDS = '[{"source": "a", "data": "b", "protocol": "exact-256", "values": {"image_auroc": "high"}}]'


@pytest.mark.parametrize("content", ["{}", "[3]", '[{"source": "a"}]', "[", '[{"a": 1}]', WORDS])
def test_a_file_of_another_form_is_refused(content, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(ReportError, match=r"mine\.json: "):
        read_published(file)
    wrong = Published("a", "b", "c", {"image_auroc": 99.0}).to_json()
    file.write_text(json.dumps([Published("a", "b", "c").to_json(), wrong]))
    with pytest.raises(ReportError, match=r"mine\.json: entry 1: needs source"):
        read_published(file)
