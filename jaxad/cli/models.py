"""`jaxad models`: what pretrained networks there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxad.cli._command import Command


@dataclass(frozen=True)
class Models(Command):
    """List the pretrained networks: parameters, the option that takes them, where their weights come from."""

    words: ClassVar[str] = "models"

    def run(self) -> None:
        """Prints the table."""
        from jaxad.cli._tables import print_table
        from jaxad.models.catalog import networks

        heads = ("network", "million parameters", "option", "weights")
        rows = [(n.name, f"{n.parameters / 1e6:.1f}", n.use, n.source) for n in networks()]
        print_table(heads, rows, numbers=(False, True, False, False))
