"""Recording what returned mail says: which message it is about, and what follows for its address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import Connection

from kernel.ids import digest
from kernel.settings import SuppressionSettings
from kernel.signing import Purpose, Signer
from kernel.vocabulary import Channel, ConsentStatus, MessageEventKind, SuppressionReason
from store.deliveries import Tiding, record_tidings
from store.feedback import record_message_event, record_sent_evidence, set_consent, unsubscribe
from store.inbox import InboxRow, InboxState
from store.message_facts import MessageFact, message_fact, message_facts
from store.suppressions import count_bounces, suppress
from workers.inbound.bounces import BounceReport
from workers.inbound.outcomes import Read, Waiting, wait_for_outcome
from workers.inbound.statuses import BounceKind

_EVENTS: dict[BounceKind, MessageEventKind] = {
    BounceKind.HARD: MessageEventKind.BOUNCED,
    BounceKind.SOFT: MessageEventKind.SOFT_BOUNCED,
    BounceKind.FULL: MessageEventKind.MAILBOX_FULL,
    BounceKind.BLOCKED: MessageEventKind.BLOCKED,
    BounceKind.DELAYED: MessageEventKind.DELAYED,
    BounceKind.DELIVERED: MessageEventKind.DELIVERED,
    BounceKind.COMPLAINT: MessageEventKind.COMPLAINED,
}
"""Automatic answers and notices are no events: they only prove that the message was sent."""

_WITHOUT_CONSEQUENCES = (BounceKind.DELIVERED, BounceKind.DELAYED, BounceKind.NOTICE, BounceKind.AUTO_REPLY)
"""What providers tell most of, and what suppresses nobody: written together."""


def record_mail(
    connection: Connection,
    row: InboxRow,
    reports: Sequence[BounceReport],
    *,
    signer: Signer,
    installation: str,
    settings: SuppressionSettings,
    now: datetime,
) -> Read:
    """Record every report of one piece of mail.

    Raises:
        Waiting: the message's own outcome is not in the ledger yet.
    """
    known = [(report, _message_of(connection, row, report, signer, installation)) for report in reports]
    if all(message is None for _, message in known):
        words = "; ".join(f"{report.kind}: {report.diagnostic}" for report in reports)
        return Read(state=InboxState.UNCLASSIFIED, note=f"about no message of ours: {words}")
    for _, message in known:
        if message is not None:
            wait_for_outcome(message, received_at=row.received_at, now=now)
    for report, message in known:
        if message is not None:
            _record(connection, row, report, message, settings, unanimous=_all_hard(reports))
    unclear = all(report.kind is BounceKind.UNCLASSIFIED for report in reports)
    kinds = ", ".join(dict.fromkeys(report.kind.value for report in reports))
    return Read(
        state=InboxState.UNCLASSIFIED if unclear else InboxState.DONE,
        note=f"{kinds}: {reports[0].status} {reports[0].diagnostic}".strip(),
    )


def record_events(
    connection: Connection,
    row: InboxRow,
    reports: Sequence[BounceReport],
    *,
    signer: Signer,
    installation: str,
    settings: SuppressionSettings,
    now: datetime,
) -> Read:
    """Record a provider's events: each is about a person and a message of its own.

    A row stays new where some message's own outcome is not in the ledger yet; the others are recorded all the same.
    """
    waiting, unknown, unclear = 0, 0, 0
    mentioned = [_mentioned(row, report, signer, installation) for report in reports]
    facts = message_facts(connection, [number for numbers in mentioned for number, _ in numbers])
    plain: dict[MessageEventKind | None, list[Tiding]] = {}
    for report, numbers in zip(reports, mentioned, strict=True):
        message = _chosen(report, numbers, facts.get)
        if message is None:
            unknown += 1
            continue
        try:
            wait_for_outcome(message, received_at=row.received_at, now=now)
        except Waiting:
            waiting += 1
            continue
        if report.kind in _WITHOUT_CONSEQUENCES:
            at, detail = _when(row, report), _words(report)
            tiding = Tiding(message_id=message.id, address=message.address, at=at, detail=detail)
            plain.setdefault(_EVENTS.get(report.kind), []).append(tiding)
        else:
            _record(connection, row, report, message, settings, unanimous=True)
            unclear += report.kind is BounceKind.UNCLASSIFIED
    for kind, tidings in plain.items():
        record_tidings(connection, kind, tidings)
    if waiting:
        return Read(state=InboxState.NEW, note=f"{waiting} of {len(reports)} wait for the ledger")
    kinds = Counter(report.kind.value for report in reports)
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing about messages"
    if unknown or unclear:
        note = f"{words}; {unknown} about no message of ours, {unclear} in words we do not know"
        return Read(state=InboxState.UNCLASSIFIED, note=note)
    return Read(state=InboxState.DONE, note=words)


def _record(
    connection: Connection,
    row: InboxRow,
    report: BounceReport,
    message: MessageFact,
    settings: SuppressionSettings,
    *,
    unanimous: bool,
) -> None:
    at, detail = _when(row, report), _words(report)
    if report.kind is BounceKind.UNCLASSIFIED:
        # A call's other events are none of this one's; a piece of mail is known by its bytes.
        said = report.diagnostic if row.gateway else row.body
        key = f"unclassified:{message.id}:{digest(said)[:16]}"
        record_message_event(
            connection, key=key, message_id=message.id, kind=MessageEventKind.UNCLASSIFIED, at=at, detail=detail
        )
        return
    if report.kind is BounceKind.UNSUBSCRIBED:
        unsubscribe(connection, message_id=message.id, at=at, key=f"unsubscribed:{message.id}")
        return
    kind = _EVENTS.get(report.kind)
    if kind is None:
        record_sent_evidence(connection, message_id=message.id, at=at)
        return
    if kind is MessageEventKind.BOUNCED and not unanimous:
        # One of several people behind an address is gone; the address itself is well.
        kind = MessageEventKind.SOFT_BOUNCED
    record_message_event(connection, key=f"{kind}:{message.id}", message_id=message.id, kind=kind, at=at, detail=detail)
    count_bounces(connection, message, kind, settings)
    if kind is MessageEventKind.BOUNCED:
        _suppress(connection, message, SuppressionReason.HARD_BOUNCE, at, detail)
    elif kind is MessageEventKind.COMPLAINED:
        _suppress(connection, message, SuppressionReason.COMPLAINT, at, detail)
        set_consent(
            connection,
            contact_id=message.contact_id,
            channel=Channel.EMAIL,
            status=ConsentStatus.WITHDRAWN,
            at=at,
            source=f"complaint:message {message.id}",
        )


def _when(row: InboxRow, report: BounceReport) -> datetime:
    """Return when it happened; a clock that is ahead must not date anything into the future."""
    return min(report.at, row.received_at) if report.at else row.received_at


def _words(report: BounceReport) -> str:
    return f"{report.status} {report.diagnostic}".strip()


def _all_hard(reports: Sequence[BounceReport]) -> bool:
    return all(report.kind is BounceKind.HARD for report in reports)


def _suppress(
    connection: Connection, message: MessageFact, reason: SuppressionReason, at: datetime, detail: str
) -> None:
    if message.address:
        suppress(
            connection,
            channel=Channel.EMAIL,
            address=message.address,
            reason=reason,
            at=at,
            message_id=message.id,
            detail=detail,
        )


def _message_of(
    connection: Connection, row: InboxRow, report: BounceReport, signer: Signer, installation: str
) -> MessageFact | None:
    mentioned = _mentioned(row, report, signer, installation)
    return _chosen(report, mentioned, lambda message_id: message_fact(connection, message_id))


def _mentioned(row: InboxRow, report: BounceReport, signer: Signer, installation: str) -> list[tuple[int, bool]]:
    """Return the messages a report may be about, best first, and whether it carries something of theirs we signed."""
    signed = [(message_id, True) for message_id in _signed_ids(row, report, signer)]
    return signed + [(message_id, False) for message_id, name in report.clues.message_ids if name == installation]


def _chosen(
    report: BounceReport, mentioned: Sequence[tuple[int, bool]], look_up: Callable[[int], MessageFact | None]
) -> MessageFact | None:
    """Return the message a report is about: by what we signed, else by a Message-ID whose recipient fits too."""
    for message_id, signed in mentioned:
        message = look_up(message_id)
        if message is None:
            continue
        # Everybody we wrote to knows the form of our Message-IDs: alone they prove nothing.
        fits = (
            message.channel is Channel.EMAIL
            if signed
            else bool(message.address) and message.address == report.recipient
        )
        if fits:
            return message
    return None


def _signed_ids(row: InboxRow, report: BounceReport, signer: Signer) -> Iterator[int]:
    clues = report.clues
    envelope = str(row.meta.get("recipient", "")).partition("@")[0].partition("+")[2]
    for token in (envelope, clues.envelope_id, *clues.address_tokens):
        signed = signer.verify_address(token) if token else None
        if signed is not None:
            yield signed.message_id
    for token in clues.unsubscribe_tokens:
        signed = signer.verify(Purpose.UNSUBSCRIBE, token)
        if signed is not None:
            yield signed.message_id
