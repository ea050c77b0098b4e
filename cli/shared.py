"""What every command shares: the workspace option, JSON output, errors in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from kernel.clock import parse_as_of, system_clock
from kernel.errors import CarillonError, ConfigError, InputError
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import Subject
from store.engine import open_database
from store.schema import migrate

Params = ParamSpec("Params")
Result = TypeVar("Result")

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", "-w", help="The workspace folder.", show_default="the current folder"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys instead of a table.")]

EARLIEST_YEAR, LATEST_YEAR = 1900, 2200
"""No order lies before or after; and a hundred years more either way are still dates."""

AsOfOption = Annotated[str, typer.Option("--as-of", help="A date, read as its midnight in the workspace's zone.")]


class Subjects(StrEnum):
    """Accounts or contacts, in the plural, as typed."""

    ACCOUNTS = "accounts"
    CONTACTS = "contacts"

    @property
    def one(self) -> Subject:
        """One of them."""
        return Subject(self.value.removesuffix("s"))


console = Console()
errors = Console(stderr=True, soft_wrap=True)


def reporting_errors(command: Callable[Params, Result]) -> Callable[Params, Result]:
    """Print Carillon's own errors in words and exit with code 1; anything else is a bug and keeps its traceback."""

    @wraps(command)
    def wrapped(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except InputError as error:
            for problem in error.problems:
                errors.print(f"{problem}", style="red", markup=False, highlight=False)
            errors.print(f"{len(error.problems)} problem(s) found; nothing was changed.")
            raise typer.Exit(1) from error
        except CarillonError as error:
            errors.print(f"error: {error}", style="red", markup=False, highlight=False)
            raise typer.Exit(1) from error
        except OperationalError as error:
            errors.print(
                f"error: the database does not answer: {error.orig}", style="red", markup=False, highlight=False
            )
            raise typer.Exit(1) from error

    return wrapped


@contextmanager
def opened(root: Path) -> Iterator[tuple[Workspace, Engine]]:
    """Yield the workspace and its migrated database."""
    workspace = load_workspace(root)
    engine = open_database(workspace.database_url)
    try:
        migrate(engine)
        yield workspace, engine
    finally:
        engine.dispose()


def print_json(value: Any) -> None:
    """Print one JSON document; instants in ISO 8601 UTC."""
    json.dump(value, sys.stdout, indent=2, default=_plain, ensure_ascii=False)
    sys.stdout.write("\n")


def instant_asked(text: str, zone: str, *, option: str = "--as-of") -> datetime:
    """Return the instant of a date as typed, now where none is given.

    Raises:
        ConfigError: not a date, or one that no fact can be of.
    """
    if not text:
        return system_clock()
    at = parse_as_of(text, zone)
    if not EARLIEST_YEAR <= at.year <= LATEST_YEAR:
        raise ConfigError(
            f"{option} {text} is outside the years {EARLIEST_YEAR} to {LATEST_YEAR}; write a date as 2026-01-31"
        )
    return at


def say(text: str) -> None:
    """Print a line as it is: what looks like markup is somebody's name."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_notes(notes: Iterable[str]) -> None:
    """Print what a person should know beside the answer, on stderr."""
    for note in notes:
        errors.print(f"note: {note}", style="yellow", markup=False, highlight=False)


def print_table(title: str, columns: Mapping[str, str], rows: list[list[Any]]) -> None:
    """Print a table of plain text; `columns` maps each heading to "left" or "right"."""
    # Text, not markup: a name may hold brackets, as "[red]" or "[/]", and is shown as it is.
    table = Table(title=Text(title), title_justify="left")
    for heading, justify in columns.items():
        table.add_column(Text(heading), justify="right" if justify == "right" else "left")
    for row in rows:
        table.add_row(*[Text("" if cell is None else str(cell)) for cell in row])
    console.print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
