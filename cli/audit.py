"""The command that recounts the promises."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.doubts import GatewayOption, MailLogOption, the_gateway
from cli.shared import JsonOption, WorkspaceOption, console, errors, opened, print_json, reporting_errors
from kernel.clock import system_clock
from store.engine import reading
from store.schema import installation

if TYPE_CHECKING:
    from workers.audit.findings import Recounted


@reporting_errors
def audit_(
    mail_log: MailLogOption = [],  # noqa: B006 - typer copies it
    gateway: GatewayOption = None,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Recount the six promises over the database, and against a relay's own log. Exit code 1 if one is broken.

    Reads only, and may run while everything works.

    Example: carillon ledger audit --mail-log /var/log/mail.log
    """
    from workers.audit.auditing import audit, promises
    from workers.mail_log import read_mail_logs

    with opened(root) as (workspace, engine):
        wanted = promises()
        if mail_log:
            name = the_gateway(workspace, gateway)
            with reading(engine) as connection:
                ours = installation(connection)
            wanted = promises(mail_log=read_mail_logs(mail_log, ours, now=system_clock()), gateway=name)
        recounted = []
        for number, one in enumerate(audit(engine, workspace, wanted), start=1):
            recounted.append(one)
            if as_json:
                errors.print(
                    f"{number} of {len(wanted)}: {one.says} ({one.took_s:.1f} s)", markup=False, highlight=False
                )
            else:
                _print(one)
    holds = all(one.holds for one in recounted)
    if as_json:
        print_json({"holds": holds, "promises": [{**asdict(one), "holds": one.holds} for one in recounted]})
    else:
        console.print("every promise holds" if holds else "NOT EVERY PROMISE HOLDS", style="green" if holds else "red")
    if not holds:
        raise typer.Exit(1)


def _print(one: Recounted) -> None:
    mark = "[green]holds [/]" if one.holds else "[red]BROKEN[/]"
    number = f"{one.number}." if one.number else "+ "
    console.print(f"{mark} {number} {one.says} [dim]({one.took_s:.1f} s)[/]", highlight=False)
    for note in one.notes:
        _line(f"          {note}")
    for breach in one.breaches:
        _line(f"          {breach.what}", style="red")
        if breach.ids:
            more = f" and {breach.count - len(breach.ids):,} more" if breach.count > len(breach.ids) else ""
            _line(f"          ids: {', '.join(map(str, breach.ids))}{more}")
        _line(f"          → {breach.remedy}")


def _line(text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def register(ledger: typer.Typer) -> None:
    """Add this command to the group of the ledger."""
    ledger.command("audit")(audit_)
