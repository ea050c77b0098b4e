"""Commands for whoever keeps Carillon running: init, doctor, status."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from campaigns.starting import start_workspace
from cli.shared import JsonOption, WorkspaceOption, console, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from store.engine import reading

if TYPE_CHECKING:
    from workers.status import Lane, Status

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@reporting_errors
def init(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="The folder to make; it may be there already if it holds no workspace. Default: --workspace."
        ),
    ] = None,
    root: WorkspaceOption = Path(),
) -> None:
    """Make a new workspace with one campaign that validates.

    Example: carillon init spring-shop
    """
    folder = folder or root
    made = start_workspace(folder)
    for path in made:
        console.print(f"  made {folder / path}", markup=False, highlight=False)
    console.print(
        f"\nNext:\n  cd {folder}\n"
        "  edit carillon.yaml                 your name, your address, your relay\n"
        "  carillon doctor                    is everything in place?\n"
        "  carillon import accounts FILE.csv  then contacts, orders: see sources.yaml\n"
        "  carillon validate                  are the campaigns in order?\n"
        "  carillon plan                      who would get what; sends nothing\n"
        "  carillon apply                     from now on it is on\n"
        "  carillon up                        run it all",
        markup=False,
        highlight=False,
    )


@reporting_errors
def doctor(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Check settings, database, broker, gateways and clock; send nothing. Exit code 1 if something fails.

    Example: carillon doctor --workspace shop
    """
    from workers.doctor import Health, examine

    checks = []
    for check in examine(root, now=system_clock()):
        checks.append(check)
        if not as_json:
            console.print(f"[{_COLOURS[check.health]}]{check.health:<4}[/]", f"{check.name}:", end=" ", highlight=False)
            console.print(check.says, markup=False, highlight=False, soft_wrap=True)
            if check.remedy:
                console.print(f"     → {check.remedy}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json({"healthy": all(c.health is not Health.FAIL for c in checks), "checks": [asdict(c) for c in checks]})
    if any(check.health is Health.FAIL for check in checks):
        raise typer.Exit(1)


@reporting_errors
def status(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Show what is planned, due, sent and stuck, and whether the books balance.

    Example: carillon status --json
    """
    from workers.status import status as state_of_affairs

    with opened(root) as (workspace, engine), reading(engine) as connection:
        gateways = workspace.settings.gateways
        rated = [name for name, gateway in gateways.items() if gateway.rate is not None]
        found = state_of_affairs(connection, gateways, rated=rated, now=system_clock())
    if as_json:
        print_json({**asdict(found), "balanced": found.balanced})
    else:
        _print_status(found)


def _print_status(found: Status) -> None:
    rows = [[state, f"{count:,}"] for state, count in found.messages.items() if count]
    print_table("Messages", {"state": "left", "messages": "right"}, rows or [["none yet", "0"]])
    if found.lanes:
        print_table(
            "Lanes",
            {"gateway": "left", "due": "right", "state": "left", "failures": "right", "reason": "left"},
            [[lane.name, f"{lane.due:,}", _state_of(lane), lane.failures, lane.reason] for lane in found.lanes],
        )
    since = f", the oldest since {found.oldest_due_at:%Y-%m-%d %H:%M:%S} UTC" if found.oldest_due_at else ""
    campaigns = ", ".join(f"{count} {state}" for state, count in sorted(found.campaigns.items())) or "none"
    lines = [
        f"due now: {found.due_now:,}{since} (all times are UTC)",
        f"campaigns: {campaigns}; runs open: {found.runs_open:,}; inbox waiting: {found.inbox_waiting:,}",
        *(f"{lane.name}: {lane.waits_for}, until {lane.waits_until} UTC" for lane in found.lanes if lane.waits_for),
        *(f"STUCK {words}" for words in found.stuck),
        *(f"PAUSED {words}" for words in found.paused),
        "the books balance" if found.balanced else f"THE BOOKS DO NOT BALANCE: {asdict(found.books)}",
        *(f"→ {hint}" for hint in found.hints),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _state_of(lane: Lane) -> str:
    if lane.held:
        return "closed by command"
    if lane.closed_until is not None:
        return f"closed until {lane.closed_until:%Y-%m-%d %H:%M:%S}"
    return "half open: being tried" if lane.failures else "open"


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command()(init)
    app.command()(doctor)
    app.command()(status)
