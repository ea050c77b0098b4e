"""Commands about single messages and lanes: what became of a message, which gateways are closed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.doubts import register as register_doubts
from cli.shared import JsonOption, WorkspaceOption, console, opened, print_json, print_table, reporting_errors
from kernel.documents import did_you_mean
from kernel.errors import ConfigError
from store.engine import reading, writing
from store.evidence import lanes_now, life_of
from store.ledger import open_lane

ledger_app = typer.Typer(no_args_is_help=True, help="What became of each message.")
lanes_app = typer.Typer(no_args_is_help=True, help="The gateways' circuit breakers.")


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    ledger_app.command("show")(show)
    register_doubts(ledger_app)
    lanes_app.command("list")(list_lanes)
    lanes_app.command("open")(open_)
    app.add_typer(ledger_app, name="ledger")
    app.add_typer(lanes_app, name="lanes")


@reporting_errors
def show(
    message: Annotated[int, typer.Argument(help="The message's number, as in its Message-ID after the m.")],
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Tell a message's whole life: plan, sending, touches, what came back, conversions.

    Example: carillon ledger show 4711
    """
    with opened(root) as (_workspace, engine), reading(engine) as connection:
        life = life_of(connection, message)
    if life is None:
        raise ConfigError(f"there is no message {message}")
    if as_json:
        print_json(life)
        return
    for key, value in life.items():
        if key != "events" and value is not None:
            console.print(f"{key:>14}  {value}", markup=False, highlight=False)
    print_table(
        "What happened",
        {"at": "left", "what": "left", "detail": "left"},
        [[e["at"], e["what"], e["detail"]] for e in life["events"]],
    )


@reporting_errors
def list_lanes(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """List gateways that refused lately, until when they are closed, and why.

    Example: carillon lanes list --json
    """
    with opened(root) as (_workspace, engine), reading(engine) as connection:
        rows = lanes_now(connection)
    if as_json:
        print_json(rows)
    else:
        columns = {"gateway": "left", "closed until": "left", "failures": "right", "reason": "left"}
        print_table("Gateways", columns, [[r["name"], r["closed_until"], r["failures"], r["reason"]] for r in rows])


@reporting_errors
def open_(
    name: Annotated[str, typer.Argument(help="The gateway's name in carillon.yaml.")], root: WorkspaceOption = Path()
) -> None:
    """Open a closed gateway now, after mending what it complained about.

    Example: carillon lanes open relay
    """
    with opened(root) as (workspace, engine), writing(engine) as connection:
        opened_now = open_lane(connection, name)
        gateways = workspace.settings.gateways
    if not opened_now and name not in gateways:
        raise ConfigError(f"carillon.yaml has no gateway {name!r} ({did_you_mean(name, gateways)})")
    console.print(f"{name} is open again" if opened_now else f"{name} was not closed")
