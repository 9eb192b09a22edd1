"""The registry of protocols, one of a stranger's, and the metrics that the published ones take."""

import dataclasses
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from scipy import ndimage

import jaxad
from jaxad import registry
from jaxad.errors import ConfigError, ProtocolError
from jaxad.metrics import AuproGrid, Protocol, Smoothing, protocol, protocol_names, protocols, register_protocol
from jaxad.report.schema import validate_report
from tests import oracles
from tests.metrics import cases

OURS = ("exact-256", "exact-448", "dpdiff", "diad", "ader", "dinomaly", "winclip")
MINE = Protocol("mine", "64 px, Gaussian 2 px, the highest pixel", size=64, smoothing=Smoothing(2.0, 8))


@pytest.fixture
def clean(monkeypatch):
    """Forgets what a test registers."""
    monkeypatch.setattr(protocols._protocols, "_entries", dict(protocols._protocols._entries))


def test_names_and_descriptions():
    assert protocol_names() == OURS
    for name in OURS:
        one = protocol(name)
        assert one.name == name
        assert one.description
        assert "\n" not in one.description
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol("diad").size = 3


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ProtocolError, match=r"dinomali.*dinomaly.*exact-256, exact-448, dpdiff"):
        protocol("dinomali")


def test_names_cost_neither_numpy_nor_jax():
    code = "import sys, jaxad.metrics as m; m.protocol_names(); print({'jax', 'numpy', 'cv2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_registered_protocol_evaluates(clean, trained, parts):
    assert register_protocol(MINE) is MINE
    assert protocol_names() == (*OURS, "mine")
    report = jaxad.evaluate(trained.model, parts, protocol="mine")
    validate_report(report)
    assert (report["protocol"], report["protocol_description"]) == ("mine", MINE.description)


def test_a_protocol_of_an_installed_package_is_found(clean, monkeypatch):
    point = EntryPoint("mine", f"{__name__}:MINE", "jaxad.protocols")
    monkeypatch.setattr(registry, "_points", lambda group, places: [point] if group == point.group else [])
    assert protocol_names() == (*OURS, "mine")
    assert protocol("mine") == MINE


def test_a_name_of_ours_cannot_be_taken(clean):
    with pytest.raises(ConfigError, match="'diad'"):
        register_protocol(dataclasses.replace(MINE, name="diad"))
    assert register_protocol(protocol("diad")) is protocol("diad")


def test_a_tiny_defect_makes_the_image_normal_under_ader_only():
    mask = np.zeros((1024, 1024), bool)
    mask[500, 500:502] = True
    labels = {one.name: one.image_label(1, one.resize_mask(mask)) for one in map(protocol, OURS)}
    assert labels == dict.fromkeys(OURS, 1) | {"ader": 0}
    assert protocol("ader").image_label(1, None) == 1


def test_a_defect_at_the_edge_is_one_though_dinomaly_crops_it_away():
    mask = np.zeros((448, 448), bool)
    mask[:20, :20] = True
    assert not protocol("dinomaly").resize_mask(mask).any()
    assert [one.image_label(1, one.resize_mask(mask)) for one in map(protocol, OURS)] == [1] * len(OURS)


def small(name: str, steps: int) -> Protocol:
    """A protocol with a coarser grid, so that the loops of the oracles end soon."""
    one = protocol(name)
    grid = one.rules.aupro_grid or AuproGrid(steps)
    return dataclasses.replace(
        one, rules=dataclasses.replace(one.rules, aupro_grid=dataclasses.replace(grid, steps=steps))
    )


@pytest.mark.parametrize(
    ("name", "aupro"),
    [
        ("diad", oracles.aupro_diad),
        ("dinomaly", oracles.aupro_diad),
        ("ader", oracles.aupro_ader),
        ("winclip", oracles.aupro_winclip),
    ],
)
def test_metrics_of_published_protocols_agree_with_slow_oracles(name, aupro):
    masks = cases.masks(6, side=64)
    # A ring; and normal pixels at the highest score, so that no threshold below it has FPR 0.
    masks[0, 10:40, 10:40] = True
    masks[0, 16:34, 16:34] = False
    maps = np.stack([ndimage.gaussian_filter(m, 2) for m in cases.maps("normal", masks)])
    maps[1, :10] = maps.max()
    labels = masks.any(axis=(1, 2)).astype(int)
    metrics = small(name, 40).class_metrics()
    metrics.update(maps.max(axis=(1, 2)), labels, maps, masks)
    result, exact = metrics.result(), oracles.pixel_metrics(maps, masks)
    assert result["aupro"] == pytest.approx(aupro(maps, masks, 40), abs=1e-4)
    assert result["pixel_f1max"] == pytest.approx(
        oracles.f1_ader(maps, masks) if name == "ader" else exact["pixel_f1max"], abs=1e-4
    )
    assert result["pixel_auroc"] == pytest.approx(exact["pixel_auroc"], abs=1e-4)
    assert result["pixel_ap"] == pytest.approx(exact["pixel_ap"], abs=1e-4)


@pytest.mark.parametrize("name", OURS)
def test_auroc_is_flipped_under_diad_alone(name):
    masks = cases.masks(6, side=64)
    maps, labels = cases.maps("inverted", masks), masks.any(axis=(1, 2)).astype(int)
    metrics = protocol(name).class_metrics()
    metrics.update(-np.arange(6) * labels, labels, maps, masks)
    result = metrics.result()
    below = oracles.pixel_metrics(maps, masks)["pixel_auroc"]
    assert below < 0.3
    image = 1 / 6
    expected = (1 - image, 1 - below) if name == "diad" else (image, below)
    assert (result["image_auroc"], result["pixel_auroc"]) == pytest.approx(expected, abs=1e-4)


def test_grids_have_the_published_number_of_thresholds():
    steps = {name: grid and grid.steps for name in OURS for grid in [protocol(name).rules.aupro_grid]}
    assert steps == {
        "exact-256": None,
        "exact-448": None,
        "dpdiff": None,
        "diad": 200,
        "ader": 100,
        "dinomaly": 200,
        "winclip": 200,
    }
