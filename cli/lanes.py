"""Commands about lanes: which gateways are closed, and why; closing and opening them by hand."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.shared import JsonOption, WorkspaceOption, console, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from kernel.documents import did_you_mean
from kernel.errors import ConfigError
from kernel.settings import Workspace
from store.engine import reading, writing
from store.lanes import hold_lane, lanes_now, open_lane, wake

lanes_app = typer.Typer(no_args_is_help=True, help="The gateways' circuit breakers, and what they wait for.")

NameArgument = Annotated[str, typer.Argument(help="The gateway's name in carillon.yaml.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    lanes_app.command("list")(list_lanes)
    lanes_app.command("open")(open_)
    lanes_app.command()(close)
    app.add_typer(lanes_app, name="lanes")


@reporting_errors
def list_lanes(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """List gateways that are closed, refused lately, or wait for a quota or budget: until when, and why.

    Example: carillon lanes list --json
    """
    now = system_clock()
    with opened(root) as (workspace, engine), reading(engine) as connection:
        rows = lanes_now(connection, now=now)
    if as_json:
        print_json(rows)
        return
    known = {row["name"]: row for row in rows}
    names = [*workspace.settings.gateways, *(known.keys() - workspace.settings.gateways.keys())]
    columns = {"gateway": "left", "state": "left", "failures": "right", "reason": "left", "moved": "right"}
    print_table("Gateways (times are UTC)", columns, [_cells(name, known.get(name), now) for name in names])
    for row in rows:
        if row["waits_for"]:
            words = f"{row['name']}: {row['waits_for']}; the rest waits until {row['waits_until']:%Y-%m-%d %H:%M} UTC"
            console.print(words, markup=False, highlight=False, soft_wrap=True)


def _cells(name: str, row: dict[str, Any] | None, now: datetime) -> list[Any]:
    """Return what the table says of a gateway; None for the row: it never refused, or not lately."""
    if row is None:
        return [name, "open", 0, "", 0]
    if row["held"]:
        state = "closed by command"
    elif row["closed_until"] is not None and row["closed_until"] > now:
        state = f"closed until {row['closed_until']:%Y-%m-%d %H:%M:%S}"
    else:
        state = "half open: being tried" if row["failures"] else "open"
    return [name, state, row["failures"], row["reason"], row["moved"]]


@reporting_errors
def open_(name: NameArgument, root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Open a closed gateway now, after mending what it complained about; what waits for a quota or budget is due.

    Example: carillon lanes open relay
    """
    with opened(root) as (workspace, engine), writing(engine) as connection:
        opened_now = open_lane(connection, name, by_command=True)
        woken = wake(connection, name)
    if not opened_now:
        _must_exist(workspace, name)
    if as_json:
        print_json({"name": name, "opened": opened_now, "woken": woken})
        return
    waited = f"; {woken:,} message(s) that waited for a quota or budget are looked at again" if woken else ""
    said = "is open again" if opened_now else "was not closed"
    console.print(f"{name} {said}{waited}", markup=False, highlight=False, soft_wrap=True)


@reporting_errors
def close(
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown by `lanes list`.")] = "closed by command",
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Close a gateway until `carillon lanes open`; what is planned waits, or goes by its route's other gateways.

    Example: carillon lanes close relay --reason "moving to the new relay"
    """
    with opened(root) as (workspace, engine):
        _must_exist(workspace, name)
        with writing(engine) as connection:
            hold_lane(connection, name, reason=reason)
    if as_json:
        print_json({"name": name, "held": True, "reason": reason})
        return
    console.print(f"{name} is closed until `carillon lanes open {name}`", markup=False, highlight=False)


def _must_exist(workspace: Workspace, name: str) -> None:
    gateways = workspace.settings.gateways
    if name not in gateways:
        raise ConfigError(f"carillon.yaml has no gateway {name!r} ({did_you_mean(name, gateways)})")
