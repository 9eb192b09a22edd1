"""The wheel is complete and works outside the checkout."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import experiments

ROOT = Path(__file__).parents[1]
MODULES = [module for module in pkgutil.walk_packages(experiments.__path__, "experiments.") if not module.ispkg]
EXPERIMENTS = [module.name for module in MODULES if not module.name.endswith(("rows", "sweep", "records"))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # With the build system at hand nothing has to be fetched.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", *isolation, "--wheel-dir", str(folder)], check=True)
    (built,) = folder.glob("jaxad-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder), str(wheel)], check=True)
    return folder


def outside(installed: Path, folder: Path, *arguments: str) -> str:
    """Output of Python in `folder`, with the installed wheel before everything else."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return result.stdout


@pytest.mark.slow
def test_wheel_holds_all_packages_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        file.relative_to(ROOT).as_posix()
        for package in ("jaxad", "tfds_builders")
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", ".html")
    }
    assert sources <= set(names)
    assert "jaxad/report/template.html" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jaxad", "tfds_builders"}
    assert not any("__pycache__" in name for name in names)


@pytest.mark.slow
def test_wheel_works_outside_the_checkout(installed, tmp_path):
    assert "patch-bank" in outside(installed, tmp_path, "-m", "jaxad", "fit", "--help")
    place = outside(installed, tmp_path, "-c", "import jaxad; print(jaxad.__file__)").strip()
    assert Path(place).is_relative_to(installed)
    template = (
        "import importlib.resources as r; print(len(r.files('jaxad.report').joinpath('template.html').read_text()))"
    )
    assert int(outside(installed, tmp_path, "-c", template)) > 1000
    assert (installed / "bin/jaxad").is_file()
    assert "mvtec_ad" in outside(installed, tmp_path, "-c", "import tfds_builders.listing as l; print(*l.names())")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_open_with_their_command(name):
    module = importlib.import_module(name)
    assert f"python -m {name} --" in (module.__doc__ or "")
    assert callable(vars(module)["main"])


def test_there_are_experiments():
    assert "experiments.dpdiff.table5" in EXPERIMENTS
