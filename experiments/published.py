"""What the three papers print for whole benchmarks, as a file for `jaxad compare --published`.

Not an experiment itself. Command:
    python -m experiments.published --out published.json
    jaxad compare runs/mine --published published.json
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from experiments.clipfusion import rows as clipfusion
from experiments.clipfusion import table1
from experiments.dpdiff import rows as dpdiff
from experiments.dpdiff import table3
from experiments.records import Printed
from experiments.vlmdiff import results
from experiments.vlmdiff import rows as vlmdiff
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.metrics import METRICS
from jaxad.report.published import Published


@dataclass(frozen=True)
class Options:
    """Where the rows go."""

    out: Path = Path("published.json")
    """The file."""


def rows() -> Iterator[Published]:
    """Every method on every benchmark."""
    ours = Printed("DPDiff-AD, Tables 1 to 3", dpdiff.PROTOCOL, METRICS, table3.PUBLISHED)
    theirs = Printed("VLMDiff, results of its README", vlmdiff.PROTOCOL, results.COLUMNS, results.PUBLISHED)
    for name, printed in (("DPDiff-AD", ours), ("VLMDiff", theirs)):
        for data in printed.rows:
            if (row := printed.row(data, data)) is not None:
                yield replace(row, row=name)
    for data, table in table1.PUBLISHED.items():
        printed = Printed("CLIPFusion, Table 1", clipfusion.PROTOCOL, clipfusion.METRICS, table, data)
        yield from (row for name in table if (row := printed.row(name)) is not None)


def main(options: Options) -> Path:
    """Writes the file."""
    return write_whole(options.out, json_text([row.to_json() for row in rows()], indent=1) + "\n")


if __name__ == "__main__":
    print(main(tyro.cli(Options, description=__doc__)))
