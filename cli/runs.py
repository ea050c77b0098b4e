"""Commands about applied campaigns and their runs: list, show, pause, resume, cancel."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from campaigns import control
from cli.shared import JsonOption, WorkspaceOption, console, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from reports.funnel import Dimension, breakdown, funnel
from store.engine import reading

campaigns_app = typer.Typer(no_args_is_help=True, help="Applied campaigns: what runs, and when.")
runs_app = typer.Typer(no_args_is_help=True, help="Runs: single firings of campaigns, and what became of them.")

NameArgument = Annotated[str, typer.Argument(help="The campaign.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; shown by `campaigns show`.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    campaigns_app.command("list")(list_campaigns)
    campaigns_app.command("show")(show_campaign)
    campaigns_app.command()(pause)
    campaigns_app.command()(resume)
    campaigns_app.command()(cancel)
    app.add_typer(campaigns_app, name="campaigns")
    runs_app.command("list")(list_runs)
    runs_app.command("show")(show_run)
    app.add_typer(runs_app, name="runs")


@reporting_errors
def list_campaigns(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """List applied campaigns with their state, last and next run.

    Example: carillon campaigns list --json
    """
    with opened(root) as (_, engine), reading(engine) as connection:
        rows = control.list_campaigns(connection, now=system_clock())
    if as_json:
        print_json([_campaign_json(row) for row in rows])
        return
    columns = {
        "campaign": "left",
        "state": "left",
        "version": "right",
        "runs": "right",
        "last run": "left",
        "next run": "left",
        "why": "left",
    }
    cells = [
        [row.name, row.state, row.version, row.runs, _at(row.last_run_at), _at(row.next_run_at), row.state_reason]
        for row in rows
    ]
    print_table("Applied campaigns (times in UTC)", columns, cells)


@reporting_errors
def show_campaign(name: NameArgument, root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Show one applied campaign: its file as applied, and its runs.

    Example: carillon campaigns show winback
    """
    with opened(root) as (_, engine), reading(engine) as connection:
        row = control.find_campaign(connection, name, now=system_clock())
        spec = control.applied_version(connection, row).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        found = control.list_runs(connection, campaign=name)
    if as_json:
        print_json({**_campaign_json(row), "spec": spec, "run_list": [_run_json(run) for run in found]})
        return
    console.print(f"{row.name}: {row.state} {row.state_reason}".rstrip(), markup=False, highlight=False)
    console.print(
        f"version {row.version}, applied {_at(row.applied_at)} UTC; next run {_at(row.next_run_at) or 'none'}"
    )
    console.print_json(data=spec)
    _print_runs(found)


@reporting_errors
def pause(
    name: NameArgument, reason: ReasonOption = "", root: WorkspaceOption = Path(), as_json: JsonOption = False
) -> None:
    """Stop a campaign's firing and sending until it is resumed; nothing is lost.

    Example: carillon campaigns pause winback --reason "prices are wrong"
    """
    with opened(root) as (_, engine):
        row = control.pause(engine, name, now=system_clock(), reason=reason)
    _tell(row, "paused; planned messages wait", as_json)


@reporting_errors
def resume(name: NameArgument, root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Take a paused or cancelled campaign up again.

    Example: carillon campaigns resume winback
    """
    with opened(root) as (_, engine):
        row = control.resume(engine, name, now=system_clock())
    _tell(row, "active again", as_json)


@reporting_errors
def cancel(
    name: NameArgument, reason: ReasonOption = "", root: WorkspaceOption = Path(), as_json: JsonOption = False
) -> None:
    """End a campaign: what is planned is skipped (cancelled); what was sent stays sent.

    Example: carillon campaigns cancel winback --reason "wrong audience"
    """
    now = system_clock()
    with opened(root) as (_, engine):
        skipped = control.cancel(engine, name, now=now, reason=reason)
        with reading(engine) as connection:
            row = control.find_campaign(connection, name, now=now)
    _tell(row, f"cancelled; {skipped:,} planned message(s) skipped", as_json, skipped=skipped)


@reporting_errors
def list_runs(
    campaign: Annotated[str | None, typer.Argument(help="Only this campaign's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 50,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """List runs, the latest first.

    Example: carillon runs list winback
    """
    with opened(root) as (_, engine), reading(engine) as connection:
        found = control.list_runs(connection, campaign=campaign, limit=limit)
    if as_json:
        print_json([_run_json(run) for run in found])
    else:
        _print_runs(found)


@reporting_errors
def show_run(
    run: Annotated[str, typer.Argument(help="Its id, campaign@slot, or a campaign for its latest run.")],
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show what became of a run: everybody of the audience, accounted for.

    Example: carillon runs show winback --json
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        row = control.find_run(connection, run)
        figures = _figures(connection, row, workspace.settings.currency)
    if as_json:
        print_json(figures)
        return
    console.print(f"{row.name}: {row.state}" + (f" ({row.note})" if row.note else ""), markup=False, highlight=False)
    plain = {key: value for key, value in figures.items() if not isinstance(value, list) and key not in _HEAD}
    print_table("What became of it", {"": "left", "n": "right"}, [[key, _cell(value)] for key, value in plain.items()])
    steps = [[step["label"], *(step[key] for key in _STEP_COLUMNS)] for step in figures["steps"]]
    print_table("By step", {"step": "left", **dict.fromkeys(_STEP_COLUMNS, "right")}, steps)


_HEAD = ("run", "id", "campaign", "version", "scheduled_for", "fired_at", "finished_at", "state", "note")
_STEP_COLUMNS = ("audience", "sent", "failed", "held_out", "pending", "in_doubt", "opened", "clicked", "converted")


def _figures(connection: Connection, row: control.RunRow, currency: str) -> dict[str, Any]:
    whole = funnel(connection, run_id=row.id, currency=currency).to_json()
    steps = breakdown(connection, Dimension.STEP, run_id=row.id, currency=currency)
    return {**_run_json(row), **whole, "steps": [step.to_json() for step in steps]}


def _run_json(row: control.RunRow) -> dict[str, Any]:
    return {
        "run": row.name,
        "id": row.id,
        "campaign": row.campaign,
        "version": row.version,
        "scheduled_for": row.scheduled_for,
        "state": row.state,
        "fired_at": row.fired_at,
        "finished_at": row.finished_at,
        "people": row.people,
        "note": row.note,
    }


def _campaign_json(row: control.CampaignRow) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key != "id"}


def _print_runs(found: list[control.RunRow]) -> None:
    columns = {"id": "right", "run": "left", "version": "right", "state": "left", "people": "right", "note": "left"}
    cells = [[run.id, run.name, run.version, run.state, f"{run.people:,}", run.note] for run in found]
    print_table("Runs", columns, cells)


def _tell(row: control.CampaignRow, words: str, as_json: bool, **more: Any) -> None:
    if as_json:
        print_json({**_campaign_json(row), **more})
    else:
        console.print(f"{row.name}: {words}", markup=False, highlight=False)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count:,} {key}" for key, count in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _at(instant: Any) -> str:
    return f"{instant:%Y-%m-%d %H:%M}" if instant else ""
