"""Writes docs/reliability/folders.md: `python -m tests.data.nasty`."""

from __future__ import annotations

from pathlib import Path

from tests.data.nasty import FOLDERS
from tests.data.nasty.maker import Nasty

PAGE = Path(__file__).parents[3] / "docs/reliability/folders.md"


def page() -> str:
    """The table of all folders, in Markdown."""
    lines = [
        "# Folders",
        "",
        f"What `jaxad check --data folder:PATH`, or `--data csv:FILE`, makes of {len(FOLDERS)} folders: the numbers of "
        "training, normal test and defective test images and of masks, or the reason for which it refuses the folder. "
        "A test makes each of them and checks what is said; this page is written from it by `python -m "
        "tests.data.nasty`.",
    ]
    for group in dict.fromkeys(nasty.group for nasty in FOLDERS):
        lines += ["", f"## {group}", "", "| folder | `jaxad check` |", "|---|---|"]
        lines += [f"| {nasty.title} | {_said(nasty)} |" for nasty in FOLDERS if nasty.group == group]
    return "\n".join(lines) + "\n"


def _said(nasty: Nasty) -> str:
    if nasty.refused:
        return f"refuses: {', '.join(f'*{word}*' for word in nasty.refused)}"
    counts = "; ".join(f"{name} {' / '.join(map(str, numbers))}" for name, numbers in nasty.counts.items())
    return counts + "".join(f", note *{kind}*" for kind in nasty.notes)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
