"""Table 2 of DPDiff-AD: the published ranges stand beside ours only where data and protocol are theirs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from experiments.dpdiff import table2, table3
from experiments.dpdiff.rows import PROTOCOL
from jaxad.metrics import METRICS


@pytest.mark.parametrize(
    ("protocol", "sizes", "printed"),
    [(PROTOCOL, 4, True), ("dpdiff", 4, False), (PROTOCOL, 3, False)],
    ids=["published", "protocol", "data"],
)
def test_published_ranges_are_of_one_protocol_and_all_data(protocol, sizes, printed, tmp_path, capsys, monkeypatch):
    names = list(table2.SIZES)[:sizes]
    tables = [
        SimpleNamespace(rows={name: dict.fromkeys(METRICS, value)}, reports={name: [{"protocol": protocol}]})
        for name, value in zip(names, (0.9, 0.7, 0.8, 0.75), strict=False)
    ]
    monkeypatch.setattr(table3, "run", lambda _: zip(names, tables, strict=True))
    # The images are made up.
    monkeypatch.setattr("jaxad.report.published._other_data", lambda *_: "")
    found = table2.main(table2.Table2(out=tmp_path))
    assert list(found) == [*names, table2.RANGE]
    assert found[table2.RANGE] == pytest.approx(dict.fromkeys(METRICS, 0.2))
    assert ("published" in capsys.readouterr().out) == printed
