"""The last look at a claimed chunk: one query tells what is known of every recipient, and most may simply leave.

Whoever has nothing special about him (an address of his own, consent, no suppression, no cap, no condition) is cleared
here in few steps; everybody else is judged by `campaigns.eligibility`. Both follow the rules of `campaigns.judging`,
and a test lets them judge the same people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, exists, func, or_, select

from campaigns.calendar import Window, earliest_send, zone_named
from campaigns.eligibility import check
from campaigns.judging import Go, Verdict, Wait, limits_of, valid_address
from campaigns.schema import CampaignSpec
from kernel.clock import to_ms
from kernel.quantities import parse_duration
from kernel.vocabulary import CampaignState, Channel, ConsentStatus, RunState
from store.ingest.bulk import among, among_given
from store.ledger import ClaimedMessage
from store.standing import standing
from store.tables import campaigns, consents, contacts, runs, suppressions
from store.types import Instant
from templates.context import PERSON_COLUMNS, person_columns, with_account

_GO = Go()


class Recipient(NamedTuple):
    """A claimed message's verdict, and its recipient's `templates.context.person_columns` where it may leave."""

    verdict: Verdict
    person: Sequence[Any]


def clear(
    connection: Connection, claimed: Sequence[ClaimedMessage], specs: Mapping[int, CampaignSpec], *, now: datetime
) -> dict[int, Recipient]:
    """Return for each message of a claim whether it may leave now, by its id.

    Call this after the claim is committed: that is what makes two workers see each other.

    Args:
        connection: Reads only; two queries where everybody is cleared here, one more for a second channel.
        claimed: The messages.
        specs: The spec of every run the claim has messages of, by the run's id.
        now: The present instant, best on the database's clock.
    """
    cancelled = _cancelled(connection, list(specs))
    rules = _Rules(specs, now)
    found: dict[int, Recipient] = {}
    doubtful: list[int] = []
    for channel in map(Channel, {message.channel for message in claimed}):
        mine = [message for message in claimed if message.channel == channel]
        people = _people(connection, channel, mine, now)
        address_at = 2 if channel is Channel.EMAIL else 3
        for message in mine:
            person = people.get(message.contact_id, _NOBODY)
            verdict: Verdict | None = None
            address = person[address_at]
            if person[_CLEAR] and message.run_id not in cancelled and valid_address(channel, address):
                verdict = rules.of(message, person[8] or person[13])
            if verdict is None:
                doubtful.append(message.id)
                verdict = _GO
            found[message.id] = Recipient(verdict, person)
    if doubtful:
        for message_id, judged in check(connection, doubtful, now=now).items():
            found[message_id] = found[message_id]._replace(verdict=judged)
    return found


_CLEAR = PERSON_COLUMNS
"""Where a row says that there is an address, consent, no suppression and nobody else at the address."""
_NOBODY: Sequence[Any] = (None,) * (PERSON_COLUMNS + 1)


class _Rules:
    """What a step's rules say of people with nothing special about them; each asked once for a chunk."""

    def __init__(self, specs: Mapping[int, CampaignSpec], now: datetime) -> None:
        self._specs = specs
        self._now = now
        self._now_ms = to_ms(now)
        self._steps: dict[tuple[int, int], tuple[int, bool, Window | None, str]] = {}
        self._zones: dict[tuple[int, int, str | None], Verdict] = {}

    def of(self, message: ClaimedMessage, zone: str | None) -> Verdict | None:
        """Return the verdict, or None where more must be known of the person."""
        run_id, step = message.run_id, message.step
        known = self._steps.get((run_id, step))
        if known is None:
            known = self._steps[run_id, step] = self._read(self._specs[run_id], step, message.channel)
        oldest_ms, plain, window, default_zone = known
        if not plain or message.planned_ms < oldest_ms:
            return None
        if window is None:
            return _GO
        if zone is None and message.channel == Channel.SMS:
            return None  # A number may tell where its owner is.
        verdict = self._zones.get((run_id, step, zone))
        if verdict is None:
            verdict = self._zones[run_id, step, zone] = self._window(window, zone, default_zone)
        return verdict

    def _read(self, spec: CampaignSpec, step: int, channel: str) -> tuple[int, bool, Window | None, str]:
        """Return from when on messages are young enough, whether that is all to know, and the window if it closes."""
        limits = limits_of(spec)
        capped = any(cap.channel == channel for cap in limits.caps)
        plain = not capped and not spec.steps[step - 1].skip_if
        oldest_ms = self._now_ms - round(parse_duration(limits.max_age).total_seconds() * 1000)
        window = Window.of(spec.window_of(step))
        return oldest_ms, plain, None if window.always else window, spec.schedule.default_zone or "UTC"

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


def _people(
    connection: Connection, channel: Channel, mine: Sequence[ClaimedMessage], now: datetime
) -> dict[int, Sequence[Any]]:
    """Return, by contact, `person_columns` and whether nothing is known that speaks against writing to the person."""
    ids = sorted({message.contact_id for message in mine})
    asked = {"channel": channel.value, "now": now, "contact_ids": ids}
    return {row[0]: row for row in connection.execute(_PEOPLE[channel], asked).all()}


def _people_query(channel: Channel) -> Select[Any]:
    email = channel is Channel.EMAIL
    namesake = contacts.alias("namesake")
    address: ColumnElement[Any] = func.lower(contacts.c.email) if email else contacts.c.phone
    theirs: ColumnElement[Any] = func.lower(namesake.c.email) if email else namesake.c.phone
    suppressed = exists().where(
        suppressions.c.channel == bindparam("channel"),
        suppressions.c.address == address,
        standing(bindparam("now", type_=Instant)),
    )
    shared = exists().where(theirs == address, namesake.c.id != contacts.c.id)
    clear = and_(func.coalesce(address, "") != "", consents.c.status == ConsentStatus.GRANTED, ~suppressed, ~shared)
    source = with_account(contacts).outerjoin(
        consents, and_(consents.c.contact_id == contacts.c.id, consents.c.channel == bindparam("channel"))
    )
    wanted = among_given(contacts.c.id, "contact_ids")
    return select(*person_columns(), clear.label("clear")).select_from(source).where(wanted)


_PEOPLE = {channel: _people_query(channel) for channel in Channel}
