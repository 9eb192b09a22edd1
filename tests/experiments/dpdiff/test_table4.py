"""Table 4 of DPDiff-AD: which networks each detector is timed with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest

from experiments.dpdiff import table4
from jaxad.detector import detectors


@pytest.mark.parametrize("backbone", ["random:48x12", "weights/resnet"])
def test_no_untrained_transformer_takes_the_place_of_the_resnet_of_diad(backbone, tmp_path, monkeypatch):
    made, get = {}, detectors.get

    def create(config, key):
        made[type(config).__name__] = config
        return SimpleNamespace(protocol="exact-256")

    def known(name):
        cls = get(name)
        return SimpleNamespace(config_class=cls.config_class, protocol=cls.protocol, create=create)

    monkeypatch.setattr(table4.detectors, "get", known)
    speed = {"images_per_second": 1.0, "end_to_end_images_per_second": 1.0}
    monkeypatch.setattr(table4, "prediction_speed", lambda *_: speed)
    options = table4.Table4(tmp_path, ("DiAD", "UniAD"), backbone, "weights/v1-5", image_size=56)
    assert list(table4.main(options)) == ["DiAD", "UniAD"]
    diad, uniad = made["VLMDiffConfig"], made["UniADConfig"]
    published = get("vlmdiff").config_class.preset("diad").backbone
    assert (diad.backbone, uniad.backbone) == (published if "random" in backbone else backbone, backbone)
    assert (diad.stable_diffusion, diad.image_size, uniad.image_size) == ("weights/v1-5", 56, 56)


def test_detectors_without_a_published_rate_are_timed_beside_the_others(tmp_path, monkeypatch, capsys):
    assert get_args(table4.Name) == tuple(table4.ROWS)
    judged, speed = {}, {"images_per_second": 3.0, "end_to_end_images_per_second": 2.0}

    def timed(detector, protocol, batch_size, mesh, seconds):
        judged[detector.name] = detector.categories
        return speed

    monkeypatch.setattr(table4, "prediction_speed", timed)
    names = ("Dinomaly", "PaDiM", "patch bank")
    found = table4.main(table4.Table4(tmp_path, names, "random:48x12", image_size=28, batch_size=2))
    assert found == dict.fromkeys(names, speed)
    # What remembers knows the images that it has seen; empty, it could not judge.
    assert judged == {"dinomaly": ("part",), "padim": ("disc", "tile"), "patch-bank": ("disc", "tile")}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[-1] for line in lines] == ["126.9", "-", "-"]


def test_plans_for_accelerators_stand_in_place_of_times(tmp_path, monkeypatch, capsys):
    planned = []

    def plans(topology, detector, train, *, about, filled, programs, batch_sizes, protocol):
        planned.append((topology.name, detector.config.precision, train, about, filled() is detector, programs))
        yield {"images_per_second": 70.0, "fits": topology.name == "h100:1", "batch_size": batch_sizes[0]}

    named = [SimpleNamespace(name=name) for name in ("h100:1", "rtx4090:1")]
    monkeypatch.setattr(table4, "find_topologies", lambda names: [each for each in named if each.name in names])
    monkeypatch.setattr(table4, "detector_plans", plans)
    monkeypatch.setattr(table4, "prediction_speed", lambda *_: pytest.fail("times what it was to plan"))
    asked = table4.Table4(tmp_path, ("Dinomaly",), "random:48x12", image_size=28, topology=("h100:1", "rtx4090:1"))
    found = table4.main(asked)["Dinomaly"]
    assert {name: row["batch_size"] for name, row in found.items()} == {"h100:1": 64, "rtx4090:1": 64}
    common = ("bfloat16", None, {"dtype": "bfloat16"}, True, ("prediction",))
    assert planned == [("h100:1", *common), ("rtx4090:1", *common)]
    head, line = (text.split() for text in capsys.readouterr().out.splitlines())
    assert head == ["row", "h100:1", "rtx4090:1", "published"]
    # What does not fit has no rate.
    assert line == ["Dinomaly", "70.0", "nan", "126.9"]
