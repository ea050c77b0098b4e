"""What every command shares: the workspace option, JSON output, errors in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from kernel.errors import CarillonError, InputError
from kernel.settings import Workspace, load_workspace
from store.engine import open_database
from store.schema import migrate

Params = ParamSpec("Params")
Result = TypeVar("Result")

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", "-w", help="The workspace folder.", show_default="the current folder"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys instead of a table.")]

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
