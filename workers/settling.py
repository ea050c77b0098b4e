"""Ending doubts without a person: by a campaign's stated policy, and by what a gateway's own log says."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import BigInteger, Connection, Engine, select, type_coerce

from campaigns.versions import load_specs
from kernel.clock import to_ms
from kernel.settings import Limits
from kernel.vocabulary import ACCEPTED_STATES
from store.doubts import Doubt, Settlement, doubts, ripe_for_resending, settle, take_as_sent
from store.engine import reading, writing
from store.sql import in_slices
from store.states import is_planned
from store.tables import messages
from workers.mail_log import Logged, MailLog

log = structlog.get_logger(__name__)

RESEND_AFTER = timedelta(minutes=15)
"""A doubt has this long to end by itself: longer than any answer is waited for (RFC 5321 4.5.3.2.6: ten minutes)."""
_AROUND = timedelta(minutes=15)
"""A log speaks of a message only where it covers this span before and after it."""


def resend_by_policy(engine: Engine, *, now: datetime) -> int:
    """Plan again, once, what is in doubt in campaigns that say `limits: {in_doubt: resend}`; return how many."""
    with reading(engine) as connection:
        ripe = ripe_for_resending(connection, before=now - RESEND_AFTER)
        if not ripe:
            return 0
        specs = load_specs(connection, {doubt.version_id for doubt in ripe})
    # Runs are locked one after the other, in the order in which they are when they are closed: nobody waits in a ring.
    wanted = sorted(
        (d for d in ripe if _resends(specs[d.version_id].limits)), key=lambda doubt: (doubt.run, doubt.message)
    )
    if not wanted:
        return 0
    words = "by the campaign's policy limits.in_doubt"
    with writing(engine) as connection:
        resent = [
            doubt.message
            for doubt in wanted
            if settle(connection, doubt.message, Settlement.RESEND, at=now, words=words)
        ]
    log.warning("doubts_resent", messages=resent[:20], count=len(resent))
    return len(resent)


def _resends(limits: Limits | None) -> bool:
    return limits is not None and limits.in_doubt == "resend"


# --- by a gateway's log ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettlements:
    """What a log settled. `left` maps messages it could not settle to the reason in words."""

    sent: dict[int, str] = field(default_factory=dict)
    not_sent: dict[int, str] = field(default_factory=dict)
    unknown_here: dict[int, str] = field(default_factory=dict)
    """Planned here, sent by the gateway: a restored backup."""
    left: dict[int, str] = field(default_factory=dict)


def settle_by_log(engine: Engine, mail_log: MailLog, *, gateway: str, now: datetime) -> LogSettlements:
    """Settle what is in doubt, and what is planned though it was sent, by the log of the gateway it left by.

    That a message is missing from the log counts only where the log covers the time around it and knows everything
    else that this gateway took over from us in that time: then the message never arrived, and is planned again.
    """
    found = LogSettlements()
    with writing(engine) as connection:
        for doubt in [doubt for doubt in doubts(connection) if doubt.gateway == gateway]:
            _settle_one(connection, mail_log, doubt, found, now)
        for message_id, logged in _planned_but_sent(connection, mail_log, gateway):
            words = f"{_told(logged)}; the ledger did not know"
            if take_as_sent(connection, message_id, sent_at=logged.at, at=now, words=words):
                found.unknown_here[message_id] = words
    return found


def _settle_one(connection: Connection, mail_log: MailLog, doubt: Doubt, found: LogSettlements, now: datetime) -> None:
    logged = mail_log.mails.get(doubt.message)
    if logged is not None:
        settle(connection, doubt.message, Settlement.SENT, at=now, words=_told(logged))
        found.sent[doubt.message] = _told(logged)
        return
    reason = _silence_means_nothing(connection, mail_log, doubt)
    if reason:
        found.left[doubt.message] = reason
        return
    words = "the gateway's log covers the time, knows what else we sent then, and does not know this message"
    settle(connection, doubt.message, Settlement.NOT_SENT, at=now, words=words)
    found.not_sent[doubt.message] = words


def _told(logged: Logged) -> str:
    return f"Postfix took it over as {', '.join(logged.queue_ids)}, status={logged.status or 'not yet told'}"


def _silence_means_nothing(connection: Connection, mail_log: MailLog, doubt: Doubt) -> str:
    """Return why the absence of a message from the log proves nothing; "" where it does prove something."""
    begins, ends = doubt.since - _AROUND, doubt.since + _AROUND
    if not mail_log.covers(begins, ends):
        return f"the log does not cover {begins:%Y-%m-%d %H:%M} to {ends:%H:%M} UTC"
    at = type_coerce(messages.c.sent_at, BigInteger)
    accepted = connection.execute(
        select(messages.c.id).where(
            messages.c.lane == doubt.gateway,
            messages.c.state.in_(ACCEPTED_STATES),
            at.between(to_ms(begins), to_ms(ends)),
        )
    ).scalars()
    known = [message_id in mail_log.mails for message_id in accepted]
    if not known:
        return "nothing else left by this gateway around that time, so the log may be another's"
    missing = known.count(False)
    return f"the log misses {missing} of {len(known)} other messages of that time" if missing else ""


def _planned_but_sent(connection: Connection, mail_log: MailLog, gateway: str) -> list[tuple[int, Logged]]:
    planned: list[int] = []
    for ids in in_slices(sorted(mail_log.mails), 500):
        query = select(messages.c.id).where(
            messages.c.id.in_(ids),
            is_planned(),
            messages.c.lane == gateway,
            messages.c.resends == 0,
        )
        planned += connection.execute(query).scalars()
    return [(message_id, mail_log.mails[message_id]) for message_id in planned]
