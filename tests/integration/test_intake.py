"""Orders and events over HTTP: idempotent by the sender's id, refusals by item, nothing half-kept."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, select

from kernel.clock import to_ms
from kernel.settings import Workspace
from store.engine import writing
from store.ingest.values import Reading, instants
from store.intake import MAX_ITEMS, EventIn, Intake, OrderIn, accept_events, accept_orders
from store.tables import accounts, contacts, events, order_lines, orders, products
from tests.importing import HEADER, LINES, NOW, counts, give_file, give_sources, imported, rows

AT = "2026-11-20T09:00:00Z"


@pytest.fixture(autouse=True)
def _people(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(accounts.insert(), [{"id": 1, "external_id": "A1"}, {"id": 2, "external_id": "A2"}])
        connection.execute(contacts.insert().values(id=7, external_id="P1", account_id=2))


def send(engine: Engine, *items: dict[str, Any]) -> Intake:
    with writing(engine) as connection:
        return accept_orders(connection, [OrderIn.model_validate(item) for item in items], now=NOW, currency="GBP")


def tell(engine: Engine, *items: dict[str, Any]) -> Intake:
    with writing(engine) as connection:
        return accept_events(connection, [EventIn.model_validate(item) for item in items], now=NOW, currency="GBP")


def test_orders_are_kept_and_sent_again_change_nothing(engine: Engine) -> None:
    items = (
        {"order": "W1", "account": "A1", "ordered_at": AT, "amount": "12.340"},
        {"order": "W2", "contact": "P1", "ordered_at": AT, "amount": -3, "currency": "EUR"},
    )
    assert send(engine, *items) == Intake(new=2, changed=0, unchanged=0)
    assert send(engine, *items) == Intake(new=0, changed=0, unchanged=2)
    query = select(
        *(orders.c[name] for name in ("external_id", "account_id", "contact_id", "kind", "net_minor", "currency"))
    )
    assert sorted(rows(engine, query)) == [
        ("W1", 1, None, "order", 1234, "GBP"),
        ("W2", 2, 7, "return", -300, "EUR"),
    ]
    assert {at for (at,) in rows(engine, select(orders.c.imported_at))} == {NOW}


def test_unknown_accounts_and_contacts_are_refused_by_item(engine: Engine) -> None:
    done = send(
        engine,
        {"order": "W1", "account": "A9", "ordered_at": AT, "amount": 1},
        {"order": "W2", "contact": "P9", "account": "A1", "ordered_at": AT, "amount": 1},
        {"order": "W3", "account": "A1", "ordered_at": AT, "amount": 1},
        {"order": "W4", "ordered_at": AT, "amount": 1},
    )
    assert (done.new, done.accepted) == (2, 2)
    assert [(one.index, one.id, one.reason) for one in done.refused] == [
        (0, "W1", "unknown account 'A9'"),
        (1, "W2", "unknown contact 'P9'"),
    ]


def test_an_amount_finer_than_its_currency_is_refused_by_item(engine: Engine) -> None:
    order = {"account": "A1", "ordered_at": AT}
    line = {"product": "S1", "quantity": 1, "unit_price": "0.0125"}
    done = send(
        engine,
        {**order, "order": "W1", "amount": "5.55", "currency": "JPY"},
        {**order, "order": "W2", "amount": "5.00", "currency": "JPY"},
        {**order, "order": "W3", "amount": 5, "gross": "5.001"},
        {**order, "order": "W4", "amount": "5.001", "currency": "KWD"},
        {**order, "order": "W5", "lines": [{"product": "S1", "quantity": 1, "amount": "0.005"}]},
        {**order, "order": "W6", "lines": [line | {"quantity": 1000}]},
        {**order, "order": "W7", "amount": "0.0000000000000000000000000000000000000000000001"},
    )
    assert [(one.id, one.reason) for one in done.refused[:3]] == [
        ("W1", "amount: 5.55 has more decimals than JPY has (0)"),
        ("W3", "gross: 5.001 has more decimals than GBP has (2)"),
        ("W5", "lines.0.amount: 0.005 has more decimals than GBP has (2)"),
    ]
    assert [one.id for one in done.refused[3:]] == ["W7"]
    stored = rows(engine, select(orders.c.external_id, orders.c.net_minor).order_by(orders.c.external_id))
    assert stored == [("W2", 5), ("W4", 5001), ("W6", 1250)]
    event = {"name": "x", "at": AT, "account": "A1", "currency": "JPY"}
    told = tell(engine, {**event, "event": "e1", "value": "5.55"}, {**event, "event": "e2", "value": "5"})
    assert [one.reason for one in told.refused] == ["value: 5.55 has more decimals than JPY has (0)"]
    assert rows(engine, select(events.c.external_id, events.c.value_minor)) == [("e2", 5)]


def test_the_largest_amounts_that_are_taken_can_be_kept(engine: Engine) -> None:
    line = {"product": "S1", "quantity": 10**9, "unit_price": "1000", "unit_cost": "1000"}
    assert send(engine, {"order": "W1", "account": "A1", "ordered_at": AT, "currency": "KWD", "lines": [line]}).new == 1
    assert rows(engine, select(order_lines.c.net_minor, order_lines.c.cost_minor)) == [(10**15, 10**15)]


def test_an_order_with_lines_is_the_sum_of_them(engine: Engine) -> None:
    lines = [
        {"product": "S1", "quantity": 3, "unit_price": "1.115", "unit_cost": "1.00", "product_name": "Lamp"},
        {"product": "S1", "quantity": 3, "unit_price": "1.115", "unit_cost": "1.00"},
        {"product": "S2", "quantity": -1, "amount": "-0.50"},
    ]
    order = {"order": "W1", "account": "A1", "ordered_at": AT, "lines": lines}
    assert send(engine, order).new == 1
    assert rows(engine, select(orders.c.net_minor, orders.c.gross_minor, orders.c.kind)) == [(668 - 50, 668, "order")]
    stored = select(order_lines.c.line, order_lines.c.net_minor, order_lines.c.cost_minor).order_by(order_lines.c.line)
    assert rows(engine, stored) == [(1, 334, 300), (2, 334, 300), (3, -50, None)]
    assert len(rows(engine, select(products.c.id))) == 2
    assert send(engine, order).unchanged == 1
    assert send(engine, order | {"lines": lines[:1]}).changed == 1
    assert rows(engine, stored) == [(1, 334, 300)]
    assert send(engine, {"order": "W1", "account": "A1", "ordered_at": AT, "amount": "3.34"}).unchanged == 1
    assert rows(engine, stored) == [(1, 334, 300)]


def test_a_cancelled_order_says_since_when(engine: Engine) -> None:
    order = {"order": "W1", "account": "A1", "ordered_at": AT, "amount": 5}
    send(engine, order)
    assert send(engine, order | {"cancelled_at": "2026-11-20T10:00:00+01:00"}).changed == 1
    assert rows(engine, select(orders.c.cancelled_at)) == [(datetime(2026, 11, 20, 9, tzinfo=UTC),)]


def test_of_two_orders_with_one_number_in_a_batch_the_last_holds(engine: Engine) -> None:
    first = {"order": "W1", "account": "A1", "ordered_at": AT, "amount": 5}
    assert send(engine, first, first | {"amount": 6}) == Intake(new=1, changed=0, unchanged=1)
    assert rows(engine, select(orders.c.net_minor)) == [(600,)]


def test_an_order_without_any_currency_is_refused(engine: Engine) -> None:
    order = OrderIn.model_validate({"order": "W1", "account": "A1", "ordered_at": AT, "amount": 5})
    with writing(engine) as connection:
        done = accept_orders(connection, [order], now=NOW)
    assert [one.reason for one in done.refused] == ["the order names no currency"]


def test_the_import_knows_an_order_that_came_over_http(engine: Engine, workspace: Workspace) -> None:
    lines = [{"product": "S1", "quantity": 2, "unit_price": "1.50"}]
    send(engine, {"order": "W1", "account": "A1", "ordered_at": AT, "lines": lines})
    give_sources(workspace, LINES)
    file = give_file(workspace, "s.csv", HEADER + "W1,S1,Lamp,2,2026-11-20 09:00,1.50,A1,\n")
    assert counts(imported(engine, workspace, "invoices", file)) == {"rows": 1, "unchanged": 1}


def test_events_are_kept_once_and_the_first_word_holds(engine: Engine) -> None:
    event = {
        "event": "e1",
        "name": "demo_requested",
        "at": AT,
        "contact": "P1",
        "value": "9.99",
        "properties": {"x": [1]},
    }
    assert tell(engine, event) == Intake(new=1, changed=0, unchanged=0)
    assert tell(engine, event | {"name": "other"}, event) == Intake(new=0, changed=0, unchanged=2)
    names = ("name", "account_id", "contact_id", "value_minor", "currency", "properties")
    assert rows(engine, select(*(events.c[name] for name in names))) == [
        ("demo_requested", 2, 7, 999, "GBP", {"x": [1]})
    ]


def test_events_of_nobody_we_know_or_of_the_future_are_refused(engine: Engine) -> None:
    future = (NOW + timedelta(days=2)).isoformat()
    done = tell(
        engine,
        {"event": "e1", "name": "x", "at": AT, "account": "A9"},
        {"event": "e2", "name": "x", "at": future, "account": "A1"},
        {"event": "e3", "name": "x", "at": AT, "account": "A1"},
    )
    assert (done.new, [one.id for one in done.refused]) == (1, ["e1", "e2"])


def test_an_event_of_a_contact_and_of_anothers_account_is_refused(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(contacts.insert().values(id=8, external_id="P2"))
    event = {"name": "x", "at": AT}
    done = tell(
        engine,
        {**event, "event": "e1", "contact": "P1", "account": "A1"},
        {**event, "event": "e2", "contact": "P1", "account": "A2"},
        {**event, "event": "e3", "contact": "P2", "account": "A1"},
        {**event, "event": "e4", "contact": "P2"},
    )
    assert [(one.id, one.reason) for one in done.refused] == [
        ("e1", "contact 'P1' is not of account 'A1'"),
        ("e3", "contact 'P2' is not of account 'A1'"),
    ]
    query = select(events.c.external_id, events.c.account_id, events.c.contact_id).order_by(events.c.external_id)
    assert rows(engine, query) == [("e2", 2, 7), ("e4", None, 8)]
    with writing(engine) as connection:
        connection.execute(contacts.update().where(contacts.c.id == 7).values(account_id=1))
    again = tell(engine, {**event, "event": "e2", "contact": "P1", "account": "A2"})
    assert again == Intake(new=0, changed=0, unchanged=1), "an event that is known stays as it was first sent"


def test_a_batch_has_an_end(engine: Engine) -> None:
    event = {"name": "x", "at": AT, "account": "A1"}
    assert tell(engine, *(event | {"event": f"e{number}"} for number in range(MAX_ITEMS))).new == MAX_ITEMS
    with pytest.raises(ValueError, match="at most 1000"):
        tell(engine, *(event | {"event": f"e{number}"} for number in range(MAX_ITEMS + 1)))


@pytest.mark.parametrize(
    "item",
    [
        {"ordered_at": AT, "amount": 1},
        {"order": " ", "ordered_at": AT, "amount": 1},
        {"order": "W1", "ordered_at": "2026-11-20T09:00:00", "amount": 1},
        {"order": "W1", "ordered_at": AT},
        {"order": "W1", "ordered_at": AT, "amount": "NaN"},
        {"order": "W1", "ordered_at": AT, "amount": "1e30"},
        {"order": "W1", "ordered_at": AT, "amount": 1, "currency": "pounds"},
        *({"order": "W1", "ordered_at": AT, "amount": 1, "currency": code} for code in ("GB", "£", "GBP\n", "G8P", "")),
        *({"order": "W1", "ordered_at": AT, "amount": amount} for amount in ("1e999", "Infinity", math.inf, -math.inf)),
        {"order": "W1", "ordered_at": AT, "lines": [{"product": "S", "quantity": 1e999, "amount": 1}]},
        {"order": "W1", "ordered_at": AT, "lines": [{"product": "S", "quantity": 1, "amount": 10**12}] * 2},
        {
            "order": "W1",
            "ordered_at": AT,
            "lines": [{"product": "S", "quantity": 10**9, "amount": 1, "unit_cost": 10**10}],
        },
        {"order": "W1", "ordered_at": AT, "amount": 1, "cancelled_at": 1_700_000_000},
        {"order": "W1", "ordered_at": AT, "amount": 1, "kind": "gift"},
        {"order": "W1", "ordered_at": AT, "amount": 1, "note": "x"},
        {"order": "W1", "ordered_at": AT, "lines": [{"product": "S", "quantity": 1}]},
        {"order": "W\x00", "ordered_at": AT, "amount": 1},
    ],
)
def test_an_order_that_is_none_is_not_taken(item: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OrderIn.model_validate(item)


@pytest.mark.parametrize(
    "item",
    [
        {"event": "e", "name": "x", "at": AT},
        {"event": "e", "at": AT, "account": "A1"},
        {"event": "e", "name": "x", "at": AT, "account": "A1", "properties": {"x": "\x00"}},
        {"event": "e", "name": "x", "at": AT, "account": "A1", "properties": {"x": "y" * 30_000}},
        {"event": "e", "name": "x", "at": AT, "account": "A1", "properties": {"x": [math.inf]}},
        {"event": "e", "name": "x", "at": AT, "account": "A1", "value": math.nan},
    ],
)
def test_an_event_that_is_none_is_not_taken(item: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EventIn.model_validate(item)


@pytest.mark.parametrize(
    "at",
    [
        1_700_000_000,
        1_700_000_000.5,
        "1700000000",
        "2026-11-20",
        "2026-11-20T09:00:00",
        "20261120T090000Z",
        "2026-13-20T09:00:00Z",
        "2026-11-20T25:00:00Z",
        "2026-11-20T09:00:00+25:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1899-12-31T23:59:59Z",
        "2200-01-01T00:00:01Z",
        True,
        None,
    ],
)
def test_an_instant_is_iso_text_with_a_zone_of_a_likely_year(at: Any) -> None:
    with pytest.raises(ValidationError):
        OrderIn.model_validate({"order": "W1", "ordered_at": at, "amount": 1})
    with pytest.raises(ValidationError):
        EventIn.model_validate({"event": "e", "name": "x", "at": at, "account": "A1"})


@pytest.mark.parametrize(
    "at",
    ["1900-01-01T00:00:00Z", "2200-01-01 00:00z", "2026-11-20T09:00:00.123456789+0100", "1900-01-01T05:00:00+05:00"],
)
def test_over_http_an_instant_is_what_the_import_of_files_reads(at: str) -> None:
    order = OrderIn.model_validate({"order": "W1", "ordered_at": at, "amount": 1})
    assert to_ms(order.ordered_at) == instants(pl.Series([at]), Reading(zone="UTC"))[0]
