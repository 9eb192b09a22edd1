"""The wheel is complete and works outside the checkout."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from site import getsitepackages

import pytest

import experiments
from jaxad.io.version import UNKNOWN

ROOT = Path(__file__).parents[1]
MODULES = [module for module in pkgutil.walk_packages(experiments.__path__, "experiments.") if not module.ispkg]
SHARED = ("rows", "sweep", "records", "by_category", "drawing", "sheets")
"""What experiments have in common, and nobody runs."""
EXPERIMENTS = [module.name for module in MODULES if not module.name.endswith(SHARED)]


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
BACKEND = ("hatchling", "hatch_vcs")


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> str:
    """A Python that has the build system: this one, or one of its own."""
    if all(map(importlib.util.find_spec, BACKEND)):
        return sys.executable
    folder = tmp_path_factory.mktemp("builder")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    wanted = [name.replace("_", "-") for name in BACKEND]
    install = [f"{folder}/bin/pip", "install", "--quiet", "-c", str(ROOT / ".ci/constraints.txt"), *wanted]
    subprocess.run(install, check=True)
    return f"{folder}/bin/python"


@pytest.fixture(scope="module")
def sdist(builder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run([builder, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], cwd=ROOT, check=True)
    (built,) = folder.glob("jaxad-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(builder, sdist, tmp_path_factory) -> Path:
    """Built from the sdist, as whoever gets it does: there is no git."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (sources,) = folder.iterdir()
    subprocess.run([builder, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=sources, check=True)
    (built,) = folder.glob("jaxad-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(folder), str(wheel)], check=True)
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
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert sources <= set(names)
    assert {"jaxad/report/template.html", "jaxad/py.typed", "jaxad/__init__.pyi"} <= set(names)
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


@pytest.mark.slow
def test_the_version_is_that_of_git_with_and_without_git(sdist, wheel, installed, tmp_path):
    version = outside(installed, tmp_path, "-m", "jaxad", "--version").split()[-1]
    assert wheel.name == f"jaxad-{version}-py3-none-any.whl"
    assert sdist.name == f"jaxad-{version}.tar.gz"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout[
        :7
    ]
    # Of a commit with a tag it is the tag's alone.
    assert re.fullmatch(rf"[0-9]+\.[0-9.]*(dev[0-9]+\+g{commit}[0-9a-f]*(\.d[0-9]+)?)?", version)
    assert version != UNKNOWN


@pytest.mark.slow
def test_sources_without_git_have_a_version_too(builder, tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = [builder, "-m", "hatchling", "version"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == UNKNOWN


@pytest.mark.slow
def test_demo_runs_from_the_wheel_in_an_empty_folder(wheel, tmp_path):
    environment, folder = tmp_path / "environment", tmp_path / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin/python"
    subprocess.run([*PIP, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # All but jaxad is as it is here; links in there to a checkout are not followed.
    (site / "present.pth").write_text("\n".join(getsitepackages()))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = subprocess.run(
        [python, "-c", "import jaxad; print(jaxad.__file__)"], cwd=folder, env=clean, capture_output=True, text=True
    )
    assert Path(where.stdout.strip()).is_relative_to(environment), where
    command = [environment / "bin/jaxad", "demo", "--out", "demo", "--steps", "2"]
    run = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (folder / "demo/report/report.json").is_file()
    assert "CC BY-NC-SA 4.0" in (folder / "demo/run/README.md").read_text()


def test_the_next_release_has_one_number():
    """git has it once it is tagged; until then it stands in two places."""
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changes = re.search(r"^## ([0-9][0-9.]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited is not None
    assert changes is not None
    assert cited[1] == changes[1]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_open_with_their_command(name):
    module = importlib.import_module(name)
    assert f"python -m {name} --" in (module.__doc__ or "")
    assert callable(vars(module)["main"])


def test_there_are_experiments():
    assert "experiments.dpdiff.table5" in EXPERIMENTS
