import json

import pytest

from experiments.clipfusion import rows, table4
from experiments.clipfusion.rows import METRICS, RowOptions
from jaxad.config import CLIPFusionConfig
from tests.detectors.clipfusion.made_checkpoints import CONFIG, write_clip, write_diffusion


@pytest.mark.slow
def test_rows_run_once_and_stand_beside_the_published_ones(parts, tmp_path, capsys, monkeypatch):
    for name, write in (("clip", write_clip), ("diffusion", write_diffusion)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    places = {"clip": str(tmp_path / "clip"), "diffusion": str(tmp_path / "diffusion")}
    options = RowOptions(tmp_path / "runs", (parts.name,), seeds=(0, 1), model=CLIPFusionConfig(**CONFIG), **places)
    found = table4.main(options)[parts.name]
    assert list(found) == list(table4.PUBLISHED["mvtec_ad"])
    assert all(0 <= (mean[name] or -1) <= 1 for mean in found.values() for name in METRICS)
    assert found["language"] != found["vision"]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    titles = [next(word for word in line if word in ("ours", "std", "published")) for line in lines[1:]]
    assert titles == ["ours", "published", "ours", "std", "published", "ours", "std", "published"]
    assert lines[2][:4] == ["mvtec_ad", "published", "left", "out:"]

    (data,) = (tmp_path / "runs").iterdir()
    merged = json.loads((data / "vision" / "report.json").read_text())
    seeds = [json.loads((data / "vision" / f"seed-{seed}" / "report.json").read_text()) for seed in (0, 1)]
    values = [report["classes"]["tile"]["pixel_auroc"] for report in seeds]
    assert merged["classes"]["tile"]["pixel_auroc"] == pytest.approx(sum(values) / 2)
    assert merged["classes"]["tile"]["std"]["pixel_auroc"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert [path.name for path in (data / "language").glob("seed-*")] == ["seed-0"]

    monkeypatch.setattr(rows, "load_networks", None)
    assert table4.main(options)[parts.name] == found
