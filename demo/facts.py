"""What the demo reads from Carillon's database: whom to play, what is still under way, and lift."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, Engine, and_, func, or_, select, type_coerce

from demo.behaviour import Person
from kernel.clock import to_ms
from kernel.vocabulary import ACCEPTED_STATES, MessageState, OrderKind, Subject
from store.engine import reading
from store.tables import accounts, campaigns, contacts, enrollments, inbox, messages, orders, profiles, runs


def people(engine: Engine) -> dict[str, Person]:
    """Return everybody who can be reached, by e-mail address and by telephone number."""
    query = (
        select(
            contacts.c.email,
            contacts.c.phone,
            contacts.c.external_id,
            accounts.c.external_id.label("account"),
            profiles.c.rfm_segment,
            profiles.c.monetary_minor,
            profiles.c.frequency,
        )
        .join(accounts, accounts.c.id == contacts.c.account_id)
        .join(
            profiles,
            and_(profiles.c.subject == Subject.ACCOUNT, profiles.c.subject_id == accounts.c.id),
            isouter=True,
        )
    )
    found: dict[str, Person] = {}
    with reading(engine) as connection:
        for row in connection.execute(query):
            usual = row.monetary_minor / 100 / row.frequency if row.frequency else 120.0
            for address in filter(None, (row.email, row.phone)):
                found[address] = Person(
                    address=address,
                    account_code=row.account,
                    contact_code=row.external_id,
                    group=row.rfm_segment or "",
                    usual_order=max(usual, 25.0),
                )
    return found


def enrolled_accounts(engine: Engine) -> set[str]:
    """Return the shop's numbers of all accounts that a run has enrolled or held out."""
    query = select(accounts.c.external_id).join(enrollments, enrollments.c.account_id == accounts.c.id).distinct()
    with reading(engine) as connection:
        return set(connection.execute(query).scalars())


def fired(engine: Engine) -> set[str]:
    """Return the names of the campaigns that have a run."""
    query = select(campaigns.c.name).join(runs, runs.c.campaign_id == campaigns.c.id).distinct()
    with reading(engine) as connection:
        return set(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """Messages that are due now, due soon, and due later; accepted ones; reports not yet read."""

    due: int
    soon: int
    later: int
    accepted: int
    inbox: int


def under_way(engine: Engine, *, now: datetime, soon: timedelta) -> UnderWay:
    """Return how much is due, waits for its time, has been accepted, and lies unread in the inbox."""
    busy = messages.c.state.in_([MessageState.CLAIMED, MessageState.SENDING])
    planned = messages.c.state == MessageState.PLANNED
    due_ms = type_coerce(messages.c.due_at, BigInteger)
    now_ms, soon_ms = to_ms(now), to_ms(now + soon)
    with reading(engine) as connection:

        def count(*conditions: ColumnElement[bool]) -> int:
            query = select(func.count()).select_from(messages).where(*conditions)
            return int(connection.execute(query).scalar_one())

        unread = select(func.count()).select_from(inbox).where(inbox.c.state == "new")
        return UnderWay(
            due=count(or_(busy, and_(planned, due_ms <= now_ms))),
            soon=count(planned, due_ms > now_ms, due_ms <= soon_ms),
            later=count(planned, due_ms > soon_ms),
            accepted=count(messages.c.state.in_(ACCEPTED_STATES)),
            inbox=int(connection.execute(unread).scalar_one()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """Accounts that ordered since a campaign fired: those written to, and those held out."""

    campaign: str
    written_to: int
    ordered: int
    held_out: int
    held_out_ordered: int


def lifts(engine: Engine) -> list[Lift]:
    """Return, for each campaign with held-out accounts, who ordered since it fired. Shares differ by chance too."""
    ordered = (
        select(orders.c.id)
        .where(
            orders.c.account_id == enrollments.c.account_id,
            orders.c.kind == OrderKind.ORDER,
            type_coerce(orders.c.ordered_at, BigInteger) >= type_coerce(runs.c.fired_at, BigInteger),
        )
        .correlate(enrollments, runs)
        .exists()
    )
    written_to = (
        select(messages.c.id)
        .where(messages.c.enrollment_id == enrollments.c.id, messages.c.state.in_(ACCEPTED_STATES))
        .correlate(enrollments)
        .exists()
    )
    query = (
        select(campaigns.c.name, enrollments.c.account_id, enrollments.c.held_out, ordered.label("ordered"))
        .join(runs, runs.c.campaign_id == campaigns.c.id)
        .join(enrollments, enrollments.c.run_id == runs.c.id)
        .where(or_(enrollments.c.held_out, written_to))
        .distinct()
    )
    counts: dict[str, Counter[tuple[bool, bool]]] = {}
    with reading(engine) as connection:
        for row in connection.execute(query):
            counts.setdefault(row.name, Counter())[bool(row.held_out), bool(row.ordered)] += 1
    return [
        Lift(
            campaign=name,
            written_to=count[False, False] + count[False, True],
            ordered=count[False, True],
            held_out=count[True, False] + count[True, True],
            held_out_ordered=count[True, True],
        )
        for name, count in sorted(counts.items())
        if count[True, False] + count[True, True]
    ]
