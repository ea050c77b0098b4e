"""What the demo shows: headings with the time gone by, one line that tells what is waited for, tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_LOOK_EVERY_S = 0.25
_SAY_EVERY_S = 5.0


class Show:
    """The demo's output. On a terminal the waiting line renews itself; in a log it is printed now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    def heading(self, text: str) -> None:
        """Begin a chapter."""
        self.console.print()
        self.console.rule(f"[bold]{text}[/]  [dim]{self.elapsed_s:.0f} s[/]", align="left", characters="─")

    def say(self, text: str, style: str = "") -> None:
        """Print a paragraph."""
        self.console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)

    def wait(self, done: Callable[[], bool], telling: Callable[[], str], *, patience_s: float) -> bool:
        """Wait until `done`, showing what `telling` says; return False where patience ends first."""
        ends = time.monotonic() + patience_s
        next_line = time.monotonic() + 1.0
        with self.console.status("") as status:
            while not done():
                now = time.monotonic()
                if now > ends:
                    return False
                if self.console.is_terminal:
                    status.update(telling())
                elif now >= next_line:
                    self.say(f"  … {telling()}")
                    next_line = now + _SAY_EVERY_S
                time.sleep(_LOOK_EVERY_S)
        self.say(f"  {telling()}")
        return True

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table under its title; the first column is text, the others figures."""
        self.say(f"\n{title}" if title else "", style="bold")
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0, overflow="fold")
        for row in rows:
            table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
        self.console.print(table)
