"""Data sets by name: jaxad's own are found in their package, others where another package names them."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from jaxad import registry
from jaxad.data.prepared import open_prepared
from jaxad.data.registry import datasets
from jaxad.errors import DataError
from tfds_builders.listing import Benchmark, benchmark

OWN = {
    "anomaly_folder",
    "btad",
    "coco_ad",
    "mpdd",
    "mvtec_ad",
    "mvtec_loco",
    "real_iad",
    "real_iad_variety",
    "visa",
}
BOLTS = Benchmark(
    name="bolts",
    title="Bolts",
    homepage="",
    license="theirs",
    how_to_obtain="ask",
    is_root=lambda folder: True,
    list_samples=lambda root, category: (),
    categories=("m3",),
)


@pytest.fixture
def bolts(monkeypatch):
    """A data set of another package, named by an entry point."""
    point = metadata.EntryPoint("bolts", f"{__name__}:BOLTS", "jaxad.datasets")
    known = registry._points
    monkeypatch.setattr(registry, "_points", lambda *of: [point] if of[0] == "jaxad.datasets" else known(*of))
    yield
    datasets._entries.pop("bolts", None)


def test_jaxads_own():
    assert set(datasets.names()) >= OWN
    assert {datasets.get(name).name for name in OWN} == OWN
    assert {name for name in OWN if datasets.get(name).subsets} == {"real_iad_variety"}


def test_one_of_another_package_is_known_to_reading_and_to_preparing(bolts, tmp_path):
    assert "bolts" in datasets.names()
    assert benchmark("bolts") is BOLTS
    with pytest.raises(DataError, match=r"bolts is not prepared in .*; run: jaxad prepare bolts"):
        open_prepared("bolts/m3", tmp_path)


def test_folders_are_read_and_names_known_without_tfds(tree):
    tree.category("c", train=2, good=1, bad=1)
    code = f"""
import sys
import jaxad
data = jaxad.data.load("folder:{tree.root}")
assert len(data.test) == 2 and data.test.mask(1).any()
assert "mvtec_ad" in jaxad.data.datasets.names()
jaxad.restore
heavy = ("tensorflow_datasets", "tensorflow", "matplotlib", "array_record", "grain", "tfds_builders")
print([name for name in heavy if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
