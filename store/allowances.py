"""Quotas and budgets that no number of workers can overspend, whichever of them dies.

A chunk takes what it needs in the transaction that marks it `sending`, and gives back what was not sent in the
transaction that writes its outcomes. The reservation names the claim, so that whoever settles the claim after a kill
settles the reservation with it: nothing is spent twice, nothing leaks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Connection, delete, select, type_coerce, update

from kernel.clock import to_ms
from store.sql import insert_into
from store.tables import allowances, reservations


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What may be used within a period. Units are messages, or millionths of the currency.

    `renews_at` is when the next period begins; None: there is none.
    """

    key: str
    limit: int
    reason: str
    renews_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The allowance that has too little left for a message. `may_change`: others have taken what they may give back."""

    allowance: Allowance
    may_change: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What one message would take of each allowance, by key."""

    message_id: int
    units: Mapping[str, int]


def reserve(
    connection: Connection, claim_id: int, wants: Sequence[Want], limits: Mapping[str, Allowance], *, now: datetime
) -> dict[int, Refusal]:
    """Take what the messages need, in their order; a message takes all it needs or nothing.

    Args:
        connection: In the transaction that marks the chunk `sending`; the allowances stay locked until it ends.
        claim_id: The chunk's claim.
        wants: The messages.
        limits: Every allowance that the messages name.
        now: The present instant; what expired before is forgotten.

    Returns:
        For each message that must wait, why.
    """
    keys = sorted({key for want in wants for key in want.units})
    if not keys:
        return {}
    left = {key: limits[key].limit - used for key, used in _used(connection, keys, limits, now).items()}
    taken: dict[str, dict[str, int]] = {key: {} for key in keys}
    refused: dict[int, Allowance] = {}
    for want in wants:
        short = next((key for key, units in want.units.items() if units > left[key]), None)
        if short is not None:
            refused[want.message_id] = limits[short]
            continue
        for key, units in want.units.items():
            left[key] -= units
            taken[key][str(want.message_id)] = units
    for key, units_by_message in taken.items():
        if units_by_message:
            _change(connection, key, sum(units_by_message.values()))
            connection.execute(reservations.insert().values(claim_id=claim_id, key=key, units=units_by_message))
    unsettled = _unsettled(connection, claim_id, {one.key for one in refused.values()})
    return {message_id: Refusal(allowance=one, may_change=one.key in unsettled) for message_id, one in refused.items()}


def settle(connection: Connection, claim_id: int, spent: Mapping[int, bool]) -> None:
    """Give back what a claim's messages took and did not spend; True: it was spent, or may have been.

    May be called again for other messages of the claim; a message is settled once.
    """
    rows = connection.execute(
        select(reservations.c.key, reservations.c.units)
        .where(reservations.c.claim_id == claim_id)
        .order_by(reservations.c.key)
    ).all()
    for key, units in rows:
        settled = {message_id: spent[int(message_id)] for message_id in units if int(message_id) in spent}
        unspent = sum(units[message_id] for message_id, was_spent in settled.items() if not was_spent)
        if unspent:
            _change(connection, key, -unspent)
        open_units = {message_id: count for message_id, count in units.items() if message_id not in settled}
        mine = (reservations.c.claim_id == claim_id) & (reservations.c.key == key)
        if open_units:
            connection.execute(update(reservations).where(mine).values(units=open_units))
        else:
            connection.execute(delete(reservations).where(mine))


def used_of(connection: Connection, keys: Collection[str]) -> dict[str, int]:
    """Return what is used of allowances; those nobody has used yet are left out. Locks nothing."""
    rows = connection.execute(select(allowances).where(allowances.c.key.in_(sorted(keys))))
    return {row.key: row.used for row in rows}


def _unsettled(connection: Connection, claim_id: int, keys: Collection[str]) -> set[str]:
    """Return of which allowances other chunks under way have taken something."""
    if not keys:
        return set()
    others = select(reservations.c.key).where(reservations.c.key.in_(sorted(keys)), reservations.c.claim_id != claim_id)
    return set(connection.execute(others.distinct()).scalars())


def _used(
    connection: Connection, keys: Sequence[str], limits: Mapping[str, Allowance], now: datetime
) -> dict[str, int]:
    """Return what is used of each allowance, locked in the order of the keys, so that nobody waits for each other."""
    query = (
        select(allowances.c.key, allowances.c.used)
        .where(allowances.c.key.in_(keys))
        .order_by(allowances.c.key)
        .with_for_update()
    )
    found = {row.key: row.used for row in connection.execute(query)}
    missing = [key for key in keys if key not in found]
    if not missing:
        return found
    connection.execute(delete(allowances).where(type_coerce(allowances.c.expires_at, BigInteger) <= to_ms(now)))
    for key in missing:
        first = {"key": key, "used": 0, "expires_at": limits[key].renews_at}
        connection.execute(insert_into(connection, allowances).values(first).on_conflict_do_nothing())
    return {row.key: row.used for row in connection.execute(query)}


def _change(connection: Connection, key: str, units: int) -> None:
    connection.execute(update(allowances).where(allowances.c.key == key).values(used=allowances.c.used + units))
