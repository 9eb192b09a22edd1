"""Help: what it lists, that it fits 80 columns, and what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxad.cli import COMMANDS
from tests.test_references import ABSENT

PEERS = ("padim", "dinomaly", "uniad", "simplenet", "rd4ad", "vitad", "inp-former", "hvq-trans")
FITTED = ("dpdiff", "patch-bank", "linear", "retrieval", *PEERS, "vlmdiff", "clipfusion", "promptad", "autoencoder")
BENCHMARKS = ("metrics", "input", "models", "clipfusion", "vlmdiff")
HELPS = [
    (),
    *((name,) for name in COMMANDS),
    *(("fit", name) for name in FITTED),
    *(("bench", name) for name in BENCHMARKS),
]


def test_the_overview(shown):
    """The one test of what exactly is said; `jaxad --help` writes the file anew."""
    assert shown("--help") == (Path(__file__).parent / "help.txt").read_text()


@pytest.mark.parametrize("asked", ["--help", "--help-all"])
@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_no_line_is_longer_than_80_columns_or_cites_what_users_lack(shown, words, asked):
    text = shown(*words, asked)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert not ABSENT.search(text)
    if words:
        assert f"jaxad {' '.join(words)}" in text


def test_lists_have_a_line_for_each_name(shown):
    detectors, benchmarks = shown("fit", "--help"), shown("bench", "--help")
    assert all(f"  {name} " in detectors for name in FITTED)
    assert all(f"  {name} " in benchmarks for name in BENCHMARKS)


def test_help_of_a_preset_shows_its_values(shown):
    small, paper = shown("fit", "dpdiff", "--preset", "small", "--help-all"), shown("fit", "dpdiff", "--help-all")
    assert "(default: embedded)" in small
    assert "(default: middle)" in small
    assert "(default: embedded)" not in paper


@pytest.mark.parametrize("detector", ["dpdiff", "vlmdiff", "clipfusion"])
def test_expert_settings_are_shown_when_asked_for(shown, detector):
    short, long = shown("fit", detector, "-h"), shown("fit", detector, "--help-all")
    assert "more settings: --help-all" in short
    assert "--model.image-size" in short
    assert "--model.precision" not in short
    assert "--model.precision" in long
    assert short.count("--model.") < 0.5 * long.count("--model.")


@pytest.mark.parametrize("words", [(), ("predict",), ("evaluate",), ("prepare",)], ids=" ".join)
def test_help_imports_little(words):
    """Half a second is for Python and tyro, not for libraries that only work needs."""
    check = f"import sys; from jaxad import cli\ntry: cli.parse([*{words!r}, '--help'])\nexcept SystemExit: pass\n"
    check += "print(*{'jax', 'numpy', 'cv2', 'scipy', 'flax', 'rich', 'PIL'} & set(sys.modules), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stderr.split() == []
