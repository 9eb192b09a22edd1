"""What a run says while it works: lines, warnings and progress, on the main process only (rich).

Progress is told by time, never by steps: in place several times a second on a terminal and in a notebook, by a line
now and then where there is neither. Names in it cannot control the terminal (`jaxad.io.text`), nor are they read as
rich's markup.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from jaxad.io import notebook
from jaxad.io.notebook import Line, in_notebook
from jaxad.io.text import visible

SHOWN = 0.5
"""Seconds between two looks at the steps for a terminal, and two changes in a notebook."""
FIRST, LONGEST = 10.0, 600.0
"""Without a terminal, seconds until the first line, and the most between two; in between they double."""


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
        """Progress over images, or other units; yields the function that adds to it."""
        with self._counting(what, total, 0, unit) as counter:
            yield counter.add

    @contextmanager
    def steps(self, what: str, total: int, done: int) -> Iterator[StepCounter]:
        """Progress over optimizer steps, `done` of which were before; its last line stays."""
        with self._counting(what, total, done, "") as counter:
            yield StepCounter(counter, quiet=self._console.quiet)

    @contextmanager
    def _counting(self, what: str, total: int, done: int, unit: str) -> Iterator[_Counter]:
        words = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        # The bar takes what the text leaves of a line.
        columns = (words, BarColumn(bar_width=None, table_column=Column(ratio=1)))
        terminal = self._console.is_terminal
        with Progress(*columns, console=self._console, disable=not terminal, expand=True) as bar:
            line = Line() if in_notebook() and not self._console.quiet else None
            yield _Counter(self, bar if terminal else None, line, visible(what), total, done, unit)


class StepCounter:
    """Progress over the steps of a training.

    `due` says when to look: a loss that is read makes the host wait for the device, which several times a second costs
    nothing, and at every step would.
    """

    def __init__(self, counter: _Counter, *, quiet: bool):
        self._counter, self._quiet, self._looked = counter, quiet, -math.inf

    def due(self) -> bool:
        """Whether it is time to call this again; never where nobody sees it."""
        now = time.monotonic()
        if self._quiet or not self._counter.wants(now) or now - self._looked < SHOWN:
            return False
        self._looked = now
        return True

    def __call__(self, step: int, loss: float | None) -> None:
        """Shows the number of steps done and the loss of the last one."""
        self._counter.set(step, "" if loss is None else f"loss {loss:.4g}", last=step >= self._counter.total)


class _Counter:
    """How much is done of something, and when it will be all."""

    def __init__(
        self, reporter: Reporter, bar: Progress | None, line: Line | None, what: str, total: int, done: int, unit: str
    ):
        self.total, self._done = total, done
        self._reporter, self._bar, self._line, self._what, self._unit = reporter, bar, line, what, unit
        self._began = self._since = time.monotonic()
        # The first count tells how long compiling took, not how fast it goes on.
        self._from: int | None = None
        # What is done at once needs no bar in a notebook, where it would stay.
        self._next = self._began + (FIRST if line is None else SHOWN)
        self._shown = False
        self._task: TaskID | None = None
        if bar is not None:
            self._task = bar.add_task("", total=total, completed=done, text=self._text(""))

    def wants(self, now: float) -> bool:
        """Whether something would be shown now."""
        return self._bar is not None or self._line is not None or now >= self._next

    def add(self, number: int) -> None:
        """Counts so many more."""
        self.set(self._done + number, "")

    def set(self, done: int, note: str, *, last: bool = False) -> None:
        """Counts so many, and shows it where it is time to, or it is the `last` that is told."""
        now, self._done = time.monotonic(), done
        if self._from is None:
            self._from, self._since = done, now
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, text=self._text(note))
        elif self._line is not None:
            if last or now >= self._next or (self._shown and done >= self.total):
                self._next, self._shown = now + SHOWN, True
                self._line.set(self._html(note))
        elif last or now >= self._next:
            self._next = now + min(max(now - self._began, FIRST), LONGEST)
            self._reporter.say(self._text(note))

    def _html(self, note: str) -> str:
        bar = f'<progress value="{self._done}" max="{max(self.total, 1)}"></progress>'
        return f"{bar} <code>{notebook.text(self._text(note).strip())}</code>"

    def _text(self, note: str) -> str:
        share = 100 * self._done // self.total if self.total else 100
        parts = (f"{self._what:>10} {self._done:,}/{self.total:,}", self._unit, f"{share:3d}%", self._time(), note)
        return " ".join(part for part in parts if part)

    def _time(self) -> str:
        """What it took, where it is done; else how long it will take, once that is known."""
        now = time.monotonic()
        if self._done >= self.total:
            return f"in {duration(now - self._began)}"
        if self._from is None or self._done <= self._from or now <= self._since:
            return "-:-- left"
        return f"{duration((self.total - self._done) * (now - self._since) / (self._done - self._from))} left"


@contextmanager
def counted(
    what: str, total: int, progress: Callable[[int], None] | None, *, unit: str = "images"
) -> Iterator[Callable[[int], None] | None]:
    """The function that counts what a call of the library does: the caller's, or in a notebook one that shows it."""
    if progress is not None or not in_notebook():
        yield progress
        return
    with Reporter().images(what, total, unit=unit) as shown:
        yield shown


def duration(seconds: float) -> str:
    """A length of time as people read it: "0:42", "1:02:03", "3d 04:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
