"""The layers of the package: what stands below imports nothing from above, and knows no detector."""

import ast
from pathlib import Path

import pytest

import jaxad

BASIS = {"types", "errors", "files", "config", "precision", "module_state", "__version__"}
LAYERS = {
    "config": set(),
    "data": set(),
    "models": set(),
    "metrics": set(),
    "diffusion": {"models"},
    "memory": {"models"},
}
"""Folders below `systems`, and what else each may import."""


def imported(file):
    """Dotted names within jaxad that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxad":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "jaxad")


@pytest.mark.parametrize("folder", LAYERS)
def test_a_layer_imports_only_from_those_before_it(folder):
    files = sorted((Path(jaxad.__file__).parent / folder).glob("*.py"))
    assert files
    found = {(file.name, name) for file in files for name in imported(file)}
    allowed = BASIS | LAYERS[folder] | {folder}
    assert {(file, name) for file, name in found if name.split(".")[1] not in allowed} == set()
    if folder != "config":
        configs = {name.split(".")[-1] for _, name in found if name.startswith("jaxad.config.")}
        assert configs <= {"Blocks", "DataConfig"}
