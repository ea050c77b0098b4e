"""What comes back about messages: touches, events, suppressions, consent. Safe to repeat, in any order.

A message's state only ever climbs: sent, delivered, bounced, complained. One that is in doubt climbs as soon as
anything shows that it was sent. Messages still in a worker's hands are never touched here: their fencing token
belongs to the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from sqlalchemy import BigInteger, Connection, case, func, literal, or_, select, type_coerce, union_all, update

from kernel.vocabulary import (
    Channel,
    ConsentStatus,
    MessageEventKind,
    MessageState,
    Subject,
    SuppressionReason,
    TouchKind,
    Verdict,
)
from store.changes import touch, touch_recipients
from store.ingest.bulk import among_given
from store.message_facts import contacts_with, message_fact
from store.plain_text import clean_text
from store.sql import in_slices, insert_into
from store.suppressions import SIGNS_OF_LIFE, revive, revive_by_consent, suppress
from store.tables import consent_events, consents, message_events, messages, touches
from store.types import Instant

_RANKS: tuple[MessageState, ...] = (
    MessageState.IN_DOUBT,
    MessageState.SENT,
    MessageState.DELIVERED,
    MessageState.BOUNCED,
    MessageState.COMPLAINED,
)
"""Lowest first. States not listed are never left by what comes back."""

STATE_OF: dict[MessageEventKind, MessageState] = {
    MessageEventKind.DELIVERED: MessageState.DELIVERED,
    MessageEventKind.UNDELIVERED: MessageState.BOUNCED,
    MessageEventKind.BOUNCED: MessageState.BOUNCED,
    MessageEventKind.SOFT_BOUNCED: MessageState.BOUNCED,
    MessageEventKind.MAILBOX_FULL: MessageState.BOUNCED,
    MessageEventKind.BLOCKED: MessageState.BOUNCED,
    MessageEventKind.COMPLAINED: MessageState.COMPLAINED,
    MessageEventKind.DELAYED: MessageState.SENT,
    MessageEventKind.UNSUBSCRIBED: MessageState.SENT,
    MessageEventKind.REPLIED: MessageState.SENT,
}
"""The least state an event proves; `unclassified` proves nothing."""

ACCEPTANCE_UNKNOWN = "acceptance_unknown"
TOO_SOON = "too_soon"
"""Names of two rules in touches.reasons; the others belong to the room that judges."""

TOO_SOON_WITHIN = timedelta(seconds=1.5)
"""Between acceptance by the relay and a click a person must get the mail, open, read and press. Collie's published
value; a person behind an instant push is slower, security gateways that test links before delivery are faster."""

LIFTABLE = (
    SuppressionReason.UNSUBSCRIBE,
    SuppressionReason.STOP,
    SuppressionReason.SOFT_BOUNCE,
    SuppressionReason.MAILBOX_FULL,
)
"""Reasons the person may take back; a hard bounce, a complaint or an operator's word stays."""

OWN_WORD_SOURCES = ("preference page", "sms START")
"""What a consent's source begins with where the person gave it themselves."""

STOP_SOURCE = "sms STOP"
"""Source of a consent withdrawn by SMS, whether the word reached us or the gateway."""


def record_touch(
    connection: Connection,
    *,
    message_id: int,
    kind: TouchKind,
    link_id: int | None,
    at: datetime,
    method: str,
    ip: str,
    user_agent: str,
    verdict: Verdict,
    reasons: Sequence[str],
) -> int:
    """Store one hit as it came and return its id. Whoever made it, it proves that the message was sent."""
    touch_id: int = connection.execute(
        insert_into(connection, touches)
        .values(
            message_id=message_id,
            kind=kind,
            link_id=link_id,
            at=at,
            method=clean_text(method, 16),
            ip=clean_text(ip, 64),
            user_agent=clean_text(user_agent, 500),
            verdict=verdict,
            reasons=",".join(reasons),
        )
        .returning(touches.c.id)
    ).scalar_one()
    _settle_doubt(connection, message_id, at)
    if verdict is Verdict.HUMAN and kind is not TouchKind.PAGE:
        revive(connection, [message_id], at)
    touch_recipients(connection, [message_id])
    return touch_id


def mark_machine(connection: Connection, touch_ids: Sequence[int], reason: str) -> None:
    """Revise the verdict of earlier hits; their facts stay as they came."""
    if touch_ids:
        connection.execute(
            update(touches)
            .where(touches.c.id.in_(touch_ids), touches.c.verdict != Verdict.MACHINE)
            .values(
                verdict=Verdict.MACHINE,
                reasons=case((touches.c.reasons == "", reason), else_=touches.c.reasons + f",{reason}"),
            )
        )
        hit = select(touches.c.message_id).where(touches.c.id.in_(touch_ids)).distinct()
        touch_recipients(connection, connection.execute(hit).scalars().all())


def record_message_event(
    connection: Connection, *, key: str, message_id: int, kind: MessageEventKind, at: datetime, detail: str = ""
) -> bool:
    """Store what came back about a message, and move its state up accordingly.

    Args:
        connection: In a writing transaction.
        key: Names the happening; of two events of one key the earlier stays.
        message_id: The message it is about.
        kind: What happened.
        at: When it happened, or when we heard of it.
        detail: The other side's words; shortened to 1,000 characters.

    Returns:
        False where the key was known already.
    """
    detail = clean_text(detail, 1000)
    new = connection.execute(
        insert_into(connection, message_events)
        .values(key=key, message_id=message_id, kind=kind, at=at, detail=detail)
        .on_conflict_do_nothing()
        .returning(message_events.c.id)
    ).one_or_none()
    if new is None:
        # Told twice with different times, as by a bounce and a webhook: the earlier stays, whichever is heard first.
        known = message_events.c
        earlier = or_(known["at"] > at, (known["at"] == at) & (known.detail > detail))
        connection.execute(update(message_events).where(known.key == key, earlier).values(at=at, detail=detail))
    target = STATE_OF.get(kind)
    if target is not None:
        _climb(connection, message_id, target, at)
    if kind in SIGNS_OF_LIFE:
        revive(connection, [message_id], at)
    touch_recipients(connection, [message_id])
    return new is not None


def record_sent_evidence(connection: Connection, *, message_id: int, at: datetime) -> None:
    """Settle a message in doubt as sent: the gateway speaks of it, so it has it."""
    _settle_doubt(connection, message_id, at)
    touch_recipients(connection, [message_id])


def settle_early_words(connection: Connection, message_ids: Sequence[int]) -> None:
    """Settle messages just written down as sent or in doubt about which something came back before that.

    A receipt or a click can be faster than the commit of the chunk that the message left in.
    """
    found = connection.execute(_SPOKEN_OF, {"message_ids": message_ids}).scalars() if message_ids else ()
    spoken_of = sorted(set(found))
    settle_doubts(connection, spoken_of)
    _judge_waiting(connection, spoken_of)


_SPOKEN_OF = union_all(
    select(message_events.c.message_id).where(
        among_given(message_events.c.message_id, "message_ids"),
        message_events.c.kind != MessageEventKind.MOVED,  # A failover moves very many.
    ),
    select(touches.c.message_id).where(among_given(touches.c.message_id, "message_ids")),
)


def _judge_waiting(connection: Connection, message_ids: Sequence[int]) -> None:
    """Judge hits whose only doubt was when the message had left; now that is known."""
    sent_ms = (
        select(type_coerce(messages.c.sent_at, BigInteger))
        .where(messages.c.id == touches.c.message_id)
        .scalar_subquery()
    )
    too_soon = type_coerce(touches.c.at, BigInteger) < sent_ms + round(TOO_SOON_WITHIN.total_seconds() * 1000)
    for ids in in_slices(message_ids, 500):
        connection.execute(
            update(touches)
            .where(touches.c.message_id.in_(ids), touches.c.reasons == ACCEPTANCE_UNKNOWN, sent_ms.is_not(None))
            .values(
                verdict=case((too_soon, Verdict.MACHINE.value), else_=Verdict.HUMAN.value),
                reasons=case((too_soon, TOO_SOON), else_=""),
            )
        )


def settle_doubts(connection: Connection, message_ids: Sequence[int]) -> None:
    """Settle, of messages that have just come into doubt, those something had already come back about."""
    for message_id in message_ids:
        kinds = connection.execute(
            select(message_events.c.kind, message_events.c.at).where(message_events.c.message_id == message_id)
        ).all()
        for kind, at in kinds:
            target = STATE_OF.get(MessageEventKind(kind))
            if target is not None:
                _climb(connection, message_id, target, at)
        first = connection.execute(select(func.min(touches.c.at)).where(touches.c.message_id == message_id)).scalar()
        if first is not None:
            _settle_doubt(connection, message_id, first)


def unsubscribe(connection: Connection, *, message_id: int, at: datetime, key: str) -> None:
    """Take the consent back that a message was sent under, and suppress the address it went to.

    Said again it is one more word of evidence; after the person came back it takes the consent back once more.

    Args:
        connection: In a writing transaction.
        message_id: The message whose link was used; an unknown one is ignored.
        at: When the person said so.
        key: Names the happening among message events; counted once.
    """
    fact = message_fact(connection, message_id)
    if fact is None:
        return
    record_message_event(connection, key=key, message_id=message_id, kind=MessageEventKind.UNSUBSCRIBED, at=at)
    set_consent(
        connection,
        contact_id=fact.contact_id,
        channel=fact.channel,
        status=ConsentStatus.WITHDRAWN,
        at=at,
        source=f"unsubscribe:message {message_id}",
    )
    if fact.address:
        suppress(
            connection,
            channel=fact.channel,
            address=fact.address,
            reason=SuppressionReason.UNSUBSCRIBE,
            at=at,
            message_id=message_id,
        )


def has_unsubscribed(connection: Connection, message_id: int) -> bool:
    """Tell whether a message's link was used already, and the consent it was sent under is still taken back."""
    query = (
        select(messages.c.id)
        .join(message_events, message_events.c.message_id == messages.c.id)
        .join(consents, (consents.c.contact_id == messages.c.contact_id) & (consents.c.channel == messages.c.channel))
        .where(
            messages.c.id == message_id,
            message_events.c.kind == MessageEventKind.UNSUBSCRIBED,
            consents.c.status == ConsentStatus.WITHDRAWN,
        )
    )
    return connection.execute(query.limit(1)).one_or_none() is not None


def set_consent(
    connection: Connection,
    *,
    contact_id: int,
    channel: Channel,
    status: ConsentStatus,
    at: datetime,
    source: str,
    wording: str = "",
) -> bool:
    """Keep a person's word as evidence and let the latest stand; False where the standing word stays what it was.

    What stands follows from all words by their times: the latest decides, dated by when it was first said without
    another word in between. Of two words of one instant a withdrawal holds.
    """
    here = (consents.c.contact_id == contact_id, consents.c.channel == channel)
    standing = connection.execute(
        select(consents.c.status, consents.c.at, consents.c.source).where(*here)
    ).one_or_none()
    connection.execute(
        insert_into(connection, consent_events)
        .values(
            contact_id=contact_id,
            channel=channel,
            status=status,
            at=at,
            source=clean_text(source, 200),
            wording=clean_text(wording, 1000),
        )
        .on_conflict_do_nothing()
    )
    touch(connection, Subject.CONTACT, [contact_id])
    said = connection.execute(
        select(consent_events.c.status, consent_events.c.at, consent_events.c.source).where(
            consent_events.c.contact_id == contact_id, consent_events.c.channel == channel
        )
    ).all()
    # A standing word may have come by an import, without evidence of its own.
    words = sorted([*said, *([standing] if standing else [])], key=lambda word: (word.at, word.status))
    run = takewhile(lambda word: word.status == words[-1].status, reversed(words))
    first = min(run, key=lambda word: (word.at, word.source))
    now_standing = {"status": first.status, "at": first.at, "source": first.source}
    insert = insert_into(connection, consents).values(contact_id=contact_id, channel=channel, **now_standing)
    key = [consents.c.contact_id, consents.c.channel]
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=now_standing))
    if status is ConsentStatus.GRANTED:
        revive_by_consent(connection, contact_id, channel, at)
    return standing is None or standing.status != first.status


def withdraw_address(
    connection: Connection,
    *,
    channel: Channel,
    address: str,
    reason: SuppressionReason,
    at: datetime,
    source: str,
    message_id: int | None = None,
) -> None:
    """Suppress an address and take back the consent of every contact that has it.

    A person's own later grant (by the preference page or START) outweighs a word that reaches us late; a later
    grant from an import does not.
    """
    holders = contacts_with(connection, channel=channel, address=address)
    own_later_grant = select(consents.c.contact_id).where(
        consents.c.contact_id.in_(holders),
        consents.c.channel == channel,
        consents.c.status == ConsentStatus.GRANTED,
        consents.c.at > at,
        or_(*(consents.c.source.startswith(own, autoescape=True) for own in OWN_WORD_SOURCES)),
    )
    if connection.execute(own_later_grant.limit(1)).one_or_none() is not None:
        return
    for contact_id in holders:
        set_consent(
            connection, contact_id=contact_id, channel=channel, status=ConsentStatus.WITHDRAWN, at=at, source=source
        )
    suppress(connection, channel=channel, address=address, reason=reason, at=at, message_id=message_id)


def states_below(target: MessageState) -> tuple[MessageState, ...]:
    """Return the states that proof of `target` raises."""
    return _RANKS[: _RANKS.index(target)]


def _settle_doubt(connection: Connection, message_id: int, at: datetime) -> None:
    _climb(connection, message_id, MessageState.SENT, at)


def _climb(connection: Connection, message_id: int, target: MessageState, at: datetime) -> None:
    """Raise a message's state to `target`; of several proofs of one state the earliest dates it."""
    here = messages.c.id == message_id
    sent_at = func.coalesce(messages.c.sent_at, messages.c.ended_at, literal(at, Instant))
    connection.execute(
        update(messages)
        .where(here, messages.c.state.in_(states_below(target)))
        .values(state=target, ended_at=at, sent_at=sent_at)
    )
    if target != MessageState.SENT:
        connection.execute(
            update(messages).where(here, messages.c.state == target, messages.c.ended_at > at).values(ended_at=at)
        )
