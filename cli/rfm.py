"""The command about RFM: the table of groups as of a date, who has changed groups since one, and a fit anew."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.shared import (
    JsonOption,
    Subjects,
    WorkspaceOption,
    instant_asked,
    opened,
    print_json,
    print_notes,
    print_table,
    reporting_errors,
    say,
)
from kernel.clock import system_clock
from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments.cluster_answers import version
from segments.models import ModelKind
from segments.rfm_report import RfmReport, rfm_moves, rfm_report
from segments.scoring import refresh_profiles
from store.engine import reading


class View(StrEnum):
    """What to look at."""

    GROUPS = "groups"
    MOVES = "moves"
    FIT = "fit"


class Ties(StrEnum):
    """What to do with equals on a border."""

    STABLE = "stable"
    FIRST = "first"


class Scheme(StrEnum):
    """How values become scores."""

    QUINTILES = "quintiles"
    QUANTILES = "quantiles"
    THRESHOLDS = "thresholds"
    EQUAL_BEHAVIOUR = "equal_behaviour"
    THIRDS = "thirds"


class Rollup(StrEnum):
    """Whom children are scored with."""

    NONE = "none"
    PARENT = "parent"
    TOP = "top"


class Map(StrEnum):
    """How scores become groups."""

    GRID = "grid"
    ELEVEN = "eleven"
    SIX = "six"


SubjectOption = Annotated[Subjects, typer.Option(help="Whom to score.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command()(rfm)


@reporting_errors
def rfm(
    view: Annotated[View, typer.Argument(help="The table of groups, who moved, or a fit anew.")] = View.GROUPS,
    as_of: Annotated[str, typer.Option("--as-of", help="A date, read as its midnight in the workspace's zone.")] = "",
    since: Annotated[str, typer.Option("--since", help="For moves: from this date on.")] = "",
    subject: SubjectOption = Subjects.ACCOUNTS,
    scheme: Annotated[Scheme | None, typer.Option(help="Instead of carillon.yaml's scheme.")] = None,
    group_map: Annotated[Map | None, typer.Option("--map", help="Instead of carillon.yaml's map.")] = None,
    rollup: Annotated[Rollup | None, typer.Option(help="Instead of carillon.yaml's roll-up.")] = None,
    ties: Annotated[Ties | None, typer.Option(help="How equals are scored; default: carillon.yaml's.")] = None,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show the RFM groups as of a date, from what was known before it; who changed groups since one; or fit anew.

    The table is computed live and writes nothing. Moves are those the refreshes found: by own action, by time, by
    cut-offs that were fitted anew, or new among the buyers. `fit` fits the cut-offs to all buyers, now, keeps them as
    the version that stands, and scores everybody by them.

    Example: carillon rfm --as-of 2026-01-01 --subject accounts --json
    """
    given = {"--as-of": as_of, "--scheme": scheme, "--map": group_map, "--rollup": rollup, "--ties": ties}
    _refuse_what_is_not_read(view, {**given, "--since": since})
    if view is View.FIT:
        _fit(root, subject.one, as_json)
        return
    with opened(root) as (workspace, engine), reading(engine) as connection:
        if view is View.MOVES:
            if not since:
                raise ConfigError("carillon rfm moves needs --since, as --since 2026-01-01")
            start = instant_asked(since, workspace.settings.timezone, option="--since")
            moves = rfm_moves(connection, subject=subject.one, since=start)
            _print_moves(moves.as_json(), as_json)
            return
        at = instant_asked(as_of, workspace.settings.timezone)
        report = rfm_report(
            connection,
            workspace,
            subject=subject.one,
            as_of=at,
            ties=ties or "",
            scheme=scheme or "",
            map=group_map or "",
            rollup=rollup or "",
        )
    if as_json:
        print_json(report.as_json())
        return
    _print_groups(report)


def _refuse_what_is_not_read(view: View, given: dict[str, str | None]) -> None:
    """Refuse options that the view would silently leave aside."""
    read = {View.GROUPS: set(given) - {"--since"}, View.MOVES: {"--since"}, View.FIT: set()}[view]
    idle = [option for option, value in given.items() if value and option not in read]
    if not idle:
        return
    remedies = {
        View.GROUPS: "it is for `carillon rfm moves --since DATE`",
        View.MOVES: "moves are those the refreshes found, by carillon.yaml's settings; leave it out",
        View.FIT: "it fits now, by carillon.yaml's settings; leave it out, or edit `rfm` there",
    }
    asked = "carillon rfm" if view is View.GROUPS else f"carillon rfm {view}"
    raise ConfigError(f"`{asked}` does not read {', '.join(idle)}: {remedies[view]}")


def _fit(root: Path, subject: Subject, as_json: bool) -> None:
    """Fit the cut-offs to all buyers now, score everybody, and tell the version made."""
    kind = ModelKind.RFM
    with opened(root) as (workspace, engine):
        run = refresh_profiles(
            engine,
            workspace.settings,
            subject=subject,
            now=system_clock(),
            kinds=[kind],
            refit=[kind],
            root=workspace.root,
        )
    model = run.models[kind]
    data = {**version(model), "cutoffs": model.parameters.get("cutoffs"), "scored": run.scored, "written": run.written}
    if as_json:
        print_json(data)
        return
    words = f"{model.title}: {model.state}, fitted on {model.fitted_on:,} buyers, {run.written:,} profiles written"
    say(words)
    print_notes(run.warnings)


def _print_groups(report: RfmReport) -> None:
    unit = "days" if report.settings.recency == "days" else "own gaps"
    money = f"monetary ({report.currency})"
    columns = {"group": "left", "n": "right", f"recency ({unit})": "right", "frequency": "right", money: "right"}
    print_table(
        f"RFM of {report.subject}s as of {report.as_of:%Y-%m-%d %H:%M %Z}: {report.scored:,} have bought",
        columns,
        [_group_cells(word, row) for word, row in report.groups.items()],
    )
    print_notes(report.warnings)


def _group_cells(word: str, row: dict[str, float | int | None]) -> list[Any]:
    means = (row["recency_mean"], row["frequency_mean"], row["monetary_mean"])
    return [word, f"{row['n']:,}", *("–" if mean is None else f"{mean:,.3f}" for mean in means)]


def _print_moves(moves: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(moves)
        return
    columns = {"from": "left", "to": "left", "by": "left", "n": "right"}
    cells = [[one["previous"] or "–", one["group"] or "–", one["moved_by"], f"{one['n']:,}"] for one in moves["moves"]]
    total = sum(moves["by"].values())
    words = ", ".join(f"{n:,} by {by}" for by, n in moves["by"].items())
    title = f"Who entered the present group since {moves['since']:%Y-%m-%d}: {total:,} {moves['subject']}"
    print_table(title + (f" ({words})" if words else ""), columns, cells)
