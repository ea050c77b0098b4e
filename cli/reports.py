"""Commands about what came of it: report, funnel, attribute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.shared import JsonOption, WorkspaceOption, console, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from kernel.errors import ConfigError
from reports.attribution import attribute as credit
from reports.content import campaign_named, gather
from reports.figures import figures
from reports.funnel import Dimension, breakdown
from reports.funnel import funnel as funnel_of
from reports.outputs import write_report
from reports.rendering import text_page
from reports.words import all_money, count, reason_in_words
from store.engine import reading
from store.schema import installation

Campaign = Annotated[str, typer.Argument(help="The campaign's name, which is its file's name without .yaml.")]
LabelOption = Annotated[str, typer.Option("--label", help='Shown on top and in the subject, as "simulated".')]


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command("report")(report)
    app.command("funnel")(funnel)
    app.command("attribute")(attribute)


@reporting_errors
def report(
    campaign: Campaign,
    to: Annotated[list[str] | None, typer.Option("--to", help="Mail it to this address; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write it to FILE.eml or FILE.html instead.")] = None,
    label: LabelOption = "",
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Tell what came of a campaign: print its report, write it to a file, or mail it.

    Conversions are brought up to date first.

    Example: carillon report winback --to boss@acme.example
    """
    now = system_clock()
    with opened(root) as (workspace, engine):
        credit(engine, now=now)
        if to:
            from workers.reporting import send_report

            with reading(engine) as connection:
                campaign_named(connection, campaign)
            send_report(workspace, engine, campaign, to, now, label=label)
            console.print(f"The report on {campaign} went to {', '.join(to)}.", markup=False, highlight=False)
            return
        with reading(engine) as connection:
            found = gather(connection, workspace, campaign, now=now, label=label)
            name = installation(connection)
        if out is not None:
            write_report(found, workspace, out, installation=name)
            console.print(f"The report on {campaign} is in {out}.", markup=False, highlight=False)
        elif as_json:
            print_json(found.to_json())
        else:
            console.print(text_page(found), markup=False, highlight=False, soft_wrap=True)


@reporting_errors
def funnel(
    campaign: Annotated[str | None, typer.Argument(help="The campaign's name; or name a run with --run.")] = None,
    run: Annotated[int | None, typer.Option("--run", help="Count this run only.")] = None,
    by: Annotated[Dimension, typer.Option("--by", help="What to break the figures down by.")] = Dimension.STEP,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Count a campaign or a run from the audience to the money, whole and broken down.

    Example: carillon funnel winback --by segment
    """
    if campaign is None and run is None:
        raise typer.BadParameter("name a campaign, or a run with --run")
    with opened(root) as (workspace, engine):
        credit(engine, now=system_clock())
        currency = workspace.settings.currency
        with reading(engine) as connection:
            campaign_id = campaign_named(connection, campaign).id if campaign is not None else None
            totals = funnel_of(connection, campaign_id=campaign_id, run_id=run, currency=currency)
            slices = breakdown(connection, by, campaign_id=campaign_id, run_id=run, currency=currency)
    if run is not None and not slices and not totals.audience:
        raise ConfigError(f"there is no run {run}" + (f" of {campaign}" if campaign else "") + " with an audience")
    if as_json:
        print_json(
            {"campaign": campaign, "run": run, **totals.to_json(), f"{by}s": [part.to_json() for part in slices]}
        )
        return
    title = " ".join(part for part in (campaign, f"run {run}" if run is not None else None) if part)
    rows = [list(line) for line in figures(totals, currency)]
    rows += [[f"  skipped: {reason_in_words(reason)}", count(number)] for reason, number in totals.skipped.items()]
    print_table(title, {"figure": "left", "value": "right"}, rows)
    columns = dict.fromkeys(("sent", "opened", "clicked", "converted", "revenue"), "right")
    print_table(
        f"By {by}",
        {str(by): "left", **columns},
        [
            [
                part.label,
                *(count(getattr(part.funnel, name)) for name in list(columns)[:-1]),
                all_money(dict(part.funnel.revenue), currency),
            ]
            for part in slices
        ],
    )
    if not totals.balanced:
        raise ConfigError("the books do not balance: the audience is not the sum of its parts")


@reporting_errors
def attribute(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Credit orders, opportunity stages and events to the last touch before them; safe to repeat.

    The scheduler has it done all the time; by hand it is of use after an import.

    Example: carillon attribute
    """
    with opened(root) as (_workspace, engine):
        changed = credit(engine, now=system_clock())
    if as_json:
        print_json({"changed": changed})
    else:
        console.print(f"{changed:,} conversion(s) written or removed.", markup=False, highlight=False)
