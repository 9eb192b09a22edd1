"""What a run says while it works: lines, warnings and progress bars, on the main process only (rich).

Names in it cannot control the terminal (`jaxad.io.text`), nor are they read as rich's markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxad.io.text import visible

LINES = 20
"""Lines of progress that training prints where there is no terminal for a bar."""


class _Stderr(Console):
    """What goes on without progress where nobody reads it any more, as behind `tee` after Ctrl-C."""

    def on_broken_pipe(self) -> None:
        """In place of ending the process."""
        self.quiet = True


class Reporter:
    """Shows progress on stderr, leaving stdout to results.

    Args:
        quiet: say nothing at all.
    """

    def __init__(self, quiet: bool = False):
        self._console = _Stderr(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line, or several."""
        self._console.print(visible(text, lines=True))

    def warn(self, texts: Sequence[str]) -> None:
        """Lines that a user should act on."""
        for text in texts:
            self._console.print(f"warning: {visible(text, lines=True)}", style="yellow")

    @contextmanager
    def images(self, what: str, total: int, *, unit: str = "images") -> Iterator[Callable[[int], None]]:
        """A bar over images, or other units; yields the function that adds to it."""
        with self._bar(unit) as bar:
            task = bar.add_task(visible(what), total=total, note="")
            yield lambda number: bar.advance(task, number)

    @contextmanager
    def steps(self, what: str, total: int, done: int) -> Iterator[Callable[[int, Mapping[str, float], float], None]]:
        """A bar over optimizer steps; yields the function (step, loss terms, images per second) that moves it."""
        with self._bar("steps") as bar:
            task = bar.add_task(what, total=total, completed=done, note="")
            every = max(total // LINES, 1)
            said = done // every

            def update(step: int, terms: Mapping[str, float], rate: float) -> None:
                nonlocal said
                shown = " ".join(f"{name} {value:.4g}" for name, value in terms.items() if name != "gradient_norm")
                speed = f" {rate:.1f} images/s" if rate == rate else ""
                bar.update(task, completed=step, note=shown + speed)
                if not self._console.is_terminal and step // every > said:
                    said = step // every
                    self.say(f"{what} {step}/{total} {shown}{speed}")

            yield update

    def _bar(self, unit: str) -> Progress:
        columns = (
            TextColumn("{task.description:>10}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        return Progress(*columns, console=self._console, disable=not self._console.is_terminal)
