"""A message's whole life in the order of time, with the reasons in words: for whoever asks what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from campaigns.calendar import zone_named
from campaigns.eligibility import Go, Skip, check
from campaigns.guardrails import NOT_YET
from campaigns.holding import holding, rates_of
from campaigns.reasons import in_words
from campaigns.schema import CampaignSpec, Step
from campaigns.versions import load_specs
from kernel.ids import message_id_header
from kernel.quantities import format_minor
from kernel.settings import Settings
from kernel.signing import Purpose, Signer
from kernel.vocabulary import ACCEPTED_STATES, CampaignState, Channel, MessageState
from store import evidence
from store.ledger import Ending
from templates.addresses import wire_address

_MESSAGE_ID = re.compile(r"<?m(\d+)\.([0-9a-f]+)@[^>\s]+>?")
_LINK = re.compile(r"/([ucop])/([A-Za-z0-9_-]+?)(?:\.gif)?$")
_PURPOSES = {"u": Purpose.UNSUBSCRIBE, "c": Purpose.CLICK, "o": Purpose.OPEN, "p": Purpose.PREFERENCES}

_TRIED = {
    Ending.DEFERRED: "put off",
    Ending.REFUSED: "refused",
    Ending.IN_DOUBT: "no answer",
    Ending.ACCEPTED: "accepted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One entry of a life."""

    at: datetime
    what: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """Everything known of a message. `now` says in words how it stands and what comes next."""

    message: int
    message_id_header: str
    campaign: str
    run: int
    version: int
    step: int
    contact: str
    account: str | None
    channel: str
    gateway: str
    address: str
    state: str
    reason: str | None
    attempts: int
    resends: int
    due_at: datetime
    sent_at: datetime | None
    gateway_id: str | None
    reply: str | None
    parts: int | None
    now: str
    events: tuple[Happening, ...]


def find(connection: Connection, word: str, settings: Settings, signer: Signer, installation: str) -> list[int]:
    """Return the messages a word names, the likeliest or latest first.

    The word is a message's number, a Message-ID, a bounce address (VERP), a link out of the message, the gateway's own
    id or queue id, or the address of a person.
    """
    word = word.strip()
    if word.isascii() and word.isdigit() and len(word) < 19:
        by_number = [int(word)] if evidence.message_row(connection, int(word)) else []
        return by_number or evidence.ids_by_gateway_id(connection, word, list(settings.gateways))
    header = _MESSAGE_ID.fullmatch(word)
    if header is not None:
        return [int(header[1])] if header[2] == installation else []
    signed = _signed(word, signer)
    if signed is not None:
        return [signed]
    if "@" in word or word.startswith("+"):
        return evidence.ids_by_address(connection, word)
    return evidence.ids_by_gateway_id(connection, word, list(settings.gateways))


def _signed(word: str, signer: Signer) -> int | None:
    local, plus, token = word.strip("<>").partition("@")[0].partition("+")
    if plus and local.lower() == "bounce":
        signed = signer.verify_address(token)
        return signed.message_id if signed else None
    link = _LINK.search(word)
    if link is not None:
        signed = signer.verify(_PURPOSES[link[1]], link[2])
        return signed.message_id if signed else None
    return None


def life_of(
    connection: Connection, message_id: int, settings: Settings, installation: str, *, now: datetime
) -> Life | None:
    """Return everything known of a message; None where there is no such message.

    Args:
        connection: Reads only.
        message_id: Its number.
        settings: The workspace's.
        installation: This database's name in its Message-IDs.
        now: The present instant.
    """
    row = evidence.message_row(connection, message_id)
    if row is None:
        return None
    spec = load_specs(connection, {row.version_id})[row.version_id]
    address = row.address or (row.email if row.channel == Channel.EMAIL else row.phone) or ""
    happenings = [
        *_planning(row, spec, settings),
        *_trying(connection, row, settings),
        *_coming_back(connection, row, address),
    ]
    return Life(
        message=row.id,
        message_id_header=_header(row.id, spec.steps[row.step - 1], settings, installation),
        campaign=row.campaign,
        run=row.run_id,
        version=row.version,
        step=row.step,
        contact=row.contact,
        account=row.account,
        channel=row.channel,
        gateway=row.lane,
        address=address,
        state=row.state,
        reason=row.reason,
        attempts=row.attempts,
        resends=row.resends,
        due_at=row.due_at,
        sent_at=row.sent_at,
        gateway_id=row.gateway_id,
        reply=row.reply,
        parts=row.parts,
        now=_standing(connection, row, settings, spec, now),
        events=tuple(sorted(happenings, key=lambda one: one.at)),
    )


def _header(message_id: int, step: Step, settings: Settings, installation: str) -> str:
    """Return the Message-ID; "" of an SMS, or where carillon.yaml no longer has the sender."""
    sender = settings.senders.get(step.sender or "")
    if step.channel is not Channel.EMAIL or sender is None:
        return ""
    return message_id_header(message_id, installation, wire_address(sender.email).domain)


# --- planned ---------------------------------------------------------------------------------------------------


def _planning(row: Row[Any], spec: CampaignSpec, settings: Settings) -> Iterator[Happening]:
    step = spec.steps[row.step - 1]
    variant = f", variant {row.variant}" if row.variant else ""
    yield Happening(
        at=row.fired_at,
        what="planned",
        detail=f"run {row.run_id} of {row.campaign} (version {row.version}, scheduled for {_at(row.scheduled_for)}): "
        f"step {row.step} of {len(spec.steps)}, {step.channel} {step.template}, for segment {row.segment}{variant}",
    )
    if row.state != MessageState.SKIPPED or row.ended_at != row.fired_at:  # Else it was never to be sent.
        yield Happening(at=row.planned_for, what="due", detail=_why_then(row, spec, settings))


def _why_then(row: Row[Any], spec: CampaignSpec, settings: Settings) -> str:
    """Return why it was due then: the run, the step's wait, the recipient's window."""
    zone = zone_named(row.contact_zone or row.account_zone, spec.schedule.default_zone or settings.timezone)
    wait = spec.steps[row.step - 1].wait
    window = spec.window_of(row.step)
    words = ["the run's time" if wait == "0s" else f"{wait} after the step before"]
    if spec.schedule.zone == "recipient":
        words.append("on the recipient's own clock")
    days = "" if len(window.days) == 7 else f" {','.join(window.days)}"
    words.append(f"window {window.hours}{days} in {zone.key}, where it was {row.planned_for.astimezone(zone):%a %H:%M}")
    if spec.rate:
        words.append(f"spread by the rate {spec.rate}")
    return "; ".join(words)


# --- tried -----------------------------------------------------------------------------------------------------


def _trying(connection: Connection, row: Row[Any], settings: Settings) -> Iterator[Happening]:
    attempts = evidence.attempts_of(connection, row.id)
    for attempt in attempts:
        yield Happening(at=attempt.at, what=f"try {attempt.number}", detail=_tried(attempt))
    told = any(attempt.ending == Ending.ACCEPTED for attempt in attempts)
    if row.sent_at is not None and row.state in ACCEPTED_STATES and not told:
        cost = f"; cost {row.cost_micro / 1_000_000:.4f} {settings.currency}" if row.cost_micro else ""
        parts = f"; {row.parts} SMS part(s)" if row.parts else ""
        known = f"; known there as {row.gateway_id}" if row.gateway_id else ""
        detail = f"by {row.lane}: {row.reply or 'no words'}{known}{parts}{cost}"
        yield Happening(at=row.sent_at, what="accepted", detail=detail)
    if row.state in (MessageState.SKIPPED, MessageState.FAILED) and row.ended_at is not None:
        # The last try has said already what was refused.
        words = "" if attempts and row.state == MessageState.FAILED else f": {row.reply}" if row.reply else ""
        yield Happening(at=row.ended_at, what=row.state, detail=f"{in_words(row.reason)}{words}")


def _tried(attempt: Row[Any]) -> str:
    # The words often begin with the stage and the code; what they hold already is not said again.
    code = f" {attempt.code}" if attempt.code and str(attempt.code) not in attempt.reply else ""
    words = f"{_TRIED[Ending(attempt.ending)]} by {attempt.lane}{code}: {attempt.reply or 'no words'}"
    if attempt.retry_at is not None:
        words += f"; next try {_at(attempt.retry_at)}"
    if attempt.claim_id is not None:
        words += f" (claim {attempt.claim_id})"
    return words + ("; told by the flight recorder of a dead worker" if attempt.recovered else "")


# --- came back -------------------------------------------------------------------------------------------------


def _coming_back(connection: Connection, row: Row[Any], address: str) -> Iterator[Happening]:
    for event in evidence.events_of(connection, row.id):
        yield Happening(at=event.at, what=event.kind, detail=event.detail)
    for touch in evidence.touches_of(connection, row.id):
        reasons = f" ({touch.reasons})" if touch.reasons else ""
        detail = f"{touch.verdict}{reasons} {touch.url or ''} from {touch.ip}, {touch.user_agent}"
        yield Happening(at=touch.at, what=touch.kind, detail=" ".join(detail.split()))
    for credit in evidence.conversions_of(connection, row.id):
        detail = f"{credit.kind} {credit.source_id}: {format_minor(credit.value_minor, credit.currency)}"
        yield Happening(at=credit.at, what="conversion", detail=detail)
    for word in evidence.suppression_words_of(connection, channel=row.channel, address=address):
        because = "" if word.message_id is None else "this message" if word.message_id == row.id else _other(word)
        detail = f"{address}: {word.reason} {word.action}" + (f" because of {because}" if because else "")
        yield Happening(at=word.at, what="suppression", detail=f"{detail}{_by(word)}")


def _other(word: Row[Any]) -> str:
    return f"message {word.message_id}"


def _by(word: Row[Any]) -> str:
    until = f" until {_at(word.expires_at)}" if word.expires_at else ""
    return until + (f", said by {word.said_by}" if word.said_by else "")


# --- now -------------------------------------------------------------------------------------------------------


def _standing(connection: Connection, row: Row[Any], settings: Settings, spec: CampaignSpec, now: datetime) -> str:
    """Return how it stands and what comes next."""
    if row.state == MessageState.PLANNED:
        return "; ".join(_waiting(connection, row, settings, spec, now))
    if row.state in (MessageState.CLAIMED, MessageState.SENDING):
        out = "may be out" if row.sending_at else "nothing has left yet"
        late = ", and the lease is over: whoever recovers it settles it" if row.lease_until <= now else ""
        return f"in the hands of a worker on {row.host} since {_at(row.claimed_at)}; {out}{late}"
    if row.state == MessageState.IN_DOUBT:
        return (
            f"may or may not have been sent; `carillon ledger doubts` tells what settles it (sent again {row.resends}×)"
        )
    if row.state in (MessageState.SKIPPED, MessageState.HELD_OUT, MessageState.FAILED):
        held_out = row.state == MessageState.HELD_OUT
        why = "held out, so that lift can be measured" if held_out else in_words(row.reason)
        return f"not sent, and will not be ({why})"
    return {
        MessageState.SENT: "sent: the gateway took it over; nothing has come back so far that changes that",
        MessageState.DELIVERED: "delivered",
        MessageState.BOUNCED: "sent, and came back",
        MessageState.COMPLAINED: "sent, and the person called it spam",
    }[MessageState(row.state)]


def _waiting(
    connection: Connection, row: Row[Any], settings: Settings, spec: CampaignSpec, now: datetime
) -> Iterator[str]:
    """Yield what a planned message waits for."""
    if row.due_at >= NOT_YET:
        yield "it waits until the canary of its run has been looked at"
    else:
        yield f"due {_at(row.due_at)}" if row.due_at > now else f"due since {_at(row.due_at)}"
    if row.attempts:
        yield f"put off {row.attempts} time(s)"
    if row.resends:
        yield f"to be sent again, {row.resends} time(s) so far"
    held = row.campaign_state != CampaignState.ACTIVE
    if held:
        why = f": {row.state_reason}" if row.state_reason else ""
        yield f"the campaign is {row.campaign_state}{why}"
    if row.closed_until is not None and row.closed_until > now:
        held = True
        yield f"the gateway {row.lane} is closed until {_at(row.closed_until)}: {row.lane_reason}"
    if row.held:
        held = True
        yield f"the gateway {row.lane} is closed until `carillon lanes open {row.lane}`: {row.lane_reason}"
    if row.lane not in settings.gateways:
        held = True
        yield f"carillon.yaml has no gateway {row.lane!r} any more"
    for words in holding(connection, settings, row, now=now):
        held = True
        yield words
    verdict = check(connection, [row.id], now=now)[row.id]
    if isinstance(verdict, Skip):
        yield f"as things stand it will be skipped ({in_words(verdict.reason)})"
    elif not isinstance(verdict, Go):
        yield f"may leave from {_at(verdict.until)}"
    elif row.due_at <= now and not held:
        rates = " and ".join(rates_of(settings, spec, row.lane, row.channel))
        yield f"it waits for its turn: {rates}" if rates else "nothing holds it back but a free worker"


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
