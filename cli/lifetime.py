"""Commands about customer lifetime value: fit, show, formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.rfm import SubjectOption
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
from kernel.quantities import minor_exponent, to_minor
from segments import lifetime_answers
from segments.models import ModelKind
from segments.scoring import refresh_profiles
from store.engine import reading

lifetime_app = typer.Typer(no_args_is_help=True, help="Customer lifetime value: by model, and by the textbook.")


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    lifetime_app.command()(fit)
    lifetime_app.command()(show)
    lifetime_app.command()(formulas)
    app.add_typer(lifetime_app, name="lifetime")


@reporting_errors
def fit(
    subject: SubjectOption = Subjects.ACCOUNTS, root: WorkspaceOption = Path(), as_json: JsonOption = False
) -> None:
    """Fit the lifetime models anew to all buyers, now, and predict for everybody.

    Example: carillon lifetime fit --subject accounts
    """
    kind = ModelKind.LIFETIME
    with opened(root) as (workspace, engine):
        refresh_profiles(
            engine,
            workspace.settings,
            subject=subject.one,
            now=system_clock(),
            kinds=[kind],
            refit=[kind],
            root=workspace.root,
        )
        with reading(engine) as connection:
            data = lifetime_answers.shown(connection, subject.one)
        currency = workspace.settings.currency
    if as_json:
        print_json(data)
        return
    _print_model(data, currency)


@reporting_errors
def show(
    external_ids: Annotated[
        list[str] | None, typer.Argument(metavar="SUBJECTS", help="External ids; none: the model itself.")
    ] = None,
    subject: SubjectOption = Subjects.ACCOUNTS,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.9,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show the lifetime model, how it would have done in the past, and its warnings; or what it says of some subjects.

    Example: carillon lifetime show A-1042 A-1043 --level 0.8
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        settings = workspace.settings
        if external_ids:
            rows = lifetime_answers.of_subjects(
                connection, settings, workspace.root, external_ids, subject=subject.one, now=system_clock(), level=level
            )
        else:
            data = lifetime_answers.shown(connection, subject.one)
    if as_json:
        print_json(rows if external_ids else data)
        return
    if not external_ids:
        _print_model(data, settings.currency)
        return
    for row in rows:
        _print_subject(row, settings.currency)


@reporting_errors
def formulas(
    as_of: Annotated[str, typer.Option("--as-of", help="A date, read as its midnight in the workspace's zone.")] = "",
    subject: SubjectOption = Subjects.ACCOUNTS,
    years: Annotated[float | None, typer.Option(help="The lifetime; default: 1 / (1 - retention).")] = None,
    retention: Annotated[float | None, typer.Option(help="Per year; default: as measured.")] = None,
    acquisition_cost: Annotated[
        float, typer.Option("--acquisition-cost", help="What a new customer costs, in major units.")
    ] = 0.0,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Compute the lifetime value of the average active buyer by the two textbook formulas, beside that of the model.

    Example: carillon lifetime formulas --retention 0.8 --acquisition-cost 120
    """
    with opened(root) as (workspace, engine), reading(engine) as connection:
        settings = workspace.settings
        data = lifetime_answers.textbook(
            connection,
            settings,
            workspace.root,
            subject=subject.one,
            as_of=instant_asked(as_of, settings.timezone),
            years=years,
            retention=retention,
            acquisition_cost_minor=to_minor(acquisition_cost, settings.currency),
        )
    if as_json:
        print_json(data)
        return
    money = _money(settings.currency)
    lines = [
        ("active buyers within 365 days", f"{data['active']:,}"),
        ("average order", money(data["order_value_minor"])),
        ("orders a year", f"{data['orders_per_year']:.2f}"),
        ("retention a year", f"{data['retention']:.1%}{'' if retention is None else ' (given)'}"),
        ("lifetime in years", f"{data['years']:.2f}"),
        ("margin", f"{data['margin']:.0%}"),
        ("order × orders × years × margin − cost", money(data["simple_minor"])),
        ("discounted, margin at the end of a year", money(data["discounted_minor"]["end_of_period"])),
        ("discounted, first margin now", money(data["discounted_minor"]["now"])),
        ("value to cost", "–" if data["value_to_cost"] is None else f"{data['value_to_cost']:.2f}"),
        ("historic, net, mean of all buyers", money(data["historic_minor"])),
        ("by the model, mean of all buyers", money(data["predicted_minor"])),
    ]
    title = f"Lifetime value of {data['subject']} as of {data['as_of']:%Y-%m-%d}, by the textbook"
    print_table(title, {"figure": "left", "value": "right"}, [list(line) for line in lines])


def _print_model(data: dict[str, Any], currency: str) -> None:
    report, money = data["report"], _money(currency)
    head = f"Lifetime value of {data['subject']}, version {data['version']} ({data['state']})"
    say(f"{head}, as of {data['as_of']:%Y-%m-%d}")
    if data["state"] == "refused":
        for reason in report["reasons"]:
            say(f"refused: {reason}")
        return
    for name, title in (("bg", "orders"), ("gg", "values")):
        found = report[name]
        errors_of = found["standard_errors"] or {}
        words = ", ".join(
            f"{key} {value:.4g}" + (f" ± {errors_of[key]:.2g}" if key in errors_of else "")
            for key, value in found["parameters"].items()
        )
        say(f"  {title}: {words}; log-likelihood {found['loglik']:,.2f}")
    totals = data["totals"]
    say(
        f"  {report['repeaters']:,} of {report['subjects']:,} buyers ordered more than once; "
        f"{totals['alive'] or 0:,.0f} are still there by expectation, worth {money(totals['clv_minor'])} together",
    )
    _print_calibration(data["calibration"])
    print_notes(data["warnings"])


def _print_calibration(found: dict[str, Any]) -> None:
    if "orders" not in found:
        reasons = "; ".join(found["reasons"])
        say(f"  no test against the past: {reasons}")
        return
    orders = found["orders"]
    error = "" if orders["error"] is None else f" ({orders['error']:+.1%})"
    title = (
        f"Held out: the last {orders['length']:.0f} days of {orders['customers']:,} buyers; "
        f"{orders['predicted']:,.0f} orders predicted, {orders['actual']:,} came{error}"
    )
    cells = [
        [
            f"{one['repeats']}{'+' if one['and_more'] else ''}",
            *(f"{one['customers']:,}", f"{one['predicted_mean']:.3f}", f"{one['actual_mean']:.3f}"),
        ]
        for one in orders["groups"]
    ]
    columns = {"repeats before": "right", "buyers": "right", "predicted": "right", "came": "right"}
    print_table(title, columns, cells)


def _print_subject(row: dict[str, Any], currency: str) -> None:
    if not row["bought"]:
        say(f"{row['subject']}: has never bought")
        return
    money, ranges = _money(currency), row["intervals"]
    estimate, outcome = ranges["estimate"], ranges["outcome"]
    days = [f"{end:%Y-%m-%d}" for end in outcome["next_order_at"]]
    cells = [
        ["still buys", f"{row['p_alive']:.1%}", " – ".join(f"{end:.1%}" for end in estimate["p_alive"]), ""],
        [
            "orders to come",
            f"{row['expected_orders']:.2f}",
            " – ".join(f"{end:.2f}" for end in estimate["expected_orders"]),
            " – ".join(str(end) for end in outcome["orders"]),
        ],
        ["value of an order", money(row["order_value_minor"]), "", ""],
        [
            "lifetime value",
            money(row["clv_minor"]),
            " – ".join(money(end) for end in estimate["clv_minor"]),
            " – ".join(money(end) for end in outcome["contribution_minor"]),
        ],
        ["next order, if still buying", f"{row['next_order_at']:%Y-%m-%d}", "", " – ".join(days)],
        ["historic, net", money(row["historic_minor"]), "", ""],
    ]
    columns = {"figure": "left", "expected": "right", "the estimate lies in": "right", "it will fall in": "right"}
    print_table(f"{row['subject']} ({ranges['level']:.0%} intervals)", columns, cells)


def _money(currency: str) -> Any:
    places = minor_exponent(currency)

    def shown(minor: int | None) -> str:
        return "–" if minor is None else f"{minor / 10**places:,.{places}f} {currency}"

    return shown
