"""The demo from beginning to end: build, import, send, react, report, and check the books."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from demo.audit import Accounts, CampaignAccount, settle_accounts
from demo.behaviour import Behaviour
from demo.commands import DONE, SOME_ROWS_REJECTED, Commands, DemoFailed, Services, environment_of, log_tails, services
from demo.customers import Customers, Doors
from demo.facts import Lift, enrolled_accounts, lifts, people
from demo.mailbox import Mailbox, Received, running_mailbox
from demo.show import Show
from demo.sms_gateway import SmsGateway, running_sms_gateway
from demo.stage import Stage, let_the_dates_come, let_the_weekly_time_come, set_stage, shorten_retries
from demo.waiting import Waiting
from kernel.clock import system_clock
from kernel.errors import CarillonError
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import Channel
from reports.attribution import attribute
from store.engine import open_database

CUSTOMERS_AND_ORDERS = ("accounts", "contacts", "consents", "orders")
"""What campaigns need: the services start when these are in, while the rest is imported."""
THE_REST = ("products", "order-lines", "stock", "opportunities", "events")
DATED = ("champions-preview", "winback")
WEEKLY = "weekly-restock"
CAMPAIGNS = (*DATED, WEEKLY)
LABEL = "Simulated customers"
MARKETER = "marketing@northgate.example"
SMS_WAIT = timedelta(seconds=14)
"""From the e-mail of the win-back to its SMS: three days in earnest."""
_REPORT_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything the acts of the demo need."""

    stage: Stage
    commands: Commands
    workspace: Workspace
    engine: Engine
    mailbox: Mailbox
    gateway: SmsGateway
    behaviour: Behaviour


def run_demo(folder: Path, *, seed: int, keep: bool, show: Show) -> int:
    """Run the demo and return its exit code: 0 only where everything was done and all books agree."""
    stage: Stage | None = None
    try:
        stage = _build(folder, seed, show)
        with _scene(stage, seed, show) as scene:
            slot = _import(scene, show)
            with services(stage, show.console) as running:
                _import_rest(scene, running, show)
                _send(scene, slot, show)
                report = _mail_report(scene, show)
                agreed = _check(scene, show)
                _tell_places(scene, report, show)
                if keep:
                    _keep_running(stage, show)
        show.say(f"Done in {show.elapsed_s:.0f} s.", style="bold green" if agreed else "bold red")
        return 0 if agreed else 1
    except CarillonError as error:
        show.say(f"\nThe demo failed: {error}", style="bold red")
        for path, tail in log_tails(stage) if stage else ():
            show.console.rule(str(path), style="red")
            show.say(tail)
        return 1


# --- the acts --------------------------------------------------------------------------------------------------


def _build(folder: Path, seed: int, show: Show) -> Stage:
    show.heading("An invented wholesaler")
    stage = set_stage(folder, seed=seed, now=system_clock())
    shorten_retries(stage.root)
    show.say(
        f"Northgate Supply, made from seed {seed}: two years of trade up to yesterday, in the files its shop exports.\n"
        "Every person, address and number in them is made up. The customers you will see act are simulated as well."
    )
    show.table(
        "Exported by the shop", ["file", "rows"], [[f"data/{name}", count] for name, count in stage.rows.items()]
    )
    return stage


@contextmanager
def _scene(stage: Stage, seed: int, show: Show) -> Iterator[Scene]:
    behaviour = Behaviour(seed)
    with (
        running_mailbox(
            stage.mailbox, port=stage.ports.smtp, refuses=behaviour.refuses, defers_once=behaviour.greylists
        ) as mailbox,
        running_sms_gateway(stage.sms, port=stage.ports.sms) as gateway,
    ):
        workspace = load_workspace(stage.root, environment_of(stage))
        engine = open_database(workspace.database_url)
        try:
            yield Scene(
                stage=stage,
                commands=Commands(stage, show.console),
                workspace=workspace,
                engine=engine,
                mailbox=mailbox,
                gateway=gateway,
                behaviour=behaviour,
            )
        finally:
            engine.dispose()


def _import(scene: Scene, show: Show) -> datetime:
    """Put the weekly campaign on and import whom and what it needs; return when it falls due."""
    show.heading("The weekly campaign is on already; now the shop's data arrives")
    slot = let_the_weekly_time_come(scene.stage.root, system_clock())
    scene.commands.run("apply", WEEKLY)
    for source in CUSTOMERS_AND_ORDERS:
        # Exit code 3: done, and some rows were rejected. The shop's contacts hold a few such rows on purpose.
        scene.commands.run("import", source, allowed=(DONE, SOME_ROWS_REJECTED))
    return slot


def _import_rest(scene: Scene, running: Services, show: Show) -> None:
    for source in THE_REST:
        scene.commands.run("import", source)
    show.heading("Who is who")
    scene.commands.run("segments", "refresh")
    show.say(running.wait_until_ready())


def _send(scene: Scene, slot: datetime, show: Show) -> None:
    show.heading("Three campaigns whose time has come")
    let_the_dates_come(scene.stage.root, system_clock(), sms_wait=SMS_WAIT)
    scene.commands.run("validate")
    scene.commands.run("plan")
    waiting = Waiting(scene.engine, show)
    with _customers(scene) as customers:
        scene.commands.run("apply")
        show.say(
            f"The scheduler fires them; the weekly one falls due at {slot:%H:%M:%S} UTC. As mail comes in, simulated\n"
            "customers read, click, unsubscribe, bounce and order, through the real HTTP and SMTP doors."
        )
        waiting.for_first_wave(DATED)
        customers.wake()
        customers.order_anyway(enrolled_accounts(scene.engine))
        waiting.for_quiet(customers)
        show.heading("What came of the first two (all customers simulated)")
        scene.commands.run("funnel", "champions-preview")
        scene.commands.run("report", "winback", "--label", LABEL)
        show.heading("The weekly campaign")
        waiting.for_firing(CAMPAIGNS)
        customers.order_anyway(enrolled_accounts(scene.engine))
        waiting.for_quiet(customers)
    scene.commands.run("funnel", WEEKLY)
    done = [[name, count] for name, count in sorted(customers.done.items())]
    show.table("What simulated customers did in all", ["doing", "times"], done)
    if customers.failed:
        reasons = "; ".join(f"{count} × {what}" for what, count in customers.failed.most_common(5))
        raise DemoFailed(f"simulated customers met closed doors: {reasons}")


def _customers(scene: Scene) -> Customers:
    return Customers(
        behaviour=scene.behaviour,
        people=people(scene.engine),
        mailbox=scene.mailbox,
        gateway=scene.gateway,
        doors=Doors(
            base_url=scene.stage.base_url,
            api_token=scene.stage.api_token,
            bounce_port=scene.stage.ports.inbound,
            stop_url=scene.stage.stop_url,
        ),
    )


def _mail_report(scene: Scene, show: Show) -> Received:
    show.heading("The conversion report, by e-mail")
    attribute(scene.engine, now=system_clock())
    _show_lifts(lifts(scene.engine), show)
    before = len(scene.mailbox.messages())
    scene.commands.run("report", "winback", "--to", MARKETER, "--label", LABEL)

    def reports() -> list[Received]:
        return [received for received in scene.mailbox.messages(before) if received.rcpt_to == MARKETER]

    def telling() -> str:
        return f"reports in the mailbox of {MARKETER}: {len(reports())}"

    if not show.wait(lambda: bool(reports()), telling, patience_s=_REPORT_PATIENCE_S):
        raise DemoFailed(f"the report to {MARKETER} did not arrive")
    return reports()[-1]


def _show_lifts(found: list[Lift], show: Show) -> None:
    rows = [
        [
            lift.campaign,
            lift.written_to,
            f"{lift.ordered / lift.written_to:.1%}" if lift.written_to else "–",
            lift.held_out,
            f"{lift.held_out_ordered / lift.held_out:.1%}",
        ]
        for lift in found
    ]
    show.table(
        "Accounts that ordered since (simulated)",
        ["campaign", "written to", "of these ordered", "held out", "of these ordered"],
        rows,
    )


def _check(scene: Scene, show: Show) -> bool:
    show.heading("The books")
    accounts = settle_accounts(
        scene.engine,
        scene.workspace.signer(),
        [received for received in scene.mailbox.messages() if received.rcpt_to != MARKETER],
        scene.gateway.messages(),
    )
    show.table(
        "Accepted in the ledger = arrived",
        ["campaign", "e-mail: ledger", "mailbox", "SMS: ledger", "gateway"],
        [
            [
                account.campaign,
                len(account.accepted[Channel.EMAIL]),
                account.arrived[Channel.EMAIL].total(),
                len(account.accepted[Channel.SMS]),
                account.arrived[Channel.SMS].total(),
            ]
            for account in accounts.by_campaign
        ],
    )
    show.table(
        "Audience = sent + failed + skipped + held out + pending + in doubt",
        ["campaign", "audience", "sent", "failed", "skipped", "held", "pending", "doubt", "sum"],
        [_books_row(account.campaign, account) for account in accounts.by_campaign],
    )
    return _verdict(accounts, show)


def _books_row(name: str, account: CampaignAccount) -> list[object]:
    books = account.books
    skipped = sum(books.skipped.values())
    ends = (books.sent, books.failed, skipped, books.held_out, books.pending, books.in_doubt)
    return [name, books.audience, *ends, sum(ends)]


def _verdict(accounts: Accounts, show: Show) -> bool:
    problems = accounts.problems()
    missing = sorted(set(CAMPAIGNS) - {account.campaign for account in accounts.by_campaign})
    problems += [f"{name}: there is no such campaign in the ledger" for name in missing]
    for problem in problems:
        show.say(f"✗ {problem}", style="bold red")
    if not problems:
        show.say(
            "✓ Every accepted message arrived exactly once, nothing else arrived, and nobody is lost.", style="green"
        )
        waiting = sum(account.books.pending for account in accounts.by_campaign)
        if waiting:
            show.say(f"  {waiting:,} messages are pending: it is not 08:00 to 18:00 where their recipients are.")
    return not problems


def _tell_places(scene: Scene, report: Received, show: Show) -> None:
    show.heading("Where everything lies")
    root = scene.stage.root
    places = {
        "workspace": root,
        "e-mail that arrived": f"{scene.stage.mailbox} ({len(scene.mailbox.messages()):,} .eml files)",
        "conversion report": scene.stage.mailbox / report.file,
        "SMS that arrived": scene.gateway.file,
        "rejected rows": ", ".join(map(str, sorted(root.rglob("rejects/*.csv")))) or "none",
        "database": root / ".carillon" / "carillon.db",
        "logs": f"{root / 'up.log'}, {root / '.carillon' / 'logs'}",
    }
    for what, where in places.items():
        show.say(f"  {what:<20} {where}")
    carillon = Path(sys.executable).with_name("carillon")
    show.say(
        f"\nLook around yourself, in a shell:\n  set -a; . {scene.stage.env_file}; set +a\n"
        f"  {carillon} status --workspace {root}"
    )


def _keep_running(stage: Stage, show: Show) -> None:
    show.heading("Still running (KEEP=1); Ctrl-C ends it")
    show.say(f"web      {stage.base_url}/healthz\nmetrics  {stage.base_url}/metrics")
    show.say(f"SMTP     127.0.0.1:{stage.ports.smtp} (mailbox), 127.0.0.1:{stage.ports.inbound} (bounces)")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        show.say("Stopping.")
