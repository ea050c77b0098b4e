from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Engine, event

from kernel.vocabulary import OrderKind, Subject
from store.engine import reading, writing
from store.tables import accounts, contacts, orders, profiles
from templates.context import SHAPE, load_contexts

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def _account(connection: Connection, name: str, **values: object) -> int:
    made = connection.execute(accounts.insert().values(external_id=name, name=name, **values).returning(accounts.c.id))
    return int(made.scalar_one())


def _contact(connection: Connection, name: str, **values: object) -> int:
    row = contacts.insert().values(external_id=name, first_name=name, email=f"{name}@x.example", **values)
    return int(connection.execute(row.returning(contacts.c.id)).scalar_one())


def _order(connection: Connection, number: str, **values: object) -> None:
    row = {"kind": OrderKind.ORDER, "currency": "GBP", "gross_minor": 0, "external_id": number, **values}
    connection.execute(orders.insert().values(**row))


def _score(connection: Connection, subject: Subject, subject_id: int, *, group: str | None = "at_risk") -> None:
    """Store a profile: of a buyer whose last order was 90 days ago, scored unless the group is None."""
    facts = {"scored_as": subject_id, "scored_at": NOW, "orders": 11, "days": 11, "net_minor": 123450}
    at = {"first_order_at": NOW - timedelta(days=400), "last_order_at": NOW - timedelta(days=90)}
    scores = {"r": 2, "f": 4, "m": 5, "frequency": 11, "monetary_minor": 123450, "rfm_segment": group, "rfm_since": NOW}
    connection.execute(
        profiles.insert().values(
            subject=subject, subject_id=subject_id, returned_minor=0, **facts, **at, **(scores if group else {})
        )
    )


def test_a_contact_is_seen_with_its_account_its_score_and_its_last_order(engine: Engine) -> None:
    with writing(engine) as connection:
        group = _account(connection, "Group")
        shop = _account(
            connection,
            "Shop",
            parent_id=group,
            country="DE",
            language="de",
            timezone="Europe/Berlin",
            attributes={"tier": 2},
        )
        jane = _contact(connection, "jane", account_id=shop, role="buyer", attributes={"floor": "2nd"})
        _score(connection, Subject.ACCOUNT, shop)
        _order(connection, "1", account_id=shop, ordered_at=NOW - timedelta(days=40), net_minor=5000)
        _order(connection, "2", account_id=shop, ordered_at=NOW - timedelta(days=30, hours=1), net_minor=7050)
        _order(connection, "3", account_id=shop, ordered_at=NOW - timedelta(days=3), net_minor=1, cancelled_at=NOW)
        _order(
            connection, "4", account_id=shop, ordered_at=NOW - timedelta(days=2), net_minor=-9, kind=OrderKind.RETURN
        )
        _order(connection, "5", account_id=shop, ordered_at=NOW, net_minor=99)
    with reading(engine) as connection:
        seen = load_contexts(connection, [jane, 999_999], now=NOW, currency="GBP", zone=UTC)
    assert set(seen) == {jane}
    assert seen[jane]["contact"] == {
        "id": jane,
        "email": "jane@x.example",
        "phone": None,
        "first_name": "jane",
        "last_name": "",
        "role": "buyer",
        "language": "de",
        "timezone": "Europe/Berlin",
        "attributes": {"floor": "2nd"},
    }
    assert seen[jane]["account"]["parent_name"] == "Group"
    assert seen[jane]["account"]["attributes"] == {"tier": 2}
    assert seen[jane]["rfm"]["segment"] == "at_risk"
    assert seen[jane]["rfm"]["monetary"] == pytest.approx(1234.50)
    assert seen[jane]["rfm"]["recency_days"] == 90
    assert seen[jane]["last_order"] == {"date": date(2026, 10, 21), "days_ago": 30, "amount": 70.5, "currency": "GBP"}


def test_a_contact_without_account_score_or_order_has_none_of_them(engine: Engine) -> None:
    with writing(engine) as connection:
        lone = _contact(connection, "lone")
        buyer = _contact(connection, "buyer")
        _score(connection, Subject.CONTACT, buyer)
        _order(connection, "1", contact_id=buyer, ordered_at=NOW - timedelta(days=1), net_minor=300)
    with reading(engine) as connection:
        seen = load_contexts(connection, [lone, buyer], now=NOW, currency="JPY", zone=UTC)
    assert seen[lone]["account"]["name"] == ""
    assert seen[lone]["rfm"] is None
    assert seen[lone]["last_order"] is None
    assert seen[buyer]["rfm"]["monetary"] == 123450
    assert seen[buyer]["last_order"]["amount"] == 3.0


def test_who_bought_only_before_the_window_has_no_rfm(engine: Engine) -> None:
    with writing(engine) as connection:
        shop = _account(connection, "Shop")
        jane = _contact(connection, "jane", account_id=shop)
        _score(connection, Subject.ACCOUNT, shop, group=None)
    with reading(engine) as connection:
        seen = load_contexts(connection, [jane], now=NOW, currency="GBP", zone=UTC)
    assert seen[jane]["rfm"] is None


def test_what_is_loaded_is_what_templates_are_checked_against(engine: Engine) -> None:
    with writing(engine) as connection:
        shop = _account(connection, "Shop")
        jane = _contact(connection, "jane", account_id=shop)
        _score(connection, Subject.ACCOUNT, shop)
        _order(connection, "1", account_id=shop, ordered_at=NOW - timedelta(days=1), net_minor=1)
    with reading(engine) as connection:
        seen = load_contexts(connection, [jane], now=NOW, currency="GBP", zone=UTC)[jane]
    assert {name: frozenset(value) if isinstance(value, dict) else None for name, value in seen.items()} == SHAPE


def test_ten_thousand_contacts_take_a_handful_of_queries(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(accounts.insert(), [{"external_id": str(n), "name": f"A{n}"} for n in range(3_000)])
        rows = [{"external_id": str(n), "account_id": n % 3_000 + 1, "email": f"{n}@x.example"} for n in range(10_000)]
        connection.execute(contacts.insert(), rows)
    statements: list[str] = []
    with reading(engine) as connection:
        event.listen(connection, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
        seen = load_contexts(connection, range(1, 10_001), now=NOW, currency="GBP", zone=UTC)
    assert len(seen) == 10_000
    assert len(statements) <= 8


def test_the_day_of_the_last_order_is_that_of_the_workspaces_zone(engine: Engine) -> None:
    midnight_in_berlin = datetime(2026, 3, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    with writing(engine) as connection:
        shop = _account(connection, "Shop")
        jane = _contact(connection, "jane", account_id=shop)
        _order(connection, "1", account_id=shop, ordered_at=midnight_in_berlin, net_minor=1)
    with reading(engine) as connection:
        seen = load_contexts(connection, [jane], now=NOW, currency="EUR", zone=ZoneInfo("Europe/Berlin"))
    assert seen[jane]["last_order"]["date"] == date(2026, 3, 1)
