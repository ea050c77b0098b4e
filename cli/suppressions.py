"""Commands about addresses that are not sent to."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.shared import JsonOption, WorkspaceOption, console, errors, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from kernel.errors import ConfigError
from kernel.quantities import parse_duration
from kernel.vocabulary import Channel, SuppressionReason
from reports.csv_files import csv_bytes
from store.engine import reading, writing
from store.suppression_lists import (
    COLUMNS,
    Brought,
    bring_in,
    channel_of,
    history_of,
    read_list,
    standing_rows,
    wire_form,
)
from store.suppressions import lift, suppress

app = typer.Typer(no_args_is_help=True, help="Addresses that are not sent to.")

AddressArgument = Annotated[str, typer.Argument(help="An e-mail address, or a number as +447900000001.")]
NoteOption = Annotated[str, typer.Option(help="Why; kept in the history.")]
ChannelOption = Annotated[Channel | None, typer.Option(help="Only these; default: both.")]
ReasonOption = Annotated[SuppressionReason | None, typer.Option(help="Only these; default: all.")]


def register(parent: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command("list")(list_)
    app.command()(show)
    app.command()(add)
    app.command("lift")(lift_)
    app.command("import")(import_)
    app.command()(export)
    parent.add_typer(app, name="suppressions")


@reporting_errors
def list_(
    channel: ChannelOption = None,
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option(help="At most so many, the latest first.", min=1)] = 100,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """List addresses that are not sent to now, the latest first: why, since when, until when.

    Example: carillon suppressions list --reason hard_bounce
    """
    with opened(root) as (_workspace, engine), reading(engine) as connection:
        rows = standing_rows(connection, now=system_clock(), channel=channel, reason=reason, limit=limit)
    if as_json:
        print_json(rows)
        return
    columns = {"address": "left", "reason": "left", "since": "left", "days": "right", "until": "left", "detail": "left"}
    cells = [[r["address"], r["reason"], r["at"], r["age_days"], r["expires_at"], r["detail"][:80]] for r in rows]
    print_table("Suppressions", columns, cells)


@reporting_errors
def show(address: AddressArgument, root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Tell what stands for an address and how it came to that: every word, bounce and sign of life.

    Example: carillon suppressions show jo@customer.example
    """
    channel, address = _of(address)
    with opened(root) as (_workspace, engine), reading(engine) as connection:
        found = history_of(connection, channel=channel, address=address, now=system_clock())
    if as_json:
        print_json(found)
        return
    for row in found["standing"]:
        until = row["expires_at"] or "lifted"
        line = f"{address}: {row['reason']} since {row['at']}, until {until}. {row['detail']}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not found["standing"]:
        console.print(f"{address} is not suppressed", markup=False, highlight=False)
    columns = {"at": "left", "what": "left", "reason": "left", "by": "left", "until": "left", "detail": "left"}
    print_table("History", columns, [[line[key] for key in columns] for line in found["history"]])


@reporting_errors
def add(
    address: AddressArgument,
    days: Annotated[str | None, typer.Option("--for", help="For so long, as 90d; default: for ever.")] = None,
    note: NoteOption = "",
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Send nothing more to an address, for ever or for a time; takes effect on every message that has not left.

    Example: carillon suppressions add jo@customer.example --for 90d --note "asked by telephone"
    """
    channel, address = _of(address)
    now = system_clock()
    try:
        until = now + parse_duration(days) if days else None
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"--for: {error}") from error
    reason = SuppressionReason.MANUAL
    with opened(root) as (_workspace, engine), writing(engine) as connection:
        suppress(
            connection, channel=channel, address=address, reason=reason, at=now, until=until, by=_who(), detail=note
        )
        found = history_of(connection, channel=channel, address=address, now=now)
    _tell(f"{address} gets nothing more{f' until {until:%Y-%m-%d %H:%M} UTC' if until else ''}", found, as_json)


@reporting_errors
def lift_(
    address: AddressArgument,
    reason: Annotated[SuppressionReason | None, typer.Option(help="Only this; default: every reason.")] = None,
    note: NoteOption = "",
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Send to an address again. A consent that was taken back stays taken back: only the person can give it anew.

    Example: carillon suppressions lift jo@customer.example --note "mailbox is back"
    """
    channel, address = _of(address)
    now = system_clock()
    reasons = [reason] if reason else list(SuppressionReason)
    with opened(root) as (_workspace, engine), writing(engine) as connection:
        lifted = lift(connection, channel=channel, address=address, reasons=reasons, at=now, by=_who(), detail=note)
        found = history_of(connection, channel=channel, address=address, now=now)
    _tell(f"{address}: lifted {', '.join(lifted)}" if lifted else f"{address}: nothing to lift", found, as_json)


@reporting_errors
def import_(
    file: Annotated[Path, typer.Argument(help="A CSV file with a column `address`.")],
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Suppress every address of a CSV file; the same file twice changes nothing.

    Columns: address, and if you like channel, reason, at, expires_at, detail, as `export` writes them. Lines that are
    not understood are named and left out; the exit code is then 3.

    Example: carillon suppressions import left-provider.csv
    """
    now = system_clock()
    lines, problems = read_list(file, now=now)
    with opened(root) as (_workspace, engine), writing(engine) as connection:
        brought = bring_in(connection, lines, by=f"{_who()}: {file.name}", now=now)
    if as_json:
        bad = [{"line": problem.line, "problem": problem.message} for problem in problems]
        print_json({"lines": len(lines), **asdict(brought), "not_understood": bad})
    else:
        for words in _brought_in(brought):
            console.print(words, markup=False, highlight=False, soft_wrap=True)
    for problem in problems if not as_json else []:
        errors.print(f"line {problem.line} was not understood: {problem.message}", markup=False, highlight=False)
    if problems:
        raise typer.Exit(3)


def _brought_in(brought: Brought) -> Iterator[str]:
    """Yield what an imported list changed, in words."""
    yield f"{brought.added:,} added: they get nothing from now on"
    if brought.already:
        yield f"{brought.already:,} suppressed already: nothing changes for them"
    if brought.ended:
        yield f"{brought.ended:,} not suppressed: their time is over, or a later sign of life or lift counts more"
    if brought.left_out:
        yield f"{brought.left_out:,} left out: soft_bounce and mailbox_full pass, and are counted here anew"


@reporting_errors
def export(
    file: Annotated[Path, typer.Argument(help="The CSV file to write; it may be there already.")],
    channel: ChannelOption = None,
    reason: ReasonOption = None,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write what stands now to a CSV file that is safe to open in a spreadsheet.

    Example: carillon suppressions export suppressions.csv
    """
    with opened(root) as (_workspace, engine), reading(engine) as connection:
        rows = standing_rows(connection, now=system_clock(), channel=channel, reason=reason)
    cells = [[_cell(row[name]) for name in COLUMNS] for row in rows]
    try:
        file.write_bytes(csv_bytes(COLUMNS, cells))
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    if as_json:
        print_json({"lines": len(rows), "file": str(file)})
    else:
        console.print(f"{len(rows):,} lines in {file}", markup=False, highlight=False)


def _cell(value: Any) -> str:
    return "" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)


def _of(address: str) -> tuple[Channel, str]:
    channel = channel_of(address)
    found = wire_form(channel, address)
    if found is None:
        raise ConfigError(f"{address!r} is neither an e-mail address nor a number with its country, as +447900000001")
    return channel, found


def _who() -> str:
    try:
        return f"command:{getpass.getuser()}"
    except (OSError, KeyError):  # A container's user may have no name.
        return "command"


def _tell(words: str, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        console.print(words, markup=False, highlight=False)
