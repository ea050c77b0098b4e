"""The invariants every cell is judged by once all is quiet, recounted from raw rows and from the servers' own logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, func, select

from campaigns.books import books
from kernel.ids import message_id_header
from kernel.signing import Signer
from kernel.vocabulary import ACCEPTED_STATES, PENDING_STATES, MessageState
from store.engine import reading
from store.schema import installation
from store.tables import claims, enrollments, messages, runs
from tests.servers.truth import Taken

DOMAIN = "acme.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a cell knows that neither the database nor the servers' logs tell.

    `doubtful` is how many answers were never given to a client that was still alive (a server that keeps a message
    and resets): each may leave one message in doubt without any crash.
    """

    crashes: int = 0
    connections: int = 1
    doubtful: int = 0
    runs: int | None = None
    rate: tuple[int, float] | None = None
    """So many may be taken over within so many seconds."""
    shut: float | None = None
    """From this instant on, in seconds since 1970, nothing may be taken over: a window has closed."""


@dataclass(slots=True)
class Judgement:
    """What was counted, and every invariant that does not hold, in words."""

    planned: int = 0
    accepted: int = 0
    in_doubt: int = 0
    broken: list[str] = field(default_factory=list)

    def hold(self, name: str, holds: bool, words: str) -> None:
        if not holds:
            self.broken.append(f"{name}: {words}")


def judge(engine: Engine, truth: Iterable[Taken], facts: Facts, *, signer: Signer | None = None) -> Judgement:
    """Judge a database against what the servers took over. `signer` names SMS by their references.

    Once all is quiet: I1 no loss, I2 at most once, I3 no ghosts, I4 few in doubt, I6 rates and windows at the server's
    clock, I7 whole runs, I9 books, I11 the same bytes on every try. I5, I8 and I10 are asked where a cell withdraws,
    replays or waits.
    """
    judgement = Judgement()
    arrived = list(truth)
    with reading(engine) as connection:
        by_name = _states_by_name(connection, signer)
        _books(connection, judgement, facts)
    kept = Counter(taken.id for taken in arrived if taken.kept)
    states = Counter(by_name.values())
    judgement.planned, judgement.accepted = sum(states.values()), sum(kept.values())
    judgement.in_doubt = states[MessageState.IN_DOUBT]
    _conservation(judgement, by_name, kept, states, facts)
    _same_bytes(judgement, arrived)
    if facts.rate is not None:
        _rate(judgement, [taken.at for taken in arrived if taken.kept], *facts.rate)
    if facts.shut is not None:
        late = [taken.id for taken in arrived if taken.kept and taken.at >= facts.shut]
        judgement.hold("I6", not late, f"taken over in a closed window: {_some(set(late))}")
    return judgement


def _states_by_name(connection: Connection, signer: Signer | None) -> dict[str, str]:
    home = installation(connection)
    return {
        message_id_header(m, home, DOMAIN) if channel == "email" or signer is None else signer.address_token(m): state
        for m, channel, state in connection.execute(select(messages.c.id, messages.c.channel, messages.c.state))
    }


def _conservation(
    judgement: Judgement, by_name: Mapping[str, str], kept: Counter[str], states: Counter[str], facts: Facts
) -> None:
    pending = {state: states[state] for state in PENDING_STATES if states[state]}
    judgement.hold("I1", not pending, f"not at an end: {pending}")
    sent = {name for name, state in by_name.items() if state in ACCEPTED_STATES}
    doubtful = {name for name, state in by_name.items() if state == MessageState.IN_DOUBT}
    lost = sent - set(kept)
    judgement.hold("I1", not lost, f"called sent, never taken over: {_some(lost)}")
    twice = {name for name, count in kept.items() if count > 1}
    judgement.hold("I2", not twice, f"taken over more than once: {_some(twice)}")
    ghosts = set(kept) - sent - doubtful
    judgement.hold("I3", not ghosts, f"taken over, and the ledger says otherwise: {_some(ghosts)}")
    most = facts.crashes * facts.connections + facts.doubtful
    judgement.hold("I4", len(doubtful) <= most, f"{len(doubtful)} in doubt, {most} at most explained")


def _books(connection: Connection, judgement: Judgement, facts: Facts) -> None:
    account = books(connection)
    judgement.hold("I9", account.balanced, f"the books do not balance: {account}")
    left = connection.execute(select(func.count()).select_from(claims)).scalar_one()
    judgement.hold("I10", left == 0, f"{left} claims are left behind")
    slots = connection.execute(select(runs.c.id, runs.c.campaign_id, runs.c.scheduled_for)).all()
    judgement.hold("I7", len({tuple(row)[1:] for row in slots}) == len(slots), "a slot fired twice")
    if facts.runs is not None:
        judgement.hold("I7", len(slots) == facts.runs, f"{len(slots)} runs where {facts.runs} were due")
    for run_id, _, _ in slots:
        one = books(connection, run_id=run_id)
        judgement.hold("I7", one.balanced, f"run {run_id} is half expanded: {one}")
    pairs = select(messages.c.enrollment_id, messages.c.step).group_by(messages.c.enrollment_id, messages.c.step)
    double = connection.execute(pairs.having(func.count() > 1)).all()
    judgement.hold("I7", not double, f"places written twice: {double[:3]}")
    orphans = connection.execute(
        select(func.count())
        .select_from(messages.outerjoin(enrollments, enrollments.c.id == messages.c.enrollment_id))
        .where(enrollments.c.id.is_(None))
    ).scalar_one()
    judgement.hold("I7", orphans == 0, f"{orphans} messages of no enrollment")


def _same_bytes(judgement: Judgement, arrived: Sequence[Taken]) -> None:
    digests: dict[str, set[str]] = {}
    for taken in arrived:
        digests.setdefault(taken.id, set()).add(taken.sha256)
    changed = {name for name, seen in digests.items() if len(seen) > 1}
    judgement.hold("I11", not changed, f"other bytes on another try: {_some(changed)}")
    nameless = sum(not taken.id for taken in arrived)
    judgement.hold("I11", nameless == 0, f"{nameless} without a Message-ID or reference")


def _rate(judgement: Judgement, instants: list[float], count: int, window_s: float) -> None:
    """Count what was taken over in every sliding window; the clock is the server's."""
    instants.sort()
    start = worst = 0
    for end, instant in enumerate(instants):
        while instant - instants[start] >= window_s:
            start += 1
        worst = max(worst, end - start + 1)
    judgement.hold("I6", worst <= count, f"{worst} taken over within {window_s:g} s, {count} allowed")


def _some(names: set[str]) -> str:
    return f"{len(names)}, as {', '.join(sorted(names)[:3])}"
