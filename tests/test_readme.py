"""Every command line and every path that the README shows exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jaxad import cli

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL) if README.is_file() else []
PARTS = [part.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() for part in line.split("&&")]
COMMANDS = [part for part in PARTS if part.startswith("jaxad ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_line_is_understood(line):
    command = cli.parse(shlex.split(line)[1:])
    assert type(command).__module__ == "jaxad.cli.flags"


def test_readme_shows_every_command():
    shown = {shlex.split(line)[1] for line in COMMANDS} | set(re.findall(r"`jaxad ([a-z]+)", README.read_text()))
    assert {"demo", "fit", "evaluate", "predict", "prepare", "check", "models", "convert", "caption", "bench"} <= shown


def test_experiments_named_exist():
    named = set(re.findall(r"experiments[./](\w+)[./](\w+)", README.read_text()))
    assert named
    assert all((README.parent / "experiments" / paper / f"{name}.py").is_file() for paper, name in named)
