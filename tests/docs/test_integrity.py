"""The page about integrity lists the kinds of damage that are tested."""

from tests.docs.pages import ROOT
from tests.training.damage import BEFORE, KINDS, NO_THRESHOLD, SAME, WHY

PAGE = ROOT / "docs/reliability/integrity.md"
FITTED = {
    BEFORE: "sets it aside, goes on from the step before",
    SAME: "finds the run complete",
    WHY: WHY,
}


def table():
    """The table of the page."""
    lines = ["| damage | `evaluate` and `predict` use | `fit` |", "|---|---|---|"]
    for name, kind in KINDS.items():
        fitted = "chooses the threshold anew" if kind.judged == NO_THRESHOLD else FITTED[kind.fitted]
        if "higher number" in name:
            fitted = f"sets it aside, {FITTED[SAME]}"
        lines.append(f"| {name} | {kind.judged} | {fitted} |")
    return "\n".join(lines)


def test_the_page_lists_every_kind_of_damage_and_what_comes_of_it():
    assert table() in PAGE.read_text()
    assert len(KINDS) >= 40
