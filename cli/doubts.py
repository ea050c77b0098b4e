"""Commands about messages of which nobody knows whether they were sent: list them, and end the doubt."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.shared import JsonOption, WorkspaceOption, console, opened, print_json, print_table, reporting_errors
from kernel.clock import system_clock
from kernel.errors import ConfigError
from kernel.settings import Workspace
from kernel.vocabulary import Channel
from store.doubts import Doubt, Settlement, settle
from store.doubts import doubts as doubts_now
from store.engine import reading, writing
from store.schema import installation

if TYPE_CHECKING:
    from workers.settling import LogSettlements

MailLogOption = Annotated[
    list[Path],
    typer.Option("--mail-log", help="The relay's own log (Postfix's mail.log, also .gz); repeat it, oldest first."),
]
GatewayOption = Annotated[
    str | None, typer.Option("--gateway", help="Whose log it is.", show_default="the only SMTP gateway")
]


@reporting_errors
def doubts(
    root: WorkspaceOption = Path(),
    campaign: Annotated[str | None, typer.Option("--campaign", help="Only this campaign's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List messages that may or may not have been sent: since when, why, and what can settle them.

    Example: carillon ledger doubts
    """
    now = system_clock()
    with opened(root) as (workspace, engine), reading(engine) as connection:
        found = list(doubts_now(connection, campaign=campaign))
    if as_json:
        print_json(
            [{**asdict(doubt), "why": _why(doubt), "settled_by": _settled_by(doubt, workspace)} for doubt in found]
        )
        return
    if not found:
        console.print("nothing is in doubt")
        return
    # Lines, not a table: the words that matter are long, and a narrow column would break them to pieces.
    lines = [line for doubt in found for line in _lines_of(doubt, now)]
    lines.append(f"{len(found):,} in doubt")
    lines += [f"What can settle them: {way}" for way in dict.fromkeys(_settled_by(d, workspace) for d in found)]
    lines.append("By your own word: carillon ledger settle MESSAGE --sent | --not-sent | --resend")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _lines_of(doubt: Doubt, now: datetime) -> list[str]:
    to = doubt.address or "an unknown address"
    head = f"message {doubt.message} of {doubt.campaign}, by {doubt.gateway} to {to}, since {_ago(doubt.since, now)}"
    return [head, f"    {_why(doubt)}"]


def _why(doubt: Doubt) -> str:
    """Return in words how the doubt arose; the gateway's words follow where there are any."""
    again = f" (sent again {doubt.resends} time(s) before)" if doubt.resends else ""
    return f"{doubt.words or 'no answer came after the last byte'}{again}"


def _settled_by(doubt: Doubt, workspace: Workspace) -> str:
    if doubt.channel == Channel.EMAIL:
        return (
            "a bounce, an open or a click, by itself; or the relay's log: "
            f"carillon ledger settle --mail-log FILE --gateway {doubt.gateway}"
        )
    from workers.reconcilers.registry import is_asked

    gateway = workspace.settings.gateways.get(doubt.gateway)
    kind = f", a {gateway.type} gateway," if gateway else ""
    asked = "the provider's word, asked for by the scheduler" if gateway and is_asked(gateway) else ""
    others = f"; {asked}" if asked else "; or the provider's own list of messages"
    return f"a delivery receipt from {doubt.gateway}{kind} or a click, by itself{others}"


def _ago(since: datetime, now: datetime) -> str:
    age = timedelta(seconds=round((now - since).total_seconds()))
    return f"{since:%Y-%m-%d %H:%M:%S} UTC, {age} ago"


@reporting_errors
def settle_(
    message: Annotated[int | None, typer.Argument(help="The message's number.", show_default=False)] = None,
    sent: Annotated[bool, typer.Option("--sent", help="It was sent.")] = False,
    not_sent: Annotated[bool, typer.Option("--not-sent", help="It was not; plan it again.")] = False,
    resend: Annotated[
        bool, typer.Option("--resend", help="Nobody knows; plan it again all the same. The person may get it twice.")
    ] = False,
    mail_log: MailLogOption = [],  # noqa: B006 - typer copies it
    gateway: GatewayOption = None,
    because: Annotated[str, typer.Option("--because", help="How you know; kept with the message.")] = "",
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """End a doubt by your word, or all doubts that a relay's own log can end. What ended it is kept with each message.

    Example: carillon ledger settle 4711 --sent --because "the relay's log says so"
    """
    chosen = [way for way, given in zip(Settlement, (sent, not_sent, resend), strict=True) if given]
    if mail_log:
        if message is not None or chosen:
            raise ConfigError("--mail-log settles by what the log says; name no message and no other way beside it")
        _settle_by_log(root, mail_log, gateway, as_json=as_json)
        return
    if message is None or len(chosen) != 1:
        raise ConfigError("name a message and one of --sent, --not-sent, --resend; or give --mail-log FILE")
    words = f"by {_who()}" + (f": {because}" if because else "")
    with opened(root) as (_, engine):
        with writing(engine) as connection:
            done = settle(connection, message, chosen[0], at=system_clock(), words=words)
        if not done:
            raise ConfigError(f"message {message} is not in doubt; `carillon ledger show {message}` tells what it is")
    if as_json:
        print_json({"message": message, "settled": chosen[0]})
    else:
        console.print(_SAID[chosen[0]].format(message=message), soft_wrap=True, highlight=False)


_SAID = {
    Settlement.SENT: "message {message} counts as sent",
    Settlement.NOT_SENT: "message {message} is planned again; nobody gets it twice",
    Settlement.RESEND: "message {message} is planned again; the person may get it twice, and the ledger counts that",
}


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run as a user nobody named.
        return "somebody at the command line"


def _settle_by_log(root: Path, paths: list[Path], gateway: str | None, *, as_json: bool) -> None:
    from workers.mail_log import read_mail_logs
    from workers.settling import settle_by_log

    now = system_clock()
    with opened(root) as (workspace, engine):
        name = the_gateway(workspace, gateway)
        with reading(engine) as connection:
            ours = installation(connection)
        mail_log = read_mail_logs(paths, ours, now=now)
        found = settle_by_log(engine, mail_log, gateway=name, now=now)
    if as_json:
        print_json(asdict(found))
        return
    _print_settlements(found, len(mail_log.mails))


def _print_settlements(found: LogSettlements, known: int) -> None:
    console.print(f"the log knows {known:,} messages of ours", highlight=False)
    groups: list[tuple[str, dict[int, str]]] = [
        ("now sent", found.sent),
        ("never arrived: planned again", found.not_sent),
        ("planned here, though sent (a restored backup?): now sent", found.unknown_here),
        ("still in doubt", found.left),
    ]
    rows: list[list[Any]] = [[m, title, words] for title, group in groups for m, words in group.items()]
    if rows:
        print_table("Settled by the log", {"message": "right", "now": "left", "why": "left"}, rows)
    else:
        console.print("nothing was in doubt that the log could settle")


def the_gateway(workspace: Workspace, name: str | None) -> str:
    """Return the SMTP gateway a log belongs to.

    Raises:
        ConfigError: no such gateway, or none named where there are several.
    """
    relays = [key for key, gateway in workspace.settings.gateways.items() if gateway.type == "smtp"]
    if name is None and len(relays) == 1:
        return relays[0]
    if name not in relays:
        raise ConfigError(f"say whose log it is: --gateway {' | '.join(relays) or '(there is no SMTP gateway)'}")
    return name


def register(ledger: typer.Typer) -> None:
    """Add these commands to the group of the ledger."""
    ledger.command("doubts")(doubts)
    ledger.command("settle")(settle_)
