"""Promise 6: raw rows, read one by one and counted anew, give the numbers of the reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import Connection, select

from kernel.settings import Workspace
from kernel.vocabulary import ACCEPTED_STATES, PENDING_STATES, MessageState, TouchKind, Verdict
from reports.funnel import Funnel, funnel
from store.tables import campaigns, conversions, messages, runs, touches
from workers.audit.findings import Breach, Finding, breach

_ROWS_AT_ONCE = 10_000
Counts = dict[int, Counter[str]]

_STATE_WORDS = {
    **{state.value: ("sent",) for state in ACCEPTED_STATES},
    **{state.value: ("pending",) for state in PENDING_STATES},
    MessageState.BOUNCED.value: ("sent", "bounced"),
    MessageState.COMPLAINED.value: ("sent", "complained"),
}


def numbers_recounted(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    """Count every campaign's rows in the plainest way there is, and compare with its funnel."""
    campaign_of = {row.id: row.campaign_id for row in connection.execute(select(runs.c.id, runs.c.campaign_id))}
    counted: Counts = {campaign_id: Counter() for campaign_id in campaign_of.values()}
    _count_messages(connection, counted, campaign_of)
    _count_touches(connection, counted, campaign_of)
    _count_conversions(connection, counted)
    names = {row.id: row.name for row in connection.execute(select(campaigns.c.id, campaigns.c.name))}
    for campaign_id, ours in sorted(counted.items()):
        theirs = _told(funnel(connection, campaign_id=campaign_id, currency=workspace.settings.currency))
        wrong = [
            f"{word} {theirs[word]:,}, recounted {ours[word]:,}"
            for word in sorted({*ours, *theirs})
            if ours[word] != theirs[word]
        ]
        if wrong:
            yield Breach(
                what=f"the report of {names[campaign_id]} says {'; '.join(wrong)}",
                count=len(wrong),
                ids=(),
                remedy="a fault of Carillon's own: keep the database and tell its makers",
            )
    unsent = (
        select(conversions.c.message_id)
        .join(messages, messages.c.id == conversions.c.message_id)
        .where(messages.c.state.not_in((*ACCEPTED_STATES, MessageState.IN_DOUBT)))
        .order_by(conversions.c.message_id)
    )
    yield from breach(
        connection.execute(unsent).scalars(),
        "{n} orders, stages or events are credited to a message that was not sent",
        "look at each with `carillon ledger show`",
    )


def _count_messages(connection: Connection, counted: Counts, campaign_of: dict[int, int]) -> None:
    query = select(messages.c.run_id, messages.c.state).execution_options(yield_per=_ROWS_AT_ONCE)
    for run_id, state in connection.execute(query):
        into = counted[campaign_of[run_id]]
        into["audience"] += 1
        for word in _STATE_WORDS.get(state, (state,)):
            into[word] += 1


def _count_touches(connection: Connection, counted: Counts, campaign_of: dict[int, int]) -> None:
    query = (
        select(messages.c.run_id, touches.c.message_id, touches.c.kind, touches.c.verdict)
        .join(messages, messages.c.id == touches.c.message_id)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    opened: set[int] = set()
    clicked: set[int] = set()
    for run_id, message_id, kind, verdict in connection.execute(query):
        if kind == TouchKind.OPEN and verdict != Verdict.MACHINE and message_id not in opened:
            opened.add(message_id)
            counted[campaign_of[run_id]]["opened"] += 1
        elif kind == TouchKind.CLICK and verdict == Verdict.HUMAN and message_id not in clicked:
            clicked.add(message_id)
            counted[campaign_of[run_id]]["clicked"] += 1


def _count_conversions(connection: Connection, counted: Counts) -> None:
    query = select(conversions.c.campaign_id, conversions.c.currency, conversions.c.value_minor)
    for campaign_id, currency, value_minor in connection.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)):
        counted[campaign_id]["converted"] += 1
        if currency:
            counted[campaign_id][f"revenue in {currency} (minor units)"] += value_minor


def _told(report: Funnel) -> Counter[str]:
    told = Counter(
        {
            "audience": report.audience,
            "sent": report.sent,
            "pending": report.pending,
            "failed": report.failed,
            "skipped": report.skipped_total,
            "held_out": report.held_out,
            "in_doubt": report.in_doubt,
            "bounced": report.bounced,
            "complained": report.complained,
            "opened": report.opened,
            "clicked": report.clicked,
            "converted": report.converted,
        }
    )
    told.update({f"revenue in {currency} (minor units)": value for currency, value in report.revenue.items()})
    return told
