"""Who is in a run: the audience as one set-based query over the pinned segments, into a temporary table.

Firing and planning fill the same table by the same code; only what they copy it into differs. A temporary table
belongs to one connection: filling it writes nothing anybody else could see, and takes no write lock on SQLite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)

from campaigns.canary import canary_wait, waits_for_canary
from campaigns.lots import lot
from campaigns.placing import place
from campaigns.routing import PURPOSE, lanes_of
from campaigns.versions import PinnedCampaign
from kernel.settings import Settings
from kernel.vocabulary import Channel, ConsentStatus, SkipReason, Subject
from segments.compiler import members
from store.ingest.bulk import insert_rows
from store.standing import standing
from store.tables import accounts, consents, contacts, profiles, suppressions
from store.types import Id

_temporary = MetaData()
audience = Table(
    "carillon_audience",
    _temporary,
    Column("contact_id", Id, primary_key=True),
    Column("account_id", Id),
    Column("segment", Text, nullable=False),
    Column("rfm_segment", Text),
    Column("zone", Text, nullable=False),
    Column("skip_reason", Text),
    Column("held_out", Boolean, nullable=False),
    Column("lot", Integer, nullable=False),
    Column("waits", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
)
drawn = Table("carillon_drawn", _temporary, Column("id", Id, primary_key=True), prefixes=["TEMPORARY"])
pieces = Table(
    "carillon_pieces",
    _temporary,
    Column("zone", Text, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("until", Integer, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("interval_ms", Float, nullable=False),
    Column("channel", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("lot_from", Integer, primary_key=True),
    Column("lot_until", Integer, nullable=False),
    Column("canary_ms", BigInteger, nullable=False),
    prefixes=["TEMPORARY"],
)


def expand(
    connection: Connection, pinned: PinnedCampaign, settings: Settings, *, scheduled_for: datetime, now: datetime
) -> None:
    """Fill the temporary tables with a run's audience and its due times; the caller copies and then drops them.

    Segments are evaluated as of `now` from the pinned definitions; of the settings only currency and routes count.
    """
    currency = settings.currency
    drop(connection)
    _temporary.create_all(connection, checkfirst=False)
    routed = any(step.gateway in settings.routes for step in pinned.spec.steps)
    chosen = _chosen(pinned, scheduled_for, routed=routed, as_of=now, currency=currency)
    connection.execute(audience.insert().from_select(_COLUMNS, chosen))
    _hold_out(connection, pinned)
    counts = {row.zone: row.planned for row in connection.execute(_zones())}
    found = place(pinned.spec, counts, scheduled_for=scheduled_for, now=now)
    steps = pinned.spec.steps
    canary_ms = round(canary_wait(pinned.spec).total_seconds() * 1000)
    rows = [
        {
            "zone": piece.zone,
            "step": piece.step,
            "first": piece.first,
            "until": piece.until,
            "start_ms": piece.start_ms,
            "interval_ms": piece.interval_ms,
            "channel": steps[piece.step - 1].channel,
            "lane": lane,
            "lot_from": lot_from,
            "lot_until": lot_until,
            "canary_ms": canary_ms,
        }
        for piece in found
        for lane, lot_from, lot_until in lanes_of(steps[piece.step - 1].gateway or "", settings.routes)
    ]
    if rows:
        connection.execute(pieces.insert(), rows)


def drop(connection: Connection) -> None:
    """Drop the temporary tables where they exist."""
    for table in (audience, drawn, pieces):
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table.name}")


def places() -> Select[Any]:
    """Return every place of the run: contact × step, with channel, lane, skip_reason, held_out and due_ms."""
    sends = and_(audience.c.skip_reason.is_(None), ~audience.c.held_out)
    number = func.row_number().over(
        partition_by=(audience.c.zone, case((sends, 1), else_=0)),
        # A canary goes ahead of the rest, also where a rate spreads them all.
        order_by=(audience.c.waits, audience.c.contact_id),
    )
    numbered = select(audience, case((sends, number - 1), else_=0).label("number")).subquery("numbered")
    due = pieces.c.start_ms + func.round((numbered.c.number - pieces.c.first) * pieces.c.interval_ms)
    due = due + case((numbered.c.waits, pieces.c.canary_ms), else_=0)
    return select(
        numbered.c.contact_id,
        numbered.c.account_id,
        numbered.c.skip_reason,
        numbered.c.held_out,
        numbered.c.waits,
        numbered.c.zone,
        pieces.c.step,
        pieces.c.channel,
        pieces.c.lane,
        due.cast(BigInteger).label("due_ms"),
    ).join(
        pieces,
        and_(
            pieces.c.zone == numbered.c.zone,
            numbered.c.number >= pieces.c.first,
            numbered.c.number < pieces.c.until,
            numbered.c.lot >= pieces.c.lot_from,
            numbered.c.lot < pieces.c.lot_until,
        ),
    )


_COLUMNS = ["contact_id", "account_id", "segment", "rfm_segment", "zone", "skip_reason", "held_out", "lot", "waits"]


def _chosen(
    pinned: PinnedCampaign, scheduled_for: datetime, *, routed: bool, as_of: datetime, currency: str
) -> Select[Any]:
    """Return the rows of the audience table; nobody is held out yet."""
    spec = pinned.spec.audience
    base = _candidates(pinned, as_of=as_of, currency=currency)
    conditions = _excluded(pinned, base, as_of=as_of, currency=currency)
    excluded = case((or_(*conditions), 1), else_=0) if conditions else literal(0)
    marked = select(base, excluded.label("excluded")).subquery("marked")
    rank = func.row_number().over(
        partition_by=(marked.c.account_id, marked.c.excluded),
        # Who cannot be reached takes nobody's place.
        order_by=(marked.c.unreachable, marked.c.preference, marked.c.contact_id),
    )
    ranked = select(marked, rank.label("rank")).subquery("ranked")
    whens: list[tuple[ColumnElement[bool], Any]] = [(ranked.c.excluded == 1, literal(SkipReason.EXCLUDED.value))]
    if spec.per_account is not None:
        over = and_(ranked.c.account_id.is_not(None), ranked.c.rank > spec.per_account)
        whens.append((over, literal(SkipReason.ACCOUNT_LIMIT.value)))
    return select(
        ranked.c.contact_id,
        ranked.c.account_id,
        case(*[(ranked.c.position == number, name) for number, name in enumerate(spec.segment)]).label("segment"),
        ranked.c.rfm_segment,
        ranked.c.zone,
        case(*whens, else_=null()).label("skip_reason"),
        false().label("held_out"),
        (lot(ranked.c.contact_id, PURPOSE) if routed else literal(0)).label("lot"),
        waits_for_canary(pinned, ranked.c.contact_id, scheduled_for).label("waits"),
    )


def _candidates(pinned: PinnedCampaign, *, as_of: datetime, currency: str) -> Any:
    """Return contacts of the audience's segments and roles, each once, with what the rest needs of them."""
    spec = pinned.spec.audience
    parts = [
        select(_contacts_of(pinned, name, as_of, currency).label("contact_id"), literal(number).label("position"))
        for number, name in enumerate(spec.segment)
    ]
    # A segment has each of its members once.
    first = parts[0].subquery("first") if len(parts) == 1 else _firsts(union_all(*parts).subquery("found"))
    preference = (
        case(*[(contacts.c.role == role, number) for number, role in enumerate(spec.roles)], else_=len(spec.roles))
        if spec.roles
        else literal(0)
    )
    zone = func.coalesce(
        _named(contacts.c.timezone), _named(accounts.c.timezone), pinned.spec.schedule.default_zone or "UTC"
    )
    query = (
        select(
            contacts.c.id.label("contact_id"),
            contacts.c.account_id,
            first.c.position,
            preference.label("preference"),
            zone.label("zone"),
            profiles.c.rfm_segment,
            case((_reachable(pinned, as_of), 0), else_=1).label("unreachable"),
        )
        .join(first, first.c.contact_id == contacts.c.id)
        .join(accounts, accounts.c.id == contacts.c.account_id, isouter=True)
        .join(
            profiles,
            and_(profiles.c.subject == Subject.ACCOUNT, profiles.c.subject_id == contacts.c.account_id),
            isouter=True,
        )
    )
    if spec.roles:
        query = query.where(contacts.c.role.in_(spec.roles))
    return query.subquery("candidates")


def _firsts(found: Any) -> Any:
    """Return each contact once, with the first of the segments it was found in."""
    firsts = select(found.c.contact_id, func.min(found.c.position).label("position"))
    return firsts.group_by(found.c.contact_id).subquery("first")


def _reachable(pinned: PinnedCampaign, now: datetime) -> ColumnElement[bool]:
    """Return whether a contact has address and consent for a channel of the steps, and is not suppressed on it.

    Asked again of everybody when messages are claimed; here it only decides who speaks for an account.
    """
    by_channel = {
        Channel.EMAIL: (_named(contacts.c.email), func.lower(contacts.c.email)),
        Channel.SMS: (_named(contacts.c.phone), contacts.c.phone),
    }
    ways = []
    for channel in sorted({step.channel for step in pinned.spec.steps}):
        address, comparable = by_channel[channel]
        consented = exists().where(
            consents.c.contact_id == contacts.c.id,
            consents.c.channel == channel.value,
            consents.c.status == ConsentStatus.GRANTED.value,
        )
        suppressed = exists().where(
            suppressions.c.channel == channel.value, suppressions.c.address == comparable, standing(now)
        )
        ways.append(and_(address.is_not(None), consented, ~suppressed))
    return or_(*ways)


def _named(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.nullif(column, "")


def _contacts_of(pinned: PinnedCampaign, name: str, as_of: datetime, currency: str) -> Any:
    chosen = members(pinned.segments, name, as_of=as_of, currency=currency).subquery()
    if pinned.segments[name].subject == Subject.CONTACT:
        return chosen.c.id
    return select(contacts.c.id).join(chosen, chosen.c.id == contacts.c.account_id).subquery().c.id


def _excluded(pinned: PinnedCampaign, base: Any, *, as_of: datetime, currency: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for name in pinned.spec.audience.exclude:
        chosen = members(pinned.segments, name, as_of=as_of, currency=currency).subquery()
        key = base.c.contact_id if pinned.segments[name].subject == Subject.CONTACT else base.c.account_id
        # coalesce: a contact without account is in no account segment, and NULL IN (…) is neither true nor false.
        conditions.append(func.coalesce(key.in_(select(chosen.c.id)), false()))
    return conditions


def _zones() -> Select[Any]:
    sends = and_(audience.c.skip_reason.is_(None), ~audience.c.held_out)
    return select(audience.c.zone, func.sum(case((sends, 1), else_=0)).label("planned")).group_by(audience.c.zone)


# --- holdout -----------------------------------------------------------------------------------------------


def held_out(campaign: str, key: str, share: float) -> bool:
    """Return whether the account (or the contact without one) of an external id is held out.

    A pure function of both names, so it is the same in every run and on every machine; a larger share holds out
    all that a smaller one does.
    """
    bucket = int.from_bytes(hashlib.sha256(f"{campaign}|{key}".encode()).digest()[:8], "big") % 10_000
    return bucket < round(share * 10_000)


def _hold_out(connection: Connection, pinned: PinnedCampaign) -> None:
    share = pinned.spec.audience.holdout_share
    if share == 0:
        return
    sends = audience.c.skip_reason.is_(None)
    by_account = select(accounts.c.id, accounts.c.external_id).where(
        accounts.c.id.in_(select(audience.c.account_id).where(sends))
    )
    alone = (
        select(contacts.c.id, contacts.c.external_id)
        .join(audience, audience.c.contact_id == contacts.c.id)
        .where(audience.c.account_id.is_(None), sends)
    )
    _mark(connection, audience.c.account_id, _drawn(connection, by_account, pinned.name, share))
    _mark(connection, audience.c.contact_id, _drawn(connection, alone, pinned.name, share))


def _drawn(connection: Connection, query: Select[Any], campaign: str, share: float) -> list[int]:
    return [row_id for row_id, external_id in connection.execute(query) if held_out(campaign, external_id, share)]


def _mark(connection: Connection, column: ColumnElement[Any], ids: Sequence[int]) -> None:
    """Mark by way of a table of ids: a statement for each few of them would read the whole audience each time."""
    if not ids:
        return
    insert_rows(connection, drawn, ("id",), [(row_id,) for row_id in ids])
    chosen = column.in_(select(drawn.c.id))
    connection.execute(update(audience).where(chosen, audience.c.skip_reason.is_(None)).values(held_out=true()))
    connection.execute(delete(drawn))
