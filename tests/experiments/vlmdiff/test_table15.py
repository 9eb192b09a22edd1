import json

import pytest

from experiments.vlmdiff import table15
from jaxad.errors import DataError


def test_a_finished_report_is_shown(tmp_path, capsys):
    values = {"image_auroc": 0.8, "pixel_auroc": 0.9, "aupro": None}
    file = tmp_path / "report.json"
    counts = {"n_normal": 3, "n_anomalous": 2}
    report = {"protocol": "diad", "data": {"source": "real_iad/vcpill"}, "mean": values}
    file.write_text(json.dumps({**report, "classes": {"vcpill": {**values, **counts}}}))
    rows = table15.main(table15.Table15(report=file))
    assert rows == {"vlmdiff": {"vcpill": values, "mean": values}}
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert ["vcpill", "ours", "80.0", "90.0", "-"] in printed
    assert ["published", "83.5", "97.3", "85.2"] in printed
    # The mean over one category is not that of all.
    assert "for the 30 categories of real_iad, of which real_iad/vcpill has 1" in " ".join(printed[-1])
    every = {name: {**values, **counts} for name in table15.PUBLISHED["VLMDiff"] if name != "mean"}
    file.write_text(json.dumps({**report, "classes": every}))
    table15.main(table15.Table15(report=file))
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert printed[-1] == ["published", "78.0", "97.1", "87.7"]
    file.write_text(json.dumps({"protocol": "exact-256", "classes": {"vcpill": values}, "mean": values}))
    with pytest.raises(DataError, match="protocol exact-256; the tables need diad"):
        table15.main(table15.Table15(report=file))
    file.write_text("[]")
    with pytest.raises(DataError, match=r"no report\.json"):
        table15.main(table15.Table15(report=file))
