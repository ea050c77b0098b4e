"""Commands for data in: import, sources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from cli.shared import JsonOption, WorkspaceOption, console, errors, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from kernel.errors import ConfigError
from kernel.settings import load_workspace
from store.ingest.importing import run_import
from store.ingest.result import ImportResult, Progress, Report
from store.ingest.sources import load_sources

_SOME_ROWS_REJECTED = 3
_LOG_STEP = 0.25


@reporting_errors
def import_(
    source: Annotated[str | None, typer.Argument(help="A source of sources.yaml.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Argument(help="The file; default: the one sources.yaml names.", show_default=False)
    ] = None,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
    list_: Annotated[bool, typer.Option("--list", help="List the sources instead.")] = False,
) -> None:
    """Import a file; the same file twice changes nothing. Exit code 3 if some rows were rejected.

    CSV, TSV, XLSX, Parquet or JSONL, told by the name, each also with .gz.

    Example: carillon import invoices exports/2026-11.csv.gz
    """
    if list_:
        _print_sources(root, as_json)
        return
    if source is None:
        raise ConfigError("name a source: carillon import SOURCE [FILE]; `carillon sources` lists them")
    with opened(root) as (workspace, engine), _progress() as report:
        result = run_import(engine, workspace, source, file, now=system_clock(), progress=report)
    if as_json:
        print_json(result.as_json())
    else:
        _print_result(result)
    if result.tally.rejected:
        raise typer.Exit(_SOME_ROWS_REJECTED)


@reporting_errors
def sources(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """List the sources of sources.yaml.

    Example: carillon sources --workspace shop
    """
    _print_sources(root, as_json)


def _print_sources(root: Path, as_json: bool) -> None:
    known = load_sources(load_workspace(root)).by_name
    if as_json:
        print_json(
            [
                {"name": name, "kind": one.kind, "file": one.file, "columns": one.columns.given()}
                for name, one in known.items()
            ]
        )
        return
    rows = [[name, one.kind, one.file or "", ", ".join(one.columns.given().values())] for name, one in known.items()]
    print_table("Sources", {"source": "left", "kind": "left", "file": "left", "columns": "left"}, rows)


def _print_result(result: ImportResult) -> None:
    told = result.as_json()
    for name in ("rows", "new", "changed", "unchanged", "superseded", "rejected", "without_customer"):
        console.print(f"  {name.replace('_', ' '):<18}{told[name]:>12,}", highlight=False)
    for name in ("orders", "products", "accounts"):
        if told[name]:
            made = told["created"].get(name, 0)
            console.print(f"  {name:<18}{told[name]:>12,}" + (f"  ({made:,} made)" if made else ""), highlight=False)
    for kind, count in result.orders_by_kind.items():
        console.print(f"    {kind:<16}{count:>12,}", highlight=False)
    if result.amount is not None:
        console.print(f"  {'amount':<18}{result.amount.normalize():>16,f} {result.currency}", highlight=False)
    if result.rejects_file:
        errors.print(
            f"{result.tally.rejected:,} row(s) rejected; they stand with their reasons in {result.rejects_file}",
            style="yellow",
            markup=False,
            highlight=False,
        )


@contextmanager
def _progress() -> Iterator[Report]:
    """Yield a report that draws a bar on a terminal, and prints a line now and then into a log; both on stderr."""
    if not errors.is_terminal:
        yield _LogLines()
        return
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=errors, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total)
            bars.update(tasks[progress.stage], completed=progress.done, total=progress.total)

        yield report


class _LogLines:
    """Prints a plain line at each quarter of a stage, or where its length is unknown each time it doubles."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        due = self._next.get(progress.stage, 1.0)
        if progress.done < due:
            return
        whole = f" of {progress.total:,}" if progress.total else ""
        errors.print(f"{progress.stage}: {progress.done:,}{whole}", markup=False, highlight=False)
        if progress.total is None:
            self._next[progress.stage] = progress.done * 2.0
        elif progress.done >= progress.total:
            self._next.pop(progress.stage, None)
        else:
            quarters = int(progress.done / progress.total / _LOG_STEP) + 1
            self._next[progress.stage] = min(progress.total, quarters * _LOG_STEP * progress.total)


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command("import")(import_)
    app.command("sources")(sources)
