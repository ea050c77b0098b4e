"""Promises 1 to 3: nobody is lost, nobody is sent to twice, few are in doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import BigInteger, Connection, and_, exists, func, or_, select, type_coerce

from campaigns.versions import load_specs
from kernel.settings import Workspace
from kernel.vocabulary import ACCEPTED_STATES, PENDING_STATES, MessageEventKind, MessageState, TouchKind
from store.ledger import Ending
from store.states import is_pending, is_planned
from store.tables import (
    accounts,
    claims,
    contacts,
    enrollments,
    message_attempts,
    message_events,
    messages,
    runs,
    touches,
)
from store.types import database_now
from workers.audit.findings import Finding, Note, breach

_NEVER_SENT = (MessageState.PLANNED, MessageState.FAILED, MessageState.SKIPPED, MessageState.HELD_OUT)
_PROOF = (
    MessageEventKind.DELIVERED,
    MessageEventKind.BOUNCED,
    MessageEventKind.UNDELIVERED,
    MessageEventKind.COMPLAINED,
)
"""Events that only a message somebody took over can have. A soft bounce is noted of a message refused at once, too."""
_FORSAKEN_AFTER = timedelta(hours=2)
"""A claim is taken over at the latest one hour after its lease, by any host; after two nobody is there to do so."""
_OURS = "a fault of Carillon's own: keep the database and tell its makers"


def nobody_lost(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    """Every enrollment has one row for each step, in a state that will end or has ended with a reason."""
    yield from _missing_places(connection)
    yield from _strangers(connection)
    ended = messages.c.state.in_((MessageState.SKIPPED, MessageState.FAILED))
    unexplained = select(messages.c.id).where(ended, messages.c.reason.is_(None)).order_by(messages.c.id)
    yield from breach(connection.execute(unexplained).scalars(), "{n} ended without a reason", _OURS)
    held = messages.c.state.in_((MessageState.CLAIMED, MessageState.SENDING))
    orphaned = select(messages.c.id).where(held, ~exists().where(claims.c.id == messages.c.claim_id))
    yield from breach(connection.execute(orphaned).scalars(), "{n} are claimed by a claim that is gone", _OURS)
    overlooked = select(messages.c.id).where(messages.c.state.in_(PENDING_STATES), messages.c.ended_at.is_not(None))
    yield from breach(
        connection.execute(overlooked).scalars(), "{n} are pending and have an end, so nobody sends them", _OURS
    )
    ended_run = exists().where(runs.c.id == messages.c.run_id, runs.c.finished_at.is_not(None))
    left_behind = select(messages.c.id).where(is_pending(), ended_run)
    yield from breach(
        connection.execute(left_behind).scalars(),
        "{n} are pending in a run that has ended, so nobody sends them",
        _OURS,
    )
    lease_ms = type_coerce(claims.c.lease_until, BigInteger)
    late_ms = round(_FORSAKEN_AFTER.total_seconds() * 1000)
    forsaken = connection.execute(
        select(messages.c.id, claims.c.host)
        .join(claims, claims.c.id == messages.c.claim_id)
        .where(lease_ms + late_ms < database_now())
    ).all()
    yield from breach(
        (row.id for row in forsaken),
        f"{{n}} are in the hands of workers long gone (on {', '.join(sorted({row.host for row in forsaken}))})",
        "start a scheduler or a worker: it settles what they left",
    )
    yield from _without_gateway(connection, workspace)


def _missing_places(connection: Connection) -> Iterator[Finding]:
    people = select(enrollments.c.run_id, func.count().label("n")).group_by(enrollments.c.run_id).subquery()
    rows = connection.execute(
        select(runs.c.id, runs.c.version_id, people.c.n).join(people, people.c.run_id == runs.c.id)
    ).all()
    steps = {version: len(spec.steps) for version, spec in load_specs(connection, {r.version_id for r in rows}).items()}
    counted: Counter[tuple[int, int]] = Counter()
    query = select(messages.c.run_id, messages.c.step, func.count().label("n")).group_by(
        messages.c.run_id, messages.c.step
    )
    for found in connection.execute(query):
        counted[found.run_id, found.step] = found.n
    for run_id, step in sorted(counted.keys() - {(r.id, s) for r in rows for s in range(1, steps[r.version_id] + 1)}):
        strangers = select(messages.c.id).where(messages.c.run_id == run_id, messages.c.step == step)
        yield from breach(
            connection.execute(strangers.order_by(messages.c.id)).scalars(),
            f"run {run_id} has {{n}} messages of a step {step} that its campaign has not, or of nobody enrolled",
            _OURS,
        )
    for row in rows:
        for step in range(1, steps[row.version_id] + 1):
            if counted[row.id, step] != row.n:
                there = exists().where(
                    messages.c.run_id == row.id,
                    messages.c.step == step,
                    messages.c.contact_id == enrollments.c.contact_id,
                )
                lost = select(enrollments.c.contact_id).where(enrollments.c.run_id == row.id, ~there)
                yield from breach(
                    connection.execute(lost.order_by(enrollments.c.contact_id)).scalars(),
                    f"run {row.id}, step {step}: {{n}} contacts enrolled have no message (ids are of contacts)",
                    "rows of the ledger were removed: restore them from a backup",
                )


def _strangers(connection: Connection) -> Iterator[Finding]:
    """Find what refers to nothing: on PostgreSQL no foreign key looks at each new row (docs/decisions/0018)."""
    its_own = exists().where(
        enrollments.c.id == messages.c.enrollment_id,
        enrollments.c.run_id == messages.c.run_id,
        enrollments.c.contact_id == messages.c.contact_id,
    )
    yield from breach(
        connection.execute(select(messages.c.id).where(~its_own).order_by(messages.c.id)).scalars(),
        "{n} belong to no enrollment of their run and contact",
        _OURS,
    )
    gone = or_(
        ~exists().where(runs.c.id == enrollments.c.run_id),
        ~exists().where(contacts.c.id == enrollments.c.contact_id),
        and_(enrollments.c.account_id.is_not(None), ~exists().where(accounts.c.id == enrollments.c.account_id)),
    )
    yield from breach(
        connection.execute(select(enrollments.c.id).where(gone).order_by(enrollments.c.id)).scalars(),
        "{n} enrollments are of a run, contact or account that is gone (ids are of enrollments)",
        "rows of the ledger were removed: restore them from a backup",
    )


def _without_gateway(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    known = list(workspace.settings.gateways)
    query = (
        select(messages.c.lane, func.count())
        .where(is_planned(), messages.c.lane.not_in(known))
        .group_by(messages.c.lane)
    )
    for lane, count in connection.execute(query):
        yield Note(
            text=f"{count:,} wait for gateway {lane or '(none)'!r}, which carillon.yaml no longer has: put it back, or "
            "cancel the campaign"
        )


def nobody_twice(connection: Connection, _workspace: Workspace) -> Iterator[Finding]:
    """Nobody gets one step of a run twice, and nothing that came back contradicts what the ledger says was not sent."""
    address = func.lower(messages.c.address)
    place = (messages.c.run_id, messages.c.step, messages.c.channel, address)
    twice = (
        select(func.max(messages.c.id))
        .where(messages.c.state.in_(ACCEPTED_STATES), messages.c.address.is_not(None), messages.c.address != "")
        .group_by(*place)
        .having(func.count() > 1)
    )
    yield from breach(
        connection.execute(twice).scalars(),
        "{n} addresses got one step of one run more than once (ids are of the last)",
        "compare the contacts that share the address: `carillon ledger show ADDRESS`",
    )
    accepted = (
        select(message_attempts.c.message_id)
        .join(messages, messages.c.id == message_attempts.c.message_id)
        .where(message_attempts.c.ending == Ending.ACCEPTED)
        .group_by(message_attempts.c.message_id)
        .having(func.count() > 1 + func.max(messages.c.resends))
    )
    yield from breach(connection.execute(accepted).scalars(), "{n} were accepted more often than they were sent", _OURS)
    yield from breach(
        _contradicted(connection),
        "{n} came back, were opened or clicked, though the ledger says they were not sent",
        "look at each with `carillon ledger show`; was a doubt settled as not sent that should not have been?",
    )
    resent = connection.execute(select(func.count(), func.sum(messages.c.resends)).where(messages.c.resends > 0)).one()
    if resent[0]:
        yield Note(
            text=f"{resent[0]:,} were sent again while in doubt, by choice: up to {int(resent[1]):,} copies more"
        )


def _contradicted(connection: Connection) -> list[int]:
    never = and_(messages.c.state.in_(_NEVER_SENT), messages.c.resends == 0)
    events = (
        select(messages.c.id)
        .join(message_events, message_events.c.message_id == messages.c.id)
        .where(message_events.c.kind.in_(_PROOF), never)
    )
    hits = (
        select(messages.c.id)
        .join(touches, touches.c.message_id == messages.c.id)
        .where(touches.c.kind.in_((TouchKind.OPEN, TouchKind.CLICK)), never)
    )
    return sorted({*connection.execute(events).scalars(), *connection.execute(hits).scalars()})


def few_in_doubt(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    """Every doubt is explained by a try, and no claim left more of them than its gateway had connections."""
    doubtful = messages.c.state == MessageState.IN_DOUBT
    tried = exists().where(message_attempts.c.message_id == messages.c.id, message_attempts.c.ending == Ending.IN_DOUBT)
    yield from breach(
        connection.execute(select(messages.c.id).where(doubtful, ~tried).order_by(messages.c.id)).scalars(),
        "{n} are in doubt and no try says why",
        _OURS,
    )
    yield from _many_of_one_claim(connection, workspace)
    now, ever, claims_of = connection.execute(
        select(
            select(func.count()).select_from(messages).where(doubtful).scalar_subquery(),
            func.count(),
            func.count(func.distinct(message_attempts.c.claim_id)),
        ).where(message_attempts.c.ending == Ending.IN_DOUBT)
    ).one()
    if ever:
        yield Note(
            text=f"{now:,} are in doubt now; {ever:,} ever were, out of {claims_of:,} chunks that were cut short"
        )


def _many_of_one_claim(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    rows = connection.execute(
        select(message_attempts.c.claim_id, message_attempts.c.lane, func.count().label("n"))
        .where(
            message_attempts.c.ending == Ending.IN_DOUBT,
            message_attempts.c.claim_id.is_not(None),
            # A host that never came back took its recorder along: then the whole chunk is in doubt, and says so.
            ~message_attempts.c.reply.contains("flight recorder with it"),
        )
        .group_by(message_attempts.c.claim_id, message_attempts.c.lane)
        .having(func.count() > 1)
    )
    for claim_id, lane, count in rows:
        gateway = workspace.settings.gateways.get(lane)
        most = getattr(gateway, "connections", None) or getattr(gateway, "concurrency", None)
        if most is not None and count > most:
            ids = select(message_attempts.c.message_id).where(message_attempts.c.claim_id == claim_id)
            yield from breach(
                connection.execute(ids.where(message_attempts.c.ending == Ending.IN_DOUBT)).scalars(),
                f"claim {claim_id} left {{n}} in doubt, more than the {most} connections of {lane}",
                "was the number of connections lowered since? If not, this is " + _OURS,
            )
