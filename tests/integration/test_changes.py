"""Whom new facts touch is noted with the facts themselves, whichever way they come in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from kernel.clock import to_ms
from kernel.settings import SuppressionSettings, Workspace
from kernel.vocabulary import Channel, ConsentStatus, MessageEventKind, Subject, TouchKind, Verdict
from store.changes import Changes, forget_changes, read_changes, touch, touch_products, touch_profiles
from store.engine import reading, writing
from store.feedback import mark_machine, record_message_event, record_touch, set_consent
from store.intake import EventIn, OrderIn, accept_events, accept_orders
from store.ledger import Ending, Outcome, claim, mark_sending
from store.tables import accounts, changes, contacts, messages, products
from tests.importing import give_file, give_sources, imported
from tests.seeding import seed_messages
from workers.outcomes import write_outcomes

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SOURCES = """\
sources:
  accounts: {kind: accounts, columns: {account: id, name: name, parent: parent}}
  contacts: {kind: contacts, columns: {contact: id, account: account, role: role}}
  consents: {kind: consents, columns: {contact: contact, channel: channel, status: status, at: at}}
  orders: {kind: orders, columns: {order: id, ordered_at: at, account: account, contact: contact, amount: amount}}
  lines:
    kind: order_lines
    columns: {order: order, product: product, quantity: quantity, amount: amount}
    create: [products]
  products: {kind: products, columns: {product: id, category: category}}
  stock: {kind: stock, columns: {product: id, on_hand: on_hand}}
  events: {kind: events, columns: {event: id, name: name, at: at, contact: contact}}
  deals: {kind: opportunities, columns: {opportunity: id, stage: stage, at: at, account: account}}
"""
ACCOUNTS = "id,name,parent\nA1,One,\nA2,Two,A1\nA3,Three,\n"
CONTACTS = "id,account,role\nC1,A1,buyer\nC2,A2,owner\nC3,,\n"


@contextmanager
def noted(engine: Engine) -> Iterator[dict[str, list[str]]]:
    """Yield what is noted within the block, as external ids; nothing is noted before it."""
    with writing(engine) as connection:
        forget_changes(connection, read_changes(connection).rows)
    found: dict[str, list[str]] = {}
    yield found
    with reading(engine) as connection:
        notes = read_changes(connection)
        for word, table, ids in (
            ("accounts", accounts, notes.accounts),
            ("contacts", contacts, notes.contacts),
            ("products", products, notes.products),
        ):
            names = select(table.c.external_id).where(table.c.id.in_(ids.tolist())).order_by(table.c.external_id)
            found.update({word: list(connection.execute(names).scalars())} if len(ids) else {})


def notes(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(select(func.count()).select_from(changes)).scalar_one())


@pytest.fixture
def bring(engine: Engine, workspace: Workspace) -> Any:
    give_sources(workspace, SOURCES)

    def bring_in(source: str, text: str) -> dict[str, list[str]]:
        with noted(engine) as found:
            imported(engine, workspace, source, give_file(workspace, f"{source}.csv", text))
        return found

    return bring_in


@pytest.fixture
def people(bring: Any) -> None:
    bring("accounts", ACCOUNTS)
    bring("contacts", CONTACTS)


def test_new_and_changed_accounts_are_noted_and_equal_ones_are_not(bring: Any) -> None:
    assert bring("accounts", ACCOUNTS) == {"accounts": ["A1", "A2", "A3"]}
    assert bring("accounts", ACCOUNTS) == {}
    assert bring("accounts", ACCOUNTS.replace("Three", "Drei")) == {"accounts": ["A3"]}


def test_a_move_to_another_parent_notes_both_parents(bring: Any) -> None:
    bring("accounts", ACCOUNTS)
    assert bring("accounts", ACCOUNTS.replace("A2,Two,A1", "A2,Two,A3")) == {"accounts": ["A1", "A2", "A3"]}


def test_a_contact_that_changes_accounts_notes_the_old_one_too(bring: Any) -> None:
    bring("accounts", ACCOUNTS)
    assert bring("contacts", CONTACTS) == {"accounts": ["A1", "A2"], "contacts": ["C1", "C2", "C3"]}
    assert bring("contacts", CONTACTS.replace("C1,A1", "C1,A3")) == {"accounts": ["A1", "A3"], "contacts": ["C1"]}


@pytest.mark.usefixtures("people")
def test_every_kind_of_file_notes_whom_it_is_about(bring: Any) -> None:
    orders = "id,at,account,contact,amount\nO1,2026-01-02,A1,C3,10\nO2,2026-01-03,A2,,20\n"
    assert bring("orders", orders) == {"accounts": ["A1", "A2"], "contacts": ["C3"]}
    moved = orders.replace("O2,2026-01-03,A2", "O2,2026-01-03,A3")
    assert bring("orders", moved) == {"accounts": ["A2", "A3"]}
    assert bring("consents", "contact,channel,status,at\nC2,email,granted,2026-01-02\n") == {"contacts": ["C2"]}
    assert bring("events", "id,name,at,contact\nE1,demo,2026-01-02,C2\n") == {
        "accounts": ["A2"],
        "contacts": ["C2"],
    }
    deals = "id,stage,at,account\nD1,open,2026-01-02,A3\n"
    assert bring("deals", deals) == {"accounts": ["A3"]}
    assert bring("deals", deals + "D1,lead,2026-01-01,A3\n") == {"accounts": ["A3"]}
    assert bring("deals", deals) == {}


@pytest.mark.usefixtures("people")
def test_lines_note_their_orders_owners_and_products_and_stock_themselves(bring: Any) -> None:
    bring("orders", "id,at,account,contact,amount\nO1,2026-01-02,A1,C3,10\nO2,2026-01-03,A2,,20\n")
    lines = "order,product,quantity,amount\nO1,P1,2,10\nO2,P2,1,20\n"
    first = bring("lines", lines)
    assert (first["accounts"], first["contacts"]) == (["A1", "A2"], ["C3"])
    assert bring("lines", lines.replace("P2,1", "P2,3")) == {"accounts": ["A2"]}
    assert bring("products", "id,category\nP1,tea\n") == {"products": ["P1"]}
    assert bring("products", "id,category\nP1,tea\n") == {}
    assert bring("stock", "id,on_hand\nP2,7\n") == {"products": ["P2"]}
    assert bring("stock", "id,on_hand\nP2,7\n") == {}


@pytest.mark.usefixtures("people")
def test_what_comes_in_over_http_is_noted_one_note_a_batch(engine: Engine) -> None:
    order = {"order": "O1", "ordered_at": "2026-06-01T10:00:00Z", "contact": "C1", "currency": "GBP"}
    line = {"product": "P1", "quantity": 1, "amount": 10}
    with noted(engine) as found, writing(engine) as connection:
        batch = [OrderIn.model_validate({**order, "order": f"O{n}", "amount": 10}) for n in range(50)]
        accept_orders(connection, batch, now=NOW)
    assert found == {"accounts": ["A1"], "contacts": ["C1"]}
    assert notes(engine) == 2
    with noted(engine) as found, writing(engine) as connection:
        accept_orders(connection, [OrderIn.model_validate({**order, "amount": 10, "lines": [line]})], now=NOW)
    assert (found["accounts"], found["contacts"]) == (["A1"], ["C1"])
    event = {"event": "E1", "name": "demo", "at": "2026-06-01T10:00:00Z", "account": "A2"}
    with noted(engine) as found, writing(engine) as connection:
        accept_events(connection, [EventIn.model_validate(event)], now=NOW)
    assert found == {"accounts": ["A2"]}


def test_a_chunk_of_messages_that_left_is_one_note(engine: Engine) -> None:
    seed_messages(engine, 30)
    with writing(engine) as connection:
        held = claim(connection, lane="relay", limit=20, lease=timedelta(minutes=5), host="h", boot="b", recorder="r")
        assert held is not None
        mark_sending(connection, held.id)
    endings = [Ending.ACCEPTED, Ending.IN_DOUBT, Ending.REFUSED, Ending.UNTOUCHED]
    outcomes = [
        Outcome(message_id=m.id, ending=endings[at % 4], at_ms=to_ms(NOW)) for at, m in enumerate(held.messages)
    ]
    with noted(engine) as found, writing(engine) as connection:
        write_outcomes(connection, held.id, outcomes, suppression=SuppressionSettings())
    out = [m.contact_id for at, m in enumerate(held.messages) if at % 4 < 2]
    with reading(engine) as connection:
        assert read_changes(connection).contacts.tolist() == sorted(out)
    assert "accounts" not in found
    assert notes(engine) == 1


def test_what_comes_back_about_a_message_notes_its_reader(engine: Engine) -> None:
    seed_messages(engine, 2)
    with reading(engine) as connection:
        message, contact = connection.execute(select(messages.c.id, messages.c.contact_id).limit(1)).one()
        name = connection.execute(select(contacts.c.external_id).where(contacts.c.id == contact)).scalar_one()
    hit: dict[str, Any] = {"link_id": None, "at": NOW, "method": "GET", "ip": "", "user_agent": "", "reasons": ()}
    with noted(engine) as found, writing(engine) as connection:
        number = record_touch(connection, message_id=message, kind=TouchKind.OPEN, verdict=Verdict.HUMAN, **hit)
    assert found == {"contacts": [name]}
    with noted(engine) as found, writing(engine) as connection:
        mark_machine(connection, [number], "burst")
    assert found == {"contacts": [name]}
    with noted(engine) as found, writing(engine) as connection:
        record_message_event(connection, key="k", message_id=message, kind=MessageEventKind.DELIVERED, at=NOW)
    assert found == {"contacts": [name]}
    word: dict[str, Any] = {"contact_id": contact, "channel": Channel.EMAIL, "status": ConsentStatus.WITHDRAWN}
    with noted(engine) as found, writing(engine) as connection:
        set_consent(connection, **word, at=NOW, source="test")
    assert found == {"contacts": [name]}


def test_facts_that_are_rolled_back_leave_no_note(engine: Engine) -> None:
    with reading(engine) as connection:
        touch(connection, Subject.ACCOUNT, [1])
        connection.rollback()
    assert notes(engine) == 0


ids = st.lists(st.one_of(st.none(), st.integers(0, 2**62)), max_size=30)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["account", "contact", "product"]), ids), max_size=5))
def test_what_is_read_is_all_that_was_noted(sqlite_engine: Engine, given_notes: list[tuple[str, list[Any]]]) -> None:
    with writing(sqlite_engine) as connection:
        for word, batch in given_notes:
            if word == "product":
                touch_products(connection, batch)
            else:
                touch(connection, Subject(word), batch)
        found: Changes = read_changes(connection)
        forget_changes(connection, found.rows)
        assert read_changes(connection).rows == []
    for word, ids_found in (
        ("account", found.accounts), ("contact", found.contacts), ("product", found.products)
    ):  # fmt: skip
        every = {one for key, batch in given_notes if key == word for one in batch if one is not None}
        assert ids_found.tolist() == sorted(every)
    assert not found.profiles


def test_a_note_about_all_profiles_names_whose(engine: Engine) -> None:
    with writing(engine) as connection:
        row = touch_profiles(connection, Subject.CONTACT)
        found = read_changes(connection)
    assert (found.rows, found.profiles) == ([row], frozenset({Subject.CONTACT}))
    assert len(found.accounts) == len(found.contacts) == 0
