"""How far a build is: one live display on a terminal, plain lines in a log, and a summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)  # fmt: skip
from rich.table import Table

from serendipity.offline.steps import Numbers, Outcome
from serendipity.offline.workers import Bar

_SECONDS_BETWEEN_LINES = 60.0
"""Where there is no terminal, a step that is at work says at most so often how far it is."""


class BuildDisplay:
    """Shows a build on a console: where it is a terminal a bar for every step that runs, elsewhere lines."""

    def __init__(self, console: Console, num_steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._next_line: dict[str, float] = {}
        self._num_steps = num_steps
        self._done = 0
        self._running: dict[str, TaskID] = {}
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            get_time=clock,
        )
        self._whole = self.progress.add_task("build", total=num_steps)

    def started(self, step: str) -> None:
        """Show that a step begins."""
        self._running[step] = self.progress.add_task(step, total=None)
        if not self._console.is_terminal:
            self._next_line[step] = self._clock() + _SECONDS_BETWEEN_LINES
            number = self._done + len(self._running)
            self._console.print(f"[{number}/{self._num_steps}] {step} …", markup=False, highlight=False)

    def progressed(self, step: str, bar: Bar) -> None:
        """Show how far a step is."""
        description = f"{step}: {bar.description}"
        task = self._running[step]
        self.progress.update(task, description=description, completed=bar.completed, total=bar.total)
        if not self._console.is_terminal and self._clock() >= self._next_line[step]:
            self._next_line[step] = self._clock() + _SECONDS_BETWEEN_LINES
            left = next(shown.time_remaining for shown in self.progress.tasks if shown.id == task)
            whole = "" if bar.total is None else f" of {bar.total:,.0f}"
            until = "" if left is None or bar.total is None else f", {timedelta(seconds=left)} left"
            self._console.print(f"{description} {bar.completed:,.0f}{whole}{until}", markup=False, highlight=False)

    def finished(self, outcome: Outcome) -> None:
        """Show that a step is done."""
        self._done += 1
        self.progress.advance(self._whole)
        if outcome.step in self._running:
            self.progress.remove_task(self._running.pop(outcome.step))
        state = f"{outcome.seconds:.1f} s" if outcome.ran else "up to date"
        line = f"[{self._done}/{self._num_steps}] {outcome.step}: {state}  {describe(outcome.numbers)}"
        self._console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def build_display(console: Console, num_steps: int) -> Iterator[BuildDisplay]:
    """Show a build of `num_steps` steps while the block runs."""
    display = BuildDisplay(console, num_steps)
    with display.progress:
        yield display


def summary(outcomes: Sequence[Outcome]) -> Table:
    """Lay out what became of every step."""
    table = Table("step", "", "seconds", "key numbers", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for outcome in outcomes:
        table.add_row(
            outcome.step, "ran" if outcome.ran else "skipped", f"{outcome.seconds:.1f}", describe(outcome.numbers)
        )
    table.add_row("total", "", f"{sum(outcome.seconds for outcome in outcomes if outcome.ran):.1f}", "")
    return table


def describe(numbers: Numbers) -> str:
    """Write key numbers on a line: integers with separators, others to four significant digits."""
    return ", ".join(f"{name} {_number(value)}" for name, value in numbers.items())


def _number(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep `transformers` from drawing bars of its own."""
    from transformers.utils import logging

    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows_progress:
            logging.enable_progress_bar()
