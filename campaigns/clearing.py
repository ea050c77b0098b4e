"""The last look at a claimed chunk: one query tells what is known of every recipient, and most may simply leave.

Whoever has nothing special about him (an address of his own, consent, no suppression, no cap, no condition) is cleared
here in few steps; everybody else is judged by `campaigns.eligibility`. Both follow the rules of `campaigns.judging`,
and a test lets them judge the same people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, and_, case, exists, func, or_, select, type_coerce

from campaigns.calendar import Window, earliest_send, zone_named
from campaigns.eligibility import check
from campaigns.judging import Go, Verdict, Wait, limits_of, valid_address
from campaigns.schema import CampaignSpec
from kernel.clock import to_ms
from kernel.quantities import parse_duration
from kernel.vocabulary import CampaignState, Channel, ConsentStatus, RunState
from store.ingest.bulk import among
from store.standing import standing
from store.tables import campaigns, consents, contacts, messages, runs, suppressions
from templates.context import PERSON_COLUMNS, person_columns, with_account

_GO = Go()


class Recipient(NamedTuple):
    """A claimed message's verdict, and its recipient's `templates.context.person_columns` where it may leave."""

    message_id: int
    verdict: Verdict
    person: Sequence[Any]


def clear(
    connection: Connection, claim_id: int, specs: Mapping[int, CampaignSpec], *, now: datetime
) -> dict[int, Recipient]:
    """Return for each message of a claim whether it may leave now, by its id.

    Call this after the claim is committed: that is what makes two workers see each other.

    Args:
        connection: Reads only; two queries where everybody is cleared here.
        claim_id: The claim.
        specs: The spec of every run the claim has messages of, by the run's id.
        now: The present instant, best on the database's clock.
    """
    cancelled = _cancelled(connection, list(specs))
    rules = _Rules(specs, now)
    found: dict[int, Recipient] = {}
    doubtful: list[int] = []
    for row in connection.execute(_recipients(claim_id, now)):
        message_id, run_id, step, channel, planned_ms, consent, suppressed, shared = row[PERSON_COLUMNS:]
        person = row[:PERSON_COLUMNS]
        verdict: Verdict | None = None
        if consent == ConsentStatus.GRANTED and not suppressed and not shared and run_id not in cancelled:
            address = person[2] if channel == Channel.EMAIL else person[3]
            if address and valid_address(channel, address):
                verdict = rules.of(run_id, step, channel, planned_ms, person[8] or person[13])
        if verdict is None:
            doubtful.append(message_id)
        found[message_id] = Recipient(message_id, verdict or _GO, person)
    if doubtful:
        for message_id, judged in check(connection, doubtful, now=now).items():
            found[message_id] = found[message_id]._replace(verdict=judged)
    return found


class _Rules:
    """What a step's rules say of people with nothing special about them; each asked once for a chunk."""

    def __init__(self, specs: Mapping[int, CampaignSpec], now: datetime) -> None:
        self._specs = specs
        self._now = now
        self._now_ms = to_ms(now)
        self._steps: dict[tuple[int, int], tuple[int, bool, Window, str]] = {}
        self._zones: dict[tuple[int, int, str | None], Verdict] = {}

    def of(self, run_id: int, step: int, channel: str, planned_ms: int, zone: str | None) -> Verdict | None:
        """Return the verdict, or None where more must be known of the person."""
        known = self._steps.get((run_id, step))
        if known is None:
            known = self._steps[run_id, step] = self._read(self._specs[run_id], step, channel)
        max_age_ms, plain, window, default_zone = known
        if not plain or planned_ms + max_age_ms < self._now_ms:
            return None
        if window.always:
            return _GO
        if zone is None and channel == Channel.SMS:
            return None  # A number may tell where its owner is.
        verdict = self._zones.get((run_id, step, zone))
        if verdict is None:
            verdict = self._zones[run_id, step, zone] = self._window(window, zone, default_zone)
        return verdict

    def _read(self, spec: CampaignSpec, step: int, channel: str) -> tuple[int, bool, Window, str]:
        limits = limits_of(spec)
        capped = any(cap.channel == channel for cap in limits.caps)
        plain = not capped and not spec.steps[step - 1].skip_if
        max_age_ms = round(parse_duration(limits.max_age).total_seconds() * 1000)
        return max_age_ms, plain, Window.of(spec.window_of(step)), spec.schedule.default_zone or "UTC"

    def _window(self, window: Window, zone: str | None, default_zone: str) -> Verdict:
        opens_at = earliest_send(self._now, zone_named(zone, default_zone), window).astimezone(UTC)
        return Wait(opens_at) if opens_at > self._now else _GO


def _cancelled(connection: Connection, run_ids: list[int]) -> set[int]:
    query = (
        select(runs.c.id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .where(
            among(connection, runs.c.id, run_ids),
            or_(campaigns.c.state == CampaignState.CANCELLED, runs.c.state == RunState.CANCELLED),
        )
    )
    return set(connection.execute(query).scalars())


def _recipients(claim_id: int, now: datetime) -> Select[Any]:
    """Return the claim's messages with everything that is asked of their recipients."""
    address = case((messages.c.channel == Channel.EMAIL.value, func.lower(contacts.c.email)), else_=contacts.c.phone)
    namesake = contacts.alias("namesake")
    same_mailbox = exists().where(
        func.lower(namesake.c.email) == func.lower(contacts.c.email), namesake.c.id != contacts.c.id
    )
    same_phone = exists().where(namesake.c.phone == contacts.c.phone, namesake.c.id != contacts.c.id)
    held = select(suppressions.c.address).where(
        suppressions.c.channel == messages.c.channel, suppressions.c.address == address, standing(now)
    )
    suppressed = held.correlate(messages, contacts).exists()
    source = with_account(messages.outerjoin(contacts, contacts.c.id == messages.c.contact_id))
    return (
        select(
            *person_columns(),
            messages.c.id.label("message_id"),
            messages.c.run_id,
            messages.c.step,
            messages.c.channel,
            type_coerce(messages.c.planned_for, BigInteger).label("planned_ms"),
            consents.c.status,
            suppressed.label("suppressed"),
            case((messages.c.channel == Channel.EMAIL.value, same_mailbox), else_=same_phone).label("shared"),
        )
        .select_from(source)
        .outerjoin(
            consents,
            and_(consents.c.contact_id == messages.c.contact_id, consents.c.channel == messages.c.channel),
        )
        .outerjoin(suppressions, and_(suppressions.c.channel == messages.c.channel, suppressions.c.address == address))
        .where(messages.c.claim_id == claim_id)
    )
