"""Commands about who: segments listed, shown, previewed, refreshed, explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from cli import segment_sets
from cli.shared import (
    JsonOption,
    WorkspaceOption,
    console,
    errors,
    opened,
    print_json,
    print_notes,
    print_table,
    reporting_errors,
    say,
)
from kernel.clock import parse_as_of, system_clock
from segments import answers
from segments.definitions import chosen, load_segments, needed
from segments.explaining import NextChange
from segments.refresh import Refreshed
from segments.refresh import refresh as refresh_segments
from store.columns import reading_widely
from store.engine import reading

segments_app = typer.Typer(no_args_is_help=True, help="Who: named, saved questions about accounts or contacts.")

NameArgument = Annotated[str, typer.Argument(help="The segment: the name of its file without .yaml.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    segments_app.command("list")(list_)
    segments_app.command()(show)
    segments_app.command()(preview)
    segments_app.command()(refresh)
    segments_app.command()(explain)
    segment_sets.register(segments_app)
    app.add_typer(segments_app, name="segments")


@reporting_errors
def list_(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """List the segments with the size of their last snapshot.

    Example: carillon segments list --json
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        rows = answers.listed(connection, load_segments(workspace))
    if as_json:
        print_json([answers.as_json(row) for row in rows])
        return
    columns = {"segment": "left", "about": "left", "size": "right", "refreshed": "left", "description": "left"}
    cells: list[list[Any]] = []
    for row in rows:
        refreshed = f"{row.refreshed_at:%Y-%m-%d %H:%M} UTC" if row.refreshed_at else "never"
        cells.append([row.name, f"{row.subject}s", row.size, refreshed, row.description])
    print_table("Segments", columns, cells)


@reporting_errors
def show(name: NameArgument, root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Show the members of the last snapshot; of now, computed live, where the segment was never refreshed.

    Example: carillon segments show champions --json
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        definitions = load_segments(workspace)
        chosen(definitions, [name])
        shown = answers.show(connection, definitions, name, now=system_clock(), currency=workspace.settings.currency)
    if as_json:
        print_json(shown.as_json())
        return
    _print_members(shown)


@reporting_errors
def preview(
    name: NameArgument,
    as_of: Annotated[str, typer.Option("--as-of", help="A date, read as its midnight in the workspace's zone.")] = "",
    root: WorkspaceOption = Path(),
    sample: Annotated[int, typer.Option(min=1, help="How many members to show.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Compute a segment live, now or as of a date: its size and some members. Writes nothing.

    Scores and clusters are those of the last refresh, whatever the date.

    Example: carillon segments preview at-risk --sample 20
    """
    with opened(root) as (workspace, engine), reading_widely(engine) as connection:
        now = parse_as_of(as_of, workspace.settings.timezone) if as_of else system_clock()
        definitions = load_segments(workspace)
        chosen(definitions, [name])
        shown = answers.preview(
            connection, definitions, name, now=now, currency=workspace.settings.currency, sample=sample
        )
    if as_json:
        data = shown.as_json()
        data["sample"] = data.pop("members")
        print_json(data)
        return
    _print_members(shown)


@reporting_errors
def refresh(
    names: Annotated[list[str] | None, typer.Argument(help="Segments to refresh; none: all.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Ask everybody, not only whom facts or time touched.")] = False,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Bring segments up to date and save who entered and left; the scores they read come first.

    Example: carillon segments refresh champions at-risk
    """
    with opened(root) as (workspace, engine), Progress(console=errors, transient=True) as bar:
        task = bar.add_task("starting")

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)
            if not errors.is_terminal and done < total:
                errors.print(f"{done + 1}/{total} {what}", markup=False, highlight=False)

        done = refresh_segments(engine, workspace, names or None, now=system_clock(), progress=tell, full=full)
    if as_json:
        print_json([answers.as_json(one) for one in done])
        return
    columns = {"segment": "left", "about": "left"} | dict.fromkeys(("size", "joined", "left", "asked"), "right")
    print_table("Refreshed", columns, [_refreshed_cells(one) for one in done])


@reporting_errors
def explain(
    name: NameArgument,
    external_id: Annotated[str, typer.Argument(help="The account's or contact's own key in the source.")],
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say condition by condition why an account or contact is in a segment now, or is not.

    Example: carillon segments explain at-risk A-1042
    """
    now = system_clock()
    with opened(root) as (workspace, engine), reading(engine) as connection:
        definitions = load_segments(workspace)
        chosen(definitions, [name])
        asked = (connection, definitions, name, external_id)
        found = answers.explain(*asked, now=now, currency=workspace.settings.currency)
        change = answers.next_change(*asked, now=now, currency=workspace.settings.currency)
        notes = answers.currency_notes(connection, needed(definitions, name), currency=workspace.settings.currency)
    if as_json:
        rows = [answers.as_json(answer) for answer in found]
        by_time = {"at": change.at, "enters": change.enters, "exact": change.exact} if change.at else None
        print_json(
            {
                "name": name,
                "subject": external_id,
                "as_of": now,
                "member": found[0].holds,
                "next_change": by_time,
                "next_change_note": change.note or None,
                "conditions": rows,
                "notes": notes,
            }
        )
        return
    verdict = "is in" if found[0].holds else "is not in"
    say(f"{external_id} {verdict} {name}")
    for answer in found:
        sign = "✓" if answer.holds else "✗"
        values = answers.values_in_words(answer)
        whose = "" if answer.about == external_id else f"{answer.about}: "
        say(f"{'  ' * answer.depth}{sign} {whose}{answer.text}" + (f"    ← {values}" if values else ""))
    say(_change_in_words(change))
    print_notes(notes)


def _change_in_words(change: NextChange) -> str:
    if change.at is None:
        return change.note or "Without new facts, nothing changes by time alone."
    when = f"{change.at:%Y-%m-%d %H:%M} UTC"
    if not change.exact:
        return f"Without new facts, nothing changes before {when}."
    return f"Without new facts, it {'enters' if change.enters else 'leaves'} on {when}."


def _refreshed_cells(one: Refreshed) -> list[Any]:
    asked = "all" if one.asked is None else f"{one.asked:,}"
    return [one.name, f"{one.subject}s", f"{one.size:,}", f"{one.joined:,}", f"{one.left:,}", asked]


def _print_members(shown: answers.Shown) -> None:
    definition = shown.definition
    when = f"{shown.as_of:%Y-%m-%d %H:%M %Z}" + (", computed live" if shown.live else "")
    title = f"{definition.name}: {shown.size:,} {definition.subject}s as of {when}"
    console.print(title, markup=False, highlight=False)
    if definition.description:
        console.print(definition.description, markup=False, highlight=False)
    for external_id in shown.members:
        console.print(f"  {external_id}", markup=False, highlight=False)
    if len(shown.members) < shown.size:
        console.print(f"  … and {shown.size - len(shown.members):,} more", markup=False, highlight=False)
    print_notes(shown.notes)
