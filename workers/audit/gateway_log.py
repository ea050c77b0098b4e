"""The ledger against a relay's own log: what both should know alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import BigInteger, Connection, select, type_coerce

from kernel.clock import to_ms
from kernel.settings import Workspace
from kernel.vocabulary import ACCEPTED_STATES, MessageState
from store.sql import in_slices
from store.tables import messages
from workers.audit.findings import Finding, Note, breach
from workers.mail_log import MailLog

_EDGE = timedelta(minutes=2)
"""Near its ends a log is not asked: clocks differ a little, and the last lines may not be written yet."""
_NOT_SENT = (MessageState.PLANNED, MessageState.FAILED, MessageState.SKIPPED, MessageState.HELD_OUT)
_ROWS_AT_ONCE = 10_000


def compared(connection: Connection, _workspace: Workspace, mail_log: MailLog, gateway: str) -> Iterator[Finding]:
    """Compare what the ledger says left by a gateway with what that gateway's log says it took over."""
    yield Note(text=f"the log knows {len(mail_log.mails):,} messages of ours in {mail_log.lines:,} lines")
    yield from breach(
        _unknown_there(connection, mail_log, gateway),
        f"{{n}} count as accepted by {gateway} and its log does not know them",
        "is it this gateway's log, whole (rotated files too), by this machine's clock? If so, tell Carillon's makers",
    )
    states: dict[int, tuple[str, int]] = {}
    for ids in in_slices(sorted(mail_log.mails), 500):
        rows = connection.execute(
            select(messages.c.id, messages.c.state, messages.c.resends).where(messages.c.id.in_(ids))
        )
        states.update({row.id: (row.state, row.resends) for row in rows})
    yield from breach(
        (i for i, logged in mail_log.mails.items() if len(logged.queue_ids) > 1 + states.get(i, ("", 0))[1]),
        "{n} were accepted more often than they were sent",
        "find the queue ids in the log by the Message-ID; does something behind us send mail in again?",
    )
    yield from breach(
        (i for i in mail_log.mails if states.get(i, ("", 0))[0] in _NOT_SENT and not states[i][1]),
        "{n} were accepted, and the ledger says they were not sent",
        "after a restored backup: `carillon ledger settle --mail-log FILE` before any worker starts",
    )
    doubtful = [i for i in mail_log.mails if states.get(i, ("", 0))[0] == MessageState.IN_DOUBT]
    if doubtful:
        yield Note(
            text=f"{len(doubtful):,} in doubt were accepted, says the log: `carillon ledger settle --mail-log FILE`"
        )
    strangers = sum(i not in states for i in mail_log.mails)
    if strangers:
        yield Note(text=f"{strangers:,} bear our name and are not in the ledger: test sends, or a restored backup")


def _unknown_there(connection: Connection, mail_log: MailLog, gateway: str) -> Iterator[int]:
    if mail_log.first_at is None or mail_log.last_at is None:
        return
    sent_ms = type_coerce(messages.c.sent_at, BigInteger)
    query = (
        select(messages.c.id)
        .where(
            messages.c.lane == gateway,
            messages.c.state.in_(ACCEPTED_STATES),
            sent_ms.between(to_ms(mail_log.first_at + _EDGE), to_ms(mail_log.last_at - _EDGE)),
        )
        .order_by(messages.c.id)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    for message_id in connection.execute(query).scalars():
        if message_id not in mail_log.mails:
            yield message_id
