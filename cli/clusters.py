"""Commands about clusters: fit, show, approve, import, explain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.rfm import SubjectOption
from cli.shared import (
    JsonOption,
    Subjects,
    WorkspaceOption,
    console,
    opened,
    print_json,
    print_notes,
    print_table,
    reporting_errors,
    say,
)
from kernel.clock import system_clock
from segments import cluster_answers, models
from segments.cluster_labels import import_labels
from segments.models import ModelKind
from segments.scoring import refresh_profiles
from store.engine import reading, writing

clusters_app = typer.Typer(no_args_is_help=True, help="Groups of like buyers, found by k-means or brought along.")


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    clusters_app.command()(fit)
    clusters_app.command()(show)
    clusters_app.command()(approve)
    clusters_app.command("import")(import_)
    clusters_app.command()(explain)
    app.add_typer(clusters_app, name="clusters")


@reporting_errors
def fit(
    subject: SubjectOption = Subjects.ACCOUNTS, root: WorkspaceOption = Path(), as_json: JsonOption = False
) -> None:
    """Fit the clusters anew to all buyers, now, and assign everybody.

    A fit that changes the picture too much is held: labels go on as they were until `carillon clusters approve`.

    Example: carillon clusters fit --subject accounts
    """
    kind = ModelKind.CLUSTERS
    with opened(root) as (workspace, engine):
        run = refresh_profiles(
            engine,
            workspace.settings,
            subject=subject.one,
            now=system_clock(),
            kinds=[kind],
            refit=[kind],
            root=workspace.root,
        )
    model = run.held.get(kind) or run.models[kind]
    data = {**cluster_answers.version(model), "scored": run.scored, "written": run.written}
    if as_json:
        print_json(data)
        return
    found = model.report.get("fit", {}).get("sizes", {})
    say(f"{model.title}: {model.state}")
    if model.note:
        say(model.note)
    if found:
        print_table("Sizes", {"cluster": "left", "n": "right"}, [[key, f"{n:,}"] for key, n in found.items()])
    print_notes(data["warnings"])


@reporting_errors
def show(
    subject: SubjectOption = Subjects.ACCOUNTS, root: WorkspaceOption = Path(), as_json: JsonOption = False
) -> None:
    """Show the clusters that stand, how large they are now, and whether a new fit waits for approval.

    Example: carillon clusters show --json
    """
    with opened(root) as (_, engine), reading(engine) as connection:
        data = cluster_answers.shown(connection, subject.one)
    if as_json:
        print_json(data)
        return
    columns = {"cluster": "left", "name": "left", "n": "right", "share": "right", "at the fit": "right"}
    cells = [
        [one["key"], one["name"], f"{one['size']:,}", f"{one['share']:.1%}", f"{one['size_at_fit']:,}"]
        for one in data["clusters"]
    ]
    print_table(_title(data), columns, cells)
    if data["note"]:
        say(data["note"])
    if data["held"]:
        note = f"version {data['held']['version']} waits for approval: {data['held']['note']}"
        console.print(
            f"{note}; `carillon clusters approve` takes it over", markup=False, highlight=False, soft_wrap=True
        )
    print_notes(data["warnings"])


@reporting_errors
def approve(
    subject: SubjectOption = Subjects.ACCOUNTS, root: WorkspaceOption = Path(), as_json: JsonOption = False
) -> None:
    """Take over the held fit: from now on its clusters are the ones campaigns see.

    Example: carillon clusters approve
    """
    now = system_clock()
    kind = ModelKind.CLUSTERS
    with opened(root) as (workspace, engine):
        with writing(engine) as connection:
            models.approve(connection, kind, subject.one, now=now)
        run = refresh_profiles(
            engine, workspace.settings, subject=subject.one, now=now, kinds=[kind], frozen=True, root=workspace.root
        )
    data = {**cluster_answers.version(run.models[kind]), "scored": run.scored, "written": run.written}
    if as_json:
        print_json(data)
        return
    say(f"{run.models[kind].title}: active, {run.written:,} profiles written")


@reporting_errors
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with the columns external_id and cluster.")],
    model: Annotated[str, typer.Option("--model", help="Where the labels come from: NAME/VERSION.")],
    subject: SubjectOption = Subjects.ACCOUNTS,
    approved: Annotated[
        bool, typer.Option("--approve", help="Take them over even where they move very many buyers.")
    ] = False,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take over clusters computed elsewhere; they stand until others are imported or `carillon clusters fit` is run.

    Example: carillon clusters import labels.csv --model churn/7
    """
    with opened(root) as (workspace, engine):
        done = import_labels(
            engine,
            workspace.settings,
            file,
            named=model,
            subject=subject.one,
            now=system_clock(),
            approved=approved,
            root=workspace.root,
        )
    stands = done.run.models[ModelKind.CLUSTERS]
    counts = {"rows": done.rows, "unknown": done.unknown, "without_orders": done.without_orders}
    data = {**cluster_answers.version(stands), **counts, "written": done.run.written}
    if as_json:
        print_json(data)
        return
    console.print(
        f"{stands.title}, from {model}: {done.rows:,} labels, {done.unknown:,} of unknown {subject}, "
        f"{done.without_orders:,} of {subject} that never bought",
        markup=False,
        highlight=False,
    )
    print_notes(data["warnings"])


@reporting_errors
def explain(
    number: Annotated[int | None, typer.Option("--version", help="Another version than the one that stands.")] = None,
    subject: SubjectOption = Subjects.ACCOUNTS,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Say what the clusters are: facts and names, plain rules and how far they reach, and who has moved since the fit.

    Example: carillon clusters explain
    """
    with opened(root) as (_, engine), reading(engine) as connection:
        data = cluster_answers.explained(connection, subject.one, number)
    if as_json:
        print_json(data)
        return
    _print_profiles(data)
    tree = data["tree"]
    console.print(
        f"\nRules that put {tree['fidelity']:.0%} of the buyers where they are:", markup=False, highlight=False
    )
    for rule in tree["rules"]:
        conditions = " and ".join(rule["conditions"]) or "everybody"
        told = f"{conditions}: {rule['key']} ({rule['size']:,} buyers, {rule['right']:.0%} right)"
        say(f"  {told}")
    if tree["unreached"]:
        say(f"  no rule leads to {', '.join(tree['unreached'])}")
    for one in data["moved_since"]:
        line = f"  since the fit {one['n']:,} moved from {one['previous']} to {one['cluster'] or 'none'}"
        say(line)
    print_notes(data["warnings"])


def _print_profiles(data: dict[str, Any]) -> None:
    """Print a block for each cluster, narrow enough for a terminal of 80 columns whatever the number of features."""
    _wrapped(_title(data))
    who = data["subject"]
    for one in data["profiles"]:
        say("")
        console.print(f"{one['key']}: {one['name']}", style="bold", markup=False, highlight=False)
        earned = "" if one["revenue_share"] is None else f", {one['revenue_share']:.1%} of the revenue"
        whose = who.removesuffix("s") if one["size"] == 1 else who
        _wrapped(f"  {one['size']:,} {whose}, {one['share']:.1%} of all{earned}")
        if one["examples"]:
            _wrapped(f"  such as {', '.join(one['examples'])}")
        say(f"  {'':<16}{'median':>12}  gap from all, in standard deviations")
        for name in data["fit"]["features"]:
            median = one["medians"][name]
            said = "–" if median is None else f"{median:,.4g}"
            say(f"  {name:<16}{said:>12}  {_gap(one['gaps'][name])}")


def _gap(gap: float | None) -> str:
    return "–" if gap is None or math.isnan(gap) else f"{gap:+.1f}"


def _wrapped(line: str) -> None:
    console.print(line, markup=False, highlight=False)


def _title(data: dict[str, Any]) -> str:
    origin = f" from {data['imported']}" if data["imported"] else ""
    when = f"{data['as_of']:%Y-%m-%d}"
    return f"Clusters of {data['subject']}{origin}, version {data['version']} ({data['state']}), fitted {when}"
