"""Bundles: a run without its optimizer state."""

from __future__ import annotations

import numpy as np
import pytest

import jaxad
from jaxad.deploy.bundle import write_bundle
from jaxad.errors import ConfigError, DamagedError
from jaxad.inference.card import CARD
from jaxad.inference.rechoose import read_decided
from jaxad.training.verification import verify
from tests.training.test_trainer import arrays


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    return write_bundle(trained.workdir, tmp_path_factory.mktemp("bundles") / "bundle")


def test_a_bundle_is_taken_like_its_run(bundle, trained, parts):
    ours, theirs = jaxad.restore(bundle), jaxad.restore(trained.workdir)
    found, wanted = arrays(ours.detector), arrays(theirs.detector)
    assert found.keys() == wanted.keys()
    assert all(found[path].tobytes() == wanted[path].tobytes() for path in wanted)
    assert ours.threshold == theirs.threshold == trained.threshold
    assert (bundle / CARD).read_text() == (trained.workdir / CARD).read_text()
    np.testing.assert_array_equal(read_decided(bundle).holdout.scores, read_decided(trained.workdir).holdout.scores)
    assert not [finding for finding in verify(bundle) if finding.damage]


def test_it_holds_no_optimizer_state(bundle, trained):
    assert not list(bundle.rglob("training"))
    assert size(bundle) < size(trained.workdir / "checkpoints" / "12")


def test_it_takes_the_place_of_nothing(bundle, trained):
    with pytest.raises(ConfigError, match="holds a run or a bundle already"):
        write_bundle(trained.workdir, bundle)


def test_a_damaged_step_is_not_bundled(bundle, tmp_path):
    copy = write_bundle(bundle, tmp_path / "copy")
    file = max((copy / "checkpoints/12/model").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        write_bundle(copy, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_unknown_formats_and_platforms_are_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match="format = 'torch': must be one of stablehlo, onnx, bundle"):
        jaxad.export(trained.workdir, tmp_path, format="torch")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be some of cpu, cuda, tpu"):
        jaxad.export(trained.workdir, tmp_path, platforms=("rocm",))
