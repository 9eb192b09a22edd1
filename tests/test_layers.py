"""The rooms of the package stand in one order: a module imports only from rooms before its own."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (
    ("types", "errors", "registry"),
    ("config", "io"),
    ("nn",),
    ("data", "models", "metrics"),
    ("diffusion", "memory"),
    ("detector", "parallel"),
    ("features",),
    ("detectors",),
    ("inference",),
    ("training", "report", "deploy"),
    ("bench", "serve", "testing"),
    ("tfds_builders",),
    ("cli",),
    ("experiments",),
)
"""Rooms in the order of the data flow; rooms of one row know nothing of each other."""
RANK = {room: rank for rank, row in enumerate(ORDER) for room in row}
ROOT_MODULES = {"__init__", "__main__", "types", "errors", "registry", "detector", "parallel", "testing"}
FILES = sorted(file for top in ("jaxad", "tfds_builders", "experiments") for file in (ROOT / top).rglob("*.py"))


def module_of(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(file) for file in FILES}


def room(module):
    """The room that a module lies in: its first folder, or its own name in the root of jaxad."""
    top, *rest = module.split(".")
    return (rest[0] if rest else "") if top == "jaxad" else top


def imported(file):
    """Modules of this repository that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def strangers(file):
    """What a file imports from rooms that do not stand before its own."""
    mine = room(module_of(file))
    for module in imported(file):
        theirs = room(module) if module in MODULES else None
        if theirs and theirs != mine and RANK[theirs] >= RANK[mine] and (theirs, mine) != ("errors", "registry"):
            yield module


@pytest.mark.parametrize("file", [f for f in FILES if room(module_of(f)) not in ("", "__main__")], ids=module_of)
def test_a_module_imports_only_from_rooms_before_its_own(file):
    assert not list(strangers(file))


def test_every_room_has_its_place_and_the_hall_is_empty():
    assert {room(module) for module in MODULES} - {"", "__main__"} == set(RANK)
    assert {file.stem for file in (ROOT / "jaxad").glob("*.py")} == ROOT_MODULES
