"""Pages of Markdown as their blocks of code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
_BLOCK = re.compile(
    r"(?:<!-- not followed: (?P<reason>.*?) -->\n+)?"
    r'```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)```',
    re.DOTALL,
)


class Block(NamedTuple):
    """A block of code: its language, the file that it is, and why nobody should run it here ("" to run it)."""

    language: str
    title: str
    code: str
    reason: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found = _BLOCK.finditer(page.read_text())
    return [Block(b["language"], b["title"] or "", b["code"], b["reason"] or "") for b in found]


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """The words after `program` of every command of a page that runs it."""
    for block in blocks(page):
        for line in block.code.splitlines() if block.language == "bash" else ():
            for part in line.split("#")[0].split("&&"):
                words = [word for word in shlex.split(part.rstrip("& ")) if not re.match(r"[A-Z_]+=", word)]
                if " ".join(words).startswith(f"{program} "):
                    yield words[len(program.split()) :]
