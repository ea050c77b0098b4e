"""The judge of the fault matrix sees what is wrong: each invariant is broken once, and named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, delete, select, update

from kernel.ids import message_id_header
from store.engine import reading, writing
from store.schema import installation
from store.tables import messages
from tests.faults.checker import DOMAIN, Facts, judge
from tests.seeding import seed_messages
from tests.servers.truth import Taken

Rows = list[Taken]


@pytest.fixture
def truth(engine: Engine) -> Rows:
    """Ten messages, all sent and all taken over."""
    seed_messages(engine, 10)
    with writing(engine) as connection:
        connection.execute(update(messages).values(state="sent"))
        home = installation(connection)
        ids = connection.execute(select(messages.c.id)).scalars().all()
    return [taken(message_id_header(m, home, DOMAIN), at=float(m)) for m in ids]


def taken(name: str, *, at: float = 0.0, sha256: str = "x", kept: bool = True) -> Taken:
    return Taken(name, "a@acme.example", "b@customer.example", sha256, at, kept)


def test_what_is_well_is_called_well(engine: Engine, truth: Rows) -> None:
    judgement = judge(engine, truth, Facts(runs=1, rate=(2, 2.0), shut=truth[-1].at + 0.1))
    assert (judgement.planned, judgement.accepted, judgement.in_doubt, judgement.broken) == (10, 10, 0, [])


def _forget(engine: Engine, rows: Rows) -> Facts:
    rows.pop()
    return Facts()


def _repeat(engine: Engine, rows: Rows) -> Facts:
    rows.append(rows[0])
    return Facts()


def _ghost(engine: Engine, rows: Rows) -> Facts:
    rows.append(taken("<stranger@acme.example>"))
    return Facts()


def _denied(engine: Engine, rows: Rows) -> Facts:
    _set(engine, "failed")
    return Facts()


def _doubt(engine: Engine, rows: Rows) -> Facts:
    _set(engine, "in_doubt")
    return Facts()


def _pending(engine: Engine, rows: Rows) -> Facts:
    _set(engine, "planned")
    rows.pop(0)
    return Facts()


def _too_fast(engine: Engine, rows: Rows) -> Facts:
    return Facts(rate=(2, 2.5))


def _too_late(engine: Engine, rows: Rows) -> Facts:
    return Facts(shut=rows[-1].at)


def _missing_run(engine: Engine, rows: Rows) -> Facts:
    return Facts(runs=2)


def _lost_row(engine: Engine, rows: Rows) -> Facts:
    with writing(engine) as connection:
        first = connection.execute(select(messages.c.id).order_by(messages.c.id).limit(1)).scalar_one()
        connection.execute(delete(messages).where(messages.c.id == first))
    rows.pop(0)
    return Facts()


def _other_bytes(engine: Engine, rows: Rows) -> Facts:
    rows.append(taken(rows[0].id, sha256="y", kept=False))
    return Facts()


def _set(engine: Engine, state: str) -> None:
    with writing(engine) as connection:
        first = connection.execute(select(messages.c.id).order_by(messages.c.id).limit(1)).scalar_one()
        connection.execute(update(messages).where(messages.c.id == first).values(state=state))


@pytest.mark.parametrize(
    ("spoil", "invariant"),
    [
        (_forget, "I1"),
        (_pending, "I1"),
        (_repeat, "I2"),
        (_ghost, "I3"),
        (_denied, "I3"),
        (_doubt, "I4"),
        (_too_fast, "I6"),
        (_too_late, "I6"),
        (_missing_run, "I7"),
        (_lost_row, "I9"),
        (_other_bytes, "I11"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else value,
)
def test_what_is_wrong_is_named(
    engine: Engine, truth: Rows, spoil: Callable[[Engine, Rows], Facts], invariant: str
) -> None:
    facts = spoil(engine, truth)
    assert invariant in {words.partition(":")[0] for words in judge(engine, truth, facts).broken}


def test_a_crash_explains_as_many_in_doubt_as_it_had_connections(engine: Engine, truth: Rows) -> None:
    facts = _doubt(engine, truth)
    assert facts == Facts()
    assert judge(engine, truth, Facts(crashes=1, connections=1)).broken == []
    with reading(engine) as connection:
        assert "in_doubt" in connection.execute(select(messages.c.state)).scalars().all()
