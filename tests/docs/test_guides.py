"""The guides, followed from top to bottom as a reader would: files are written, commands and Python are run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxad.testing import make_parts
from tests.docs.pages import GUIDES, ROOT, Block, blocks

PARTS = "parts"
SHELL = 'set -eo pipefail\njaxad() { "$PYTHON" -m jaxad "$@"; }\npython() { "$PYTHON" "$@"; }\n'
# A package of the reader's goes beside the guide, not into the environment of the tests.
ISOLATION = "--no-build-isolation" if importlib.util.find_spec("hatchling") else ""
INSTALL = f'"$PYTHON" -m pip install -q --no-deps {ISOLATION} --upgrade --target site .'

# What would take a quarter of an hour is trained for a few steps on a toy network.
LONG = "fit dpdiff --data folder:parts --workdir runs/parts --preset retrieval"
SHORT = f"{LONG} --model.backbone random:32x6 --model.image-size 56 --train.steps 20"


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_following_a_guide(page, tmp_path):
    make_parts(tmp_path / PARTS, ("bottle", "gasket"))
    if page.stem == "add-a-metric-or-protocol":
        _run(["bash", "-c", SHELL + _bank()], tmp_path)
    followed = [_follow(block, tmp_path) for block in blocks(page) if not block.reason]
    assert any(followed)


def _follow(block: Block, folder: Path) -> bool:
    """Does what a block says; whether it said anything."""
    if block.title:
        file = folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.code)
        return True
    if block.language == "bash":
        code = block.code.replace("pip install --no-deps -e .", INSTALL).replace(LONG, SHORT)
        return _run(["bash", "-c", SHELL + code], folder)
    if block.language == "python":
        return _run([sys.executable, "-c", block.code], folder)
    return False


def _run(command: list[str], folder: Path) -> bool:
    paths = os.pathsep.join(map(str, (folder / "site", folder, ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHON": sys.executable}
    # Readers' own code runs as it would for them, without the strict shapes of jaxad's tests.
    environment.pop("JAX_NUMPY_RANK_PROMOTION", None)
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command[-1]}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return True


def _bank() -> str:
    """The patch bank that the guide on metrics takes from the guide on parts."""
    (page,) = (page for page in GUIDES if page.stem == "own-parts")
    return next(line for block in blocks(page) for line in block.code.splitlines() if "fit patch-bank" in line)
