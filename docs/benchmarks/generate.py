"""Writes docs/benchmarks.md, and the table of results in the README, from the JSON files beside this one.

    python docs/benchmarks/generate.py            # write
    python docs/benchmarks/generate.py --check    # fail if a page differs from its files

One file is one measurement: what was run, on which data, by which protocol, with which seeds, on which machine, when;
its tables; and what they show. Numbers are written as they stand in the file, with all their digits.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "benchmarks.md"
README = HERE.parents[1] / "README.md"
FIELDS = ("order", "title", "about", "command", "data", "protocol", "seeds", "machine", "date", "tables", "findings")
HEAD = """\
# Benchmarks

Everything on this page was measured by jaxad's authors with the commands shown. The page is generated from the JSON
files in `docs/benchmarks/` by `python docs/benchmarks/generate.py`; to add a measurement, add a file.

No GPU was at hand for any of it, and none of it is a published benchmark; how those are run is said in
[Reproduce a table](guides/reproduce-a-table.md).
"""


def load(file: Path) -> dict:
    """One measurement. Numbers stay the text they are, so that no digit is lost: 100.0 is not 100.

    Raises:
        ValueError: a field is missing or unknown, or a row is longer or shorter than its table's columns.
    """
    measurement = json.loads(file.read_text(), parse_float=str, parse_int=str)
    if set(measurement) != set(FIELDS):
        raise ValueError(f"{file}: fields must be {', '.join(FIELDS)}; they are {', '.join(measurement)}")
    for table in measurement["tables"]:
        for row in table["rows"]:
            if len(row) != len(table["columns"]):
                raise ValueError(f"{file}: a row of {len(row)} cells under {len(table['columns'])} columns: {row}")
    return measurement


def load_all() -> list[dict]:
    """All measurements in the order in which they are shown."""
    return sorted((load(file) for file in HERE.glob("*.json")), key=lambda measurement: int(measurement["order"]))


def table(content: dict) -> str:
    """A table in Markdown; a cell with several numbers shows them joined by `join`, a slash if not given."""
    join = content.get("join", " / ")

    def line(cells: list) -> str:
        return "| " + " | ".join(join.join(cell) if isinstance(cell, list) else cell for cell in cells) + " |"

    rule = "|" + "---|" * len(content["columns"])
    lines = [line(content["columns"]), rule, *map(line, content["rows"])]
    return "\n".join([content["caption"], "", *lines] if "caption" in content else lines)


def section(measurement: dict) -> str:
    """One measurement in Markdown."""
    facts = [f"Data: {measurement['data']}"]
    if measurement["protocol"]:
        facts.append(f"Protocol: `{measurement['protocol']}`")
    if measurement["seeds"]:
        facts.append(f"Seeds: {', '.join(measurement['seeds'])}")
    facts += [f"Machine: {measurement['machine']}", f"Date: {measurement['date']}"]
    return "\n\n".join(
        [
            f"## {measurement['title']}",
            measurement["about"],
            *(["```bash\n" + "\n".join(measurement["command"]) + "\n```"] if measurement["command"] else []),
            *map(table, measurement["tables"]),
            *measurement["findings"],
            "\n".join(f"- {fact}" for fact in facts),
        ]
    )


def page() -> str:
    """The whole of docs/benchmarks.md."""
    return "\n\n".join([HEAD.rstrip(), *map(section, load_all())]) + "\n"


def readme() -> str:
    """The README with its tables, each after a comment that names its file, as the files have them."""

    def block(found: re.Match) -> str:
        return f"{found[1]}\n\n{table(load(HERE / found[2])['tables'][0])}\n"

    return re.sub(r"(<!-- docs/benchmarks/([\w-]+\.json) -->)\n\n(?:\|.*\n)*", block, README.read_text())


def main() -> int:
    """Writes the pages, or with --check says which differ; the exit status."""
    stale = [file for file, text in ((PAGE, page()), (README, readme())) if _text(file) != text]
    if "--check" in sys.argv[1:]:
        for file in stale:
            print(f"{file.name} differs from docs/benchmarks/*.json; run python docs/benchmarks/generate.py")
        return 1 if stale else 0
    PAGE.write_text(page())
    README.write_text(readme())
    return 0


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
