"""Commands about single messages: what became of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from campaigns.life import Life, find, life_of
from cli.audit import register as register_audit
from cli.doubts import register as register_doubts
from cli.shared import JsonOption, WorkspaceOption, console, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from kernel.errors import ConfigError
from store.engine import reading
from store.schema import installation

ledger_app = typer.Typer(no_args_is_help=True, help="What became of each message.")


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    ledger_app.command("show")(show)
    register_audit(ledger_app)
    register_doubts(ledger_app)
    app.add_typer(ledger_app, name="ledger")


@reporting_errors
def show(
    message: Annotated[
        str,
        typer.Argument(
            help="The message's number, its Message-ID, its bounce address, a link out of it, the gateway's id or "
            "queue id of it; or a person's address, which lists the latest messages to it."
        ),
    ],
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Tell a message's whole life: why it was planned and due, every try, what came back, how it stands now.

    Example: carillon ledger show 4711
    """
    now = system_clock()
    with opened(root) as (workspace, engine), reading(engine) as connection:
        name = installation(connection)
        ids = find(connection, message, workspace.settings, workspace.signer(), name)
        settings = workspace.settings
        lives = [life for i in ids if (life := life_of(connection, i, settings, name, now=now)) is not None]
    if not lives:
        raise ConfigError(
            f"the ledger knows no message {message!r}; give its number, its Message-ID, its bounce address, a link out "
            "of it, the gateway's id of it, or the address of a person"
        )
    if as_json:
        print_json(asdict(lives[0]) if len(lives) == 1 else [asdict(life) for life in lives])
    elif len(lives) == 1:
        _print_life(lives[0])
    else:
        _print_list(message, lives)


def _print_life(life: Life) -> None:
    facts: list[tuple[str, Any]] = [
        ("message", f"{life.message} {life.message_id_header}"),
        ("campaign", f"{life.campaign}, run {life.run} (version {life.version}), step {life.step}"),
        ("to", f"{life.address or 'no address'}, contact {life.contact}" + _of(life.account)),
        ("by", f"{life.gateway} ({life.channel})"),
        ("state", life.state + (f" ({life.reason})" if life.reason else "")),
        ("now", life.now),
    ]
    for key, value in facts:
        console.print(f"{key:>9}  {str(value).strip()}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nWhat happened (all times are UTC)", highlight=False)
    for event in life.events:
        console.print(
            f"{event.at:%Y-%m-%d %H:%M:%S}  {event.what:<12} {event.detail}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _of(account: str | None) -> str:
    return f" of account {account}" if account else ""


def _print_list(word: str, lives: list[Life]) -> None:
    """Print a line for each of several messages, the latest first."""
    print_table(
        f"Messages found by {word}",
        {"message": "right", "campaign": "left", "step": "right", "state": "left", "due or sent": "left"},
        [
            [
                life.message,
                life.campaign,
                life.step,
                life.state + (f" ({life.reason})" if life.reason else ""),
                f"{life.sent_at or life.due_at:%Y-%m-%d %H:%M}",
            ]
            for life in lives
        ],
    )
    console.print("One of them whole: carillon ledger show MESSAGE", highlight=False)
