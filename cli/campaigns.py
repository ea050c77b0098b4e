"""Commands about campaign files: validate, plan, apply, schema, preview, test-send."""

from __future__ import annotations

import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from campaigns.applying import apply as apply_campaigns
from campaigns.checks import warnings
from campaigns.loading import campaign_files, load_campaigns
from campaigns.planning import Plan
from campaigns.planning import plan as plan_campaigns
from campaigns.previewing import preview as preview_message
from campaigns.schema import json_schema
from campaigns.sms_forecast import TextForecast
from cli import campaign_words, runs
from cli.shared import JsonOption, WorkspaceOption, console, errors, opened, print_json, reporting_errors
from kernel.clock import system_clock
from kernel.errors import ConfigError, InputError, Problem
from kernel.settings import load_workspace
from segments.definitions import SegmentFile

NamesArgument = Annotated[list[str] | None, typer.Argument(help="Campaigns by name; none means all.")]
NameArgument = Annotated[str, typer.Argument(help="The campaign: the name of its file without .yaml.")]
StepOption = Annotated[int, typer.Option("--step", min=1, help="Which step, from 1.")]
ContactOption = Annotated[str | None, typer.Option("--contact", help="For whom: the contact's id in your source.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    app.command()(validate)
    app.command()(plan)
    app.command()(apply)
    app.command()(schema)
    app.command()(preview)
    app.command("test-send")(send_test)
    runs.register(app)


@reporting_errors
def validate(names: NamesArgument = None, root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Check campaign and segment files and their templates; print every problem with line and column.

    Example: carillon validate winback
    """
    workspace = load_workspace(root)
    noticed: list[Problem] = []
    problems: tuple[Problem, ...] = ()
    try:
        now = system_clock()
        for campaign in load_campaigns(workspace, names).values():
            noticed += warnings(campaign.document, campaign.spec, workspace, now=now)
    except InputError as error:
        problems = error.problems
        if not as_json:
            raise
    count = len(names) if names else len(campaign_files(workspace))
    if as_json:
        print_json(
            {
                "valid": not problems,
                "campaigns": count,
                "problems": [asdict(problem) for problem in problems],
                "warnings": [asdict(problem) for problem in noticed],
            }
        )
        raise typer.Exit(1 if problems else 0)
    _warn(noticed)
    console.print(f"{count} campaign(s) are in order." if count else "There are no campaign files yet.")


@reporting_errors
def plan(names: NamesArgument = None, root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Say in people what applying the files would do; writes nothing.

    Example: carillon plan winback --json
    """
    with opened(root) as (workspace, engine):
        plans = plan_campaigns(engine, workspace, names, now=system_clock())
    if as_json:
        print_json([_plan_json(one) for one in plans])
        return
    for one in plans:
        campaign_words.print_plan(one)
    if not plans:
        console.print("There are no campaign files yet; `carillon init` makes a workspace with one.")


def _plan_json(one: Plan) -> dict[str, Any]:
    sample = one.sample
    return {
        "name": one.name,
        "state": one.state,
        "changes": one.changes,
        "run_at": one.run_at,
        "audience": one.audience,
        "people": one.people,
        "messages": one.messages,
        "skipped": one.skipped,
        "held_out": one.held_out,
        "per_day": one.per_day,
        "first_send_at": one.first_send_at,
        "last_send_at": one.last_send_at,
        "cost_estimate": one.estimate.cost,
        "sms_parts": one.estimate.sms_parts,
        "texts": [_texts_json(text) for text in one.texts],
        "pace": [asdict(pace) for pace in one.pace],
        "budgets": [{**asdict(budget), "left": f"{budget.left:.6f}"} for budget in one.budgets],
        "segments": one.segments,
        "warnings": one.warnings,
        "preflight": [asdict(finding) for finding in one.preflight],
        "sample": None
        if sample is None
        else {"contact": sample.contact, "subject": sample.subject, "text": sample.text},
    }


def _texts_json(text: TextForecast) -> dict[str, Any]:
    whole = asdict(text)
    whole["countries"] = {
        country: {
            "messages": bill.messages,
            "parts": bill.parts,
            "cost": None if bill.cost is None else f"{bill.cost:.6f}",
        }
        for country, bill in text.countries.items()
    }
    return whole


@reporting_errors
def apply(names: NamesArgument = None, root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Make the files count: from now on the scheduler fires them. A file edited later changes nothing until applied.

    Example: carillon apply winback
    """
    now = system_clock()
    with opened(root) as (workspace, engine):
        applied = apply_campaigns(engine, workspace, names, now=now)
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "state": one.change,
                    "version": one.version,
                    "changes": one.changes,
                    "campaign_state": one.state,
                    "next_run_at": one.next_run_at,
                    "warnings": [str(problem) for problem in one.warnings],
                }
                for one in applied
            ]
        )
        return
    for one in applied:
        campaign_words.print_applied(one, now)
        _warn(one.warnings)


@reporting_errors
def schema(
    kind: Annotated[str, typer.Argument(help="campaign or segment.")] = "campaign",
    root: WorkspaceOption = Path(),
) -> None:
    """Print the JSON Schema of campaign (or segment) files, so that editors complete and check them.

    Example: carillon schema > .carillon/campaign.schema.json
    and in the first line of a campaign: # yaml-language-server: $schema=../.carillon/campaign.schema.json
    """
    del root  # The schema is the same everywhere; scripts may pass the option to every command.
    if kind == "campaign":
        print_json(json_schema())
    elif kind == "segment":
        print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **SegmentFile.model_json_schema()})
    else:
        raise typer.BadParameter(f"{kind!r} is neither campaign nor segment")


@reporting_errors
def preview(
    name: NameArgument,
    contact: ContactOption = None,
    step: StepOption = 1,
    out: Annotated[Path | None, typer.Option("--out", help="Write the HTML (or the SMS's text) to this file.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Render one message of a campaign file for a real contact; sends nothing.

    Example: carillon preview winback --contact C-1001 --step 2 --out winback.html
    """
    with opened(root) as (workspace, engine):
        made = preview_message(engine, workspace, name, step=step, contact=contact, now=system_clock())
        if show and out is None:
            out = workspace.data_dir / "preview.html"
    if as_json:
        print_json(asdict(made))
    elif out is None:
        campaign_words.print_rendered(made)
    if out is not None:
        try:
            out.write_text(made.html or made.text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {out}: {error.strerror}") from error
        errors.print(f"written to {out}", markup=False, highlight=False)
        if show:
            webbrowser.open(out.resolve().as_uri())


@reporting_errors
def send_test(
    name: NameArgument,
    to: Annotated[str, typer.Argument(help="Where to: an e-mail address, or a number like +447700900123.")],
    contact: ContactOption = None,
    step: StepOption = 1,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Send one message of a campaign file to yourself, rendered for a contact; outside the ledger.

    Example: carillon test-send winback me@acme.example --contact C-1001
    """
    from workers import testing

    with opened(root) as (workspace, engine):
        campaign = load_campaigns(workspace, [name])[name]
        receipt = testing.send_test(workspace, engine, campaign, step, to, contact, now=system_clock())
    if as_json:
        print_json({"to": to, "step": step, **receipt._asdict()})
        return
    console.print(f"sent to {to}: {receipt.reply or 'accepted'}", markup=False, highlight=False)


def _warn(problems: Any) -> None:
    for problem in problems:
        errors.print(f"warning: {problem}", style="yellow", markup=False, highlight=False)
