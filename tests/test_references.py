"""Nothing refers to notes that the repository does not hold: a reason stands where it is needed, or in docs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Spelled backwards, so that this file does not cite them itself.
NOTES = tuple(name[::-1] for name in ("CEPS", "NGISED"))
ABSENT = re.compile(rf"\b{NOTES[0]}\b|\b({'|'.join(NOTES)}) ?\d")
"""A citation of such notes."""


def files():
    """Every text file that git tracks, or all where there is no git."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split("\n") if listed.returncode == 0 else [str(f.relative_to(ROOT)) for f in ROOT.rglob("*")]
    return [name for name in names if name.endswith((".py", ".md", ".html", ".toml", ".json", ".ipynb", ".yml"))]


def test_no_file_cites_absent_notes():
    assert "jaxad/detector.py" in files()
    found = [name for name in files() if (ROOT / name).is_file() and ABSENT.search((ROOT / name).read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize("cited", [f"{NOTES[0]} 27", f"{NOTES[1]} 4.4", f"({NOTES[0]})"])
def test_a_citation_is_found(cited):
    assert ABSENT.search(f"the default ({cited}) is ours")
