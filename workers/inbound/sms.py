"""Recording what SMS gateways call back: receipts, STOP, START, and answers for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from kernel.ids import digest
from kernel.signing import Signer
from kernel.vocabulary import Channel, ConsentStatus, MessageEventKind, SuppressionReason
from store.feedback import (
    OWN_WORD_SOURCES,
    STOP_SOURCE,
    record_message_event,
    record_sent_evidence,
    set_consent,
    withdraw_address,
)
from store.inbox import InboxRow, InboxState
from store.ingest.addresses import normal_phone
from store.message_facts import (
    MessageFact,
    contacts_with,
    last_message_to,
    message_by_gateway_id,
    message_fact,
    withdrawn_by,
)
from store.suppressions import lift
from workers.inbound.callbacks import IncomingSms, SmsReceipt
from workers.inbound.outcomes import Read, Waiting, wait_for_outcome
from workers.inbound.replies import Reply, reading_of

_LEDGER_PATIENCE = timedelta(minutes=5)
_START_SOURCE = OWN_WORD_SOURCES[1]


def record_receipts(
    connection: Connection, row: InboxRow, receipts: Sequence[SmsReceipt], *, signer: Signer, now: datetime
) -> Read:
    """Record receipts; a gateway may only speak of messages that left by it.

    Raises:
        Waiting: a message's own outcome is not in the ledger yet.
    """
    known = [(receipt, _message_of(connection, row, receipt, signer)) for receipt in receipts]
    found = [(receipt, message) for receipt, message in known if message is not None]
    for _, message in found:
        wait_for_outcome(message, received_at=row.received_at, now=now)
    if any(message is None and receipt.spellings for receipt, message in known) and _is_fresh(row, now):
        # Without a reference of ours a receipt that overtakes the ledger can only be told by its id, later.
        raise Waiting
    for receipt, message in found:
        if receipt.kind is None:
            record_sent_evidence(connection, message_id=message.id, at=row.received_at)
        else:
            record_message_event(
                connection,
                key=f"{receipt.kind}:{message.id}",
                message_id=message.id,
                kind=receipt.kind,
                at=row.received_at,
                detail=receipt.detail,
            )
        if receipt.opted_out:
            withdraw_address(
                connection,
                channel=Channel.SMS,
                address=message.address,
                reason=SuppressionReason.STOP,
                at=row.received_at,
                source=STOP_SOURCE,
                message_id=message.id,
            )
    unclear = [receipt for receipt, message in known if message is None]
    words = ", ".join(dict.fromkeys(receipt.detail or "no status" for receipt, _ in known))
    if unclear or not known:
        return Read(
            state=InboxState.UNCLASSIFIED, note=f"{len(unclear)} of {len(known)} about no message of ours: {words}"
        )
    return Read(state=InboxState.DONE, note=words)


def record_incoming(connection: Connection, row: InboxRow, incoming: Sequence[IncomingSms]) -> Read:
    """Record incoming SMS. STOP always acts; START once, and only where STOP had stopped something."""
    notes, unclear = [], not incoming
    for index, sms in enumerate(incoming):
        number = international(sms.sender)
        if number is None:
            unclear = True
            notes.append(f"sender {sms.sender!r} is no international number")
            continue
        notes.append(_record_one(connection, row, index, number, sms.text))
    return Read(state=InboxState.UNCLASSIFIED if unclear else InboxState.DONE, note="; ".join(notes))


def _record_one(connection: Connection, row: InboxRow, index: int, number: str, text: str) -> str:
    reading, at = reading_of(text, number), row.received_at
    answered = last_message_to(connection, channel=Channel.SMS, address=number)
    if reading is Reply.STOP:
        withdraw_address(
            connection,
            channel=Channel.SMS,
            address=number,
            reason=SuppressionReason.STOP,
            at=at,
            source=STOP_SOURCE,
            message_id=answered.id if answered else None,
        )
        if answered is not None:
            record_message_event(
                connection,
                key=f"unsubscribed:{answered.id}",
                message_id=answered.id,
                kind=MessageEventKind.UNSUBSCRIBED,
                at=at,
                detail=text,
            )
        return "stop"
    if answered is None:
        return f"{reading} from a number nothing was sent to"
    key = f"replied:{digest(row.source, str(row.meta.get('query', '')), row.body)}:{index}"
    new = record_message_event(
        connection, key=key, message_id=answered.id, kind=MessageEventKind.REPLIED, at=at, detail=text
    )
    if reading is Reply.START:
        # A repeated callback must not undo a STOP that came in between.
        return _start(connection, number, text, at) if new else "start again: a repeat, ignored"
    return "help" if reading is Reply.HELP else "reply"


def _start(connection: Connection, number: str, text: str, at: datetime) -> str:
    holders = contacts_with(connection, channel=Channel.SMS, address=number)
    granted = [
        contact_id
        for contact_id in withdrawn_by(connection, holders, channel=Channel.SMS, source=STOP_SOURCE)
        if set_consent(
            connection,
            contact_id=contact_id,
            channel=Channel.SMS,
            status=ConsentStatus.GRANTED,
            at=at,
            source=_START_SOURCE,
            wording=text,
        )
    ]
    if not granted:
        return "start, but nothing had been stopped by SMS"
    reasons = (SuppressionReason.STOP,)
    lift(connection, channel=Channel.SMS, address=number, reasons=reasons, at=at, by=_START_SOURCE)
    return "start"


def international(sender: str) -> str | None:
    """Return a sender's number in E.164; gateways write it with "+", with "00" or with neither."""
    digits = "".join(character for character in sender if character.isdigit())
    return normal_phone(f"+{digits.removeprefix('00')}", None) if digits else None


def _message_of(connection: Connection, row: InboxRow, receipt: SmsReceipt, signer: Signer) -> MessageFact | None:
    lane = row.gateway or ""
    signed = signer.verify_address(receipt.ref) if receipt.ref else None
    message = message_fact(connection, signed.message_id) if signed else None
    if message is None and receipt.spellings:
        message = _message_spelt(connection, lane, receipt)
    elif message is None and receipt.gateway_id:
        message = message_by_gateway_id(connection, lane=lane, gateway_id=receipt.gateway_id)
    return message if message is not None and message.lane == lane else None


def _message_spelt(connection: Connection, lane: str, receipt: SmsReceipt) -> MessageFact | None:
    """Return the message one of the id's spellings names and that went to the number the receipt is about.

    One message's id in hex may be another's in decimal: the number tells them apart. A gateway that writes numbers in
    a way of its own is taken by its word, the likeliest spelling.
    """
    number = international(receipt.number)
    for spelling in receipt.spellings:
        message = message_by_gateway_id(connection, lane=lane, gateway_id=spelling)
        if message is not None and (number is None or message.address == number):
            return message
    return None


def _is_fresh(row: InboxRow, now: datetime) -> bool:
    return now - row.received_at < _LEDGER_PATIENCE
