"""Commands about who: segments, and the RFM table."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from cli.shared import JsonOption, WorkspaceOption, console, errors, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from kernel.vocabulary import Subject
from segments import answers
from segments.definitions import chosen, load_segments
from segments.refresh import Refreshed
from segments.refresh import refresh as refresh_segments
from segments.rfm_report import parse_as_of, rfm_report
from store.engine import reading

segments_app = typer.Typer(no_args_is_help=True, help="Who: named, saved questions about accounts or contacts.")

NameArgument = Annotated[str, typer.Argument(help="The segment: the name of its file without .yaml.")]


class Subjects(StrEnum):
    """Whom to score, in the plural, as typed."""

    ACCOUNTS = "accounts"
    CONTACTS = "contacts"


class Ties(StrEnum):
    """What to do with equals on a border."""

    STABLE = "stable"
    FIRST = "first"


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    segments_app.command("list")(list_)
    segments_app.command()(show)
    segments_app.command()(preview)
    segments_app.command()(refresh)
    segments_app.command()(explain)
    app.add_typer(segments_app, name="segments")
    app.command()(rfm)


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
    root: WorkspaceOption = Path(),
    sample: Annotated[int, typer.Option(min=1, help="How many members to show.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Compute a segment live, now: its size and some members. Writes nothing.

    Example: carillon segments preview at-risk --sample 20
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        definitions = load_segments(workspace)
        chosen(definitions, [name])
        shown = answers.preview(
            connection, definitions, name, now=system_clock(), currency=workspace.settings.currency, sample=sample
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
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Compute segments anew and save their members; RFM scores first, where they are read.

    Example: carillon segments refresh champions at-risk
    """
    with opened(root) as (workspace, engine), Progress(console=errors, transient=True) as bar:
        task = bar.add_task("starting")

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)
            if not errors.is_terminal and done < total:
                errors.print(f"{done + 1}/{total} {what}", markup=False, highlight=False)

        done = refresh_segments(engine, workspace, names or None, now=system_clock(), progress=tell)
    if as_json:
        print_json([answers.as_json(one) for one in done])
        return
    columns = {"segment": "left", "about": "left", "size": "right", "joined": "right", "left": "right"}
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
        found = answers.explain(
            connection, definitions, name, external_id, now=now, currency=workspace.settings.currency
        )
    if as_json:
        rows = [answers.as_json(answer) for answer in found]
        print_json({"name": name, "subject": external_id, "as_of": now, "member": found[0].holds, "conditions": rows})
        return
    verdict = "is in" if found[0].holds else "is not in"
    console.print(f"{external_id} {verdict} {name}", markup=False, highlight=False)
    for answer in found:
        sign = "✓" if answer.holds else "✗"
        values = ", ".join(f"{key} = {value}" for key, value in answer.values.items())
        line = f"{'  ' * answer.depth}{sign} {answer.text}" + (f"    ← {values}" if values else "")
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@reporting_errors
def rfm(
    as_of: Annotated[str, typer.Option("--as-of", help="A date, read as its midnight in the workspace's zone.")] = "",
    subject: Annotated[Subjects, typer.Option(help="Whom to score.")] = Subjects.ACCOUNTS,
    ties: Annotated[Ties | None, typer.Option(help="How equals are scored; default: carillon.yaml's.")] = None,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show the ten RFM groups as of a date, from what was known before it. Computes live, writes nothing.

    Example: carillon rfm --as-of 2026-01-01 --subject accounts --json
    """
    who = Subject.ACCOUNT if subject is Subjects.ACCOUNTS else Subject.CONTACT
    with opened(root) as (workspace, engine), reading(engine) as connection:
        at = parse_as_of(as_of, workspace.settings.timezone) if as_of else system_clock()
        report = rfm_report(connection, workspace, subject=who, as_of=at, ties=ties or "")
    if as_json:
        print_json(report.as_json())
        return
    money = f"monetary ({report.currency})"
    columns = {"group": "left", "n": "right", "recency (days)": "right", "frequency": "right", money: "right"}
    print_table(
        f"RFM of {subject} as of {at:%Y-%m-%d %H:%M %Z}: {report.scored:,} have bought",
        columns,
        [_group_cells(word, row) for word, row in report.groups.items()],
    )
    _print_notes(report.warnings)


def _group_cells(word: str, row: dict[str, float | int | None]) -> list[Any]:
    means = (row["recency_mean"], row["frequency_mean"], row["monetary_mean"])
    return [word, f"{row['n']:,}", *("–" if mean is None else f"{mean:,.3f}" for mean in means)]


def _refreshed_cells(one: Refreshed) -> list[Any]:
    return [one.name, f"{one.subject}s", f"{one.size:,}", f"{one.joined:,}", f"{one.left:,}"]


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
    _print_notes(shown.notes)


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        errors.print(f"note: {note}", style="yellow", markup=False, highlight=False)
