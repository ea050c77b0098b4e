"""Commands about segments as sets: who entered and left, how they overlap, and lists for advertising platforms."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.shared import (
    JsonOption,
    Subjects,
    WorkspaceOption,
    opened,
    print_json,
    print_notes,
    print_table,
    reporting_errors,
    say,
)
from kernel.clock import parse_as_of, system_clock
from kernel.errors import ConfigError
from segments.comparing import Moves, Overlap, Pair, diff_in_time, diff_of_two, overlap
from segments.definitions import chosen, load_segments
from segments.exporting import LAYOUTS, ConsentPolicy, Export, export_segment
from store.engine import reading

NameArgument = Annotated[str, typer.Argument(help="The segment: the name of its file without .yaml.")]
SampleOption = Annotated[int, typer.Option(min=1, help="How many external ids to print of each list.")]


class Reasons(StrEnum):
    """What `diff --by` counts."""

    REASON = "reason"


class Measures(StrEnum):
    """What the cells of a printed overlap say."""

    COUNT = "count"
    SHARE = "share"
    JACCARD = "jaccard"


def register(app: typer.Typer) -> None:
    """Add these commands to the group `segments`."""
    app.command("diff")(diff)
    app.command("overlap")(overlap_)
    app.command("export")(export)


@reporting_errors
def diff(
    name: NameArgument,
    other: Annotated[str | None, typer.Argument(help="A second segment, to compare with as both are now.")] = None,
    since: Annotated[str, typer.Option("--from", help="A date or time, in the workspace's zone.")] = "",
    until: Annotated[str, typer.Option("--to", help="A date or time, likewise; default: now.")] = "",
    by: Annotated[Reasons | None, typer.Option(help="reason: also count why, where the RFM group tells.")] = None,
    sample: SampleOption = 10,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say who entered and left a segment between two instants; or who is in only one of two segments now.

    Example: carillon segments diff at-risk --from 2026-10-01 --to 2026-11-01 --by reason
    """
    if other and (since or until or by):
        raise ConfigError("two segments are compared as they are now: leave --from, --to and --by out, or one segment")
    if not other and not since:
        raise ConfigError("say since when, as --from 2026-10-01, or name a second segment to compare with")
    now = system_clock()
    with opened(root) as (workspace, engine), reading(engine) as connection:
        definitions = load_segments(workspace)
        chosen(definitions, [name, *([other] if other else [])])
        zone = workspace.settings.timezone
        found: Moves | Pair
        if other:
            found = diff_of_two(connection, definitions, name, other, now=now, currency=workspace.settings.currency)
        else:
            found = diff_in_time(
                connection,
                definitions,
                name,
                since=parse_as_of(since, zone),
                until=parse_as_of(until, zone) if until else now,
                by_reason=by is not None,
            )
    if as_json:
        print_json(found.as_json())
    elif isinstance(found, Moves):
        _print_moves(found, sample)
    else:
        _print_pair(found, sample)


@reporting_errors
def overlap_(
    names: Annotated[list[str] | None, typer.Argument(help="Segments to compare; none: all of the subject.")] = None,
    subject: Annotated[Subjects, typer.Option(help="Without names: segments about whom.")] = Subjects.ACCOUNTS,
    show: Annotated[Measures, typer.Option(help="What to print; --json has all three.")] = Measures.COUNT,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show how segments overlap now: how many are in both, as a number, a share or the Jaccard index.

    Example: carillon segments overlap champions at-risk newsletter --show share
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        definitions = load_segments(workspace)
        who = subject.one
        mine = names or [name for name in sorted(definitions) if definitions[name].subject is who]
        chosen(definitions, mine)
        found = overlap(connection, definitions, mine, now=system_clock(), currency=workspace.settings.currency)
    if as_json:
        print_json(found.as_json())
        return
    _print_overlap(found, show)


@reporting_errors
def export(
    name: NameArgument,
    out: Annotated[
        Path,
        typer.Option("--out", help="The file, new or an earlier export; removals go to FILE.removals.csv beside it."),
    ],
    layout: Annotated[str, typer.Option(help=f"For whom: {', '.join(LAYOUTS)}.")] = "generic",
    consent: Annotated[
        ConsentPolicy,
        typer.Option(help="each: every address by its own channel's consent; strict: no withdrawal on any channel."),
    ] = ConsentPolicy.EACH,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; write nothing.")] = False,
    removals_done: Annotated[
        bool, typer.Option("--removals-done", help="The platform has taken FILE.removals.csv: forget these addresses.")
    ] = False,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a segment's contacts for an advertising platform: normalised, hashed, only with consent.

    Example: carillon segments export champions --layout google_customer_match --out champions.csv
    """
    with opened(root) as (workspace, engine):
        definitions = load_segments(workspace)
        chosen(definitions, [name])
        done = export_segment(
            engine,
            definitions,
            name,
            layout=layout,
            out=out,
            now=system_clock(),
            currency=workspace.settings.currency,
            consent=consent,
            dry_run=dry_run,
            removals_done=removals_done,
            root=workspace.root,
        )
    if as_json:
        print_json(done.as_json())
        return
    _print_export(done)


def _print_ids(title: str, ids: list[str], sample: int) -> None:
    say(f"{title}: {len(ids):,}")
    for external_id in ids[:sample]:
        say(f"  {external_id}")
    if len(ids) > sample:
        say(f"  … and {len(ids) - sample:,} more")


def _print_moves(moves: Moves, sample: int) -> None:
    when = f"{moves.since:%Y-%m-%d %H:%M %Z} to {moves.until:%Y-%m-%d %H:%M %Z}"
    say(f"{moves.name}, {when}: from {moves.size_before:,} to {moves.size_after:,} {moves.subject}s")
    _print_ids("entered", moves.entered, sample)
    _print_ids("left", moves.left, sample)
    if moves.passed_through:
        say(f"entered and left in between: {moves.passed_through:,}")
    for direction, numbers in (moves.reasons or {}).items():
        for reason, number in numbers.items():
            say(f"{direction} by {reason.replace('_', ' ')}: {number:,}")
    print_notes(moves.notes)


def _print_pair(pair: Pair, sample: int) -> None:
    said = pair.as_json()
    say(f"{pair.first}: {said['size_first']:,} {pair.subject}s; {pair.second}: {said['size_second']:,}")
    say(f"in both: {pair.both:,}")
    _print_ids(f"only in {pair.first}", pair.only_first, sample)
    _print_ids(f"only in {pair.second}", pair.only_second, sample)


def _print_overlap(found: Overlap, show: Measures) -> None:
    places = range(len(found.names))
    titles = {
        Measures.COUNT: "In both",
        Measures.SHARE: "Share of the row's segment that is in the column's too",
        Measures.JACCARD: "In both, of those in either (Jaccard)",
    }

    def cell(row: int, column: int) -> str:
        if show is Measures.COUNT:
            return f"{found.counts[row][column]:,}"
        value = found.share(row, column) if show is Measures.SHARE else found.jaccard(row, column)
        return "–" if value is None else f"{value:.1%}" if show is Measures.SHARE else f"{value:.3f}"

    numbers = {str(number): "right" for number in range(1, len(found.names) + 1)}
    rows: list[list[Any]] = [
        [row + 1, name, f"{found.counts[row][row]:,}", *(cell(row, column) for column in places)]
        for row, name in enumerate(found.names)
    ]
    # Columns bear numbers: names of forty segments side by side fit no screen.
    print_table(f"{titles[show]}: {found.subject}s", {"#": "right", "segment": "left", "size": "right"} | numbers, rows)
    say(f"in any of them: {found.in_any:,} {found.subject}s")


def _print_export(done: Export) -> None:
    tally = done.tally
    verb = "written to" if done.written else "would be written to"
    say(f"{tally.exported:,} of {tally.contacts:,} contacts {verb} {done.file} ({done.layout})")
    for kind, numbers in tally.addresses.items():
        told = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in numbers.items())
        say(f"  {kind}: {told or 'none'}")
    for reason, number in tally.left_out.items():
        say(f"  left out, {reason.replace('_', ' ')}: {number:,}")
    if tally.childless:
        say(f"  accounts without a contact: {tally.childless:,}")
    if tally.unreachable:
        say(f"  accounts of whom nobody is in the file: {tally.unreachable:,}")
    say(f"{done.added:,} new addresses; {done.removals:,} to remove, {verb} {done.removals_file}")
