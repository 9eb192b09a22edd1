"""`jaxad demo`: what it leaves, and the commands that it names."""

import json
import shlex

import pytest

from jaxad import cli
from jaxad.cli.demo import Demo
from jaxad.cli.evaluate import Evaluate
from jaxad.cli.fit import Fit
from jaxad.data.demo.dataset import DemoCounts
from jaxad.report.schema import validate_report
from tests.cli.shell import failure


def test_demo_refuses_before_work(tmp_path, capsys):
    assert "--steps 0" in failure(capsys, "demo", "--out", tmp_path / "demo", "--steps", "0")
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_demo_trains_compares_and_says_how_to_go_on(tmp_path, capsys):
    counts = DemoCounts(12, 2, 2, 12, 2, 5, 3)
    Demo(tmp_path / "my demo", steps=2).run(counts)
    report = json.loads((tmp_path / "my demo/report/report.json").read_text())
    validate_report(report)
    assert report["data"]["source"] == "demo"
    assert set(report["classes"]) == {"brick", "grass", "gravel", "solar_mono", "solar_poly"}
    assert report["classes"]["solar_mono"]["pixel_ap"] is None
    assert report["baseline"]["config"]["system"] == "patch-bank"
    assert (tmp_path / "my demo/report/report.html").is_file()
    advice = [line.partition("jaxad ")[2] for line in capsys.readouterr().out.splitlines() if "jaxad " in line]
    predict, fit, evaluate = (cli.parse(shlex.split(line)) for line in advice)
    assert isinstance(fit, Fit)
    assert fit.detector == "dpdiff"
    assert isinstance(evaluate, Evaluate)
    assert evaluate.checkpoint == fit.workdir
    cli.run(predict)
    assert (tmp_path / "my demo/predictions/predictions.jsonl").is_file()
