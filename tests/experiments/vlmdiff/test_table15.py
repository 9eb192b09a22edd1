import json

import pytest

from experiments.vlmdiff import table15
from jaxad.errors import DataError


def test_a_finished_report_is_shown(tmp_path, capsys):
    values = {"image_auroc": 0.8, "pixel_auroc": 0.9, "aupro": None}
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"protocol": "diad", "classes": {"vcpill": values}, "mean": values}))
    rows = table15.main(table15.Table15(report=file))
    assert rows == {"vlmdiff": {"vcpill": values, "mean": values}}
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert ["vcpill", "ours", "80.0", "90.0", "-"] in printed
    assert ["published", "83.5", "97.3", "85.2"] in printed
    assert ["published", "78.0", "97.1", "87.7"] in printed
    file.write_text(json.dumps({"protocol": "exact-256", "classes": {"vcpill": values}, "mean": values}))
    with pytest.raises(DataError, match="protocol exact-256; the tables need diad"):
        table15.main(table15.Table15(report=file))
    file.write_text("[]")
    with pytest.raises(DataError, match=r"no report\.json"):
        table15.main(table15.Table15(report=file))
