"""What everyone bought, read from the database, is what a person finds going through the orders."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from kernel.errors import ConfigError
from kernel.vocabulary import Subject
from segments import order_sums
from segments.buyers import one_currency, read_purchases
from segments.instants import in_days, timing
from segments.warehouse import STORE
from store.columns import read_columns, reading_widely
from store.engine import reading, writing
from store.tables import accounts, orders
from tests.purchase_facts import AS_OF, DAY, as_rows, plainly, random_facts, store

ALL = ("gaps", "margin", "products")


@pytest.mark.parametrize("subject", list(Subject))
@pytest.mark.parametrize("window", [None, timedelta(days=90)], ids=["all orders", "a window"])
def test_everything_is_as_a_person_would_find_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, subject: Subject, window: timedelta | None
) -> None:
    monkeypatch.setattr("store.columns._KEYS_PER_BLOCK", 7)
    monkeypatch.setattr("segments.instants._AT_ONCE", 20)
    facts = random_facts(1)
    store(engine, facts)
    with reading_widely(engine) as connection:
        found = read_purchases(connection, subject, as_of=AS_OF, window=window, extras=ALL)
    assert as_rows(found) == plainly(facts, subject, window=window)
    assert found.subject_ids.tolist() == found.purchases.ids.tolist()
    assert found.units.tolist() == list(range(len(found)))


def test_an_as_of_reading_is_a_reading_of_what_was_known_then(engine: Engine) -> None:
    facts = random_facts(2)
    store(engine, facts)
    then = AS_OF - timedelta(days=100)
    with reading(engine) as connection:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=then, extras=ALL)
    assert as_rows(found) == plainly(facts, Subject.ACCOUNT, as_of=then)


def test_reading_some_is_reading_all_and_leaving_out_the_rest(engine: Engine) -> None:
    facts = random_facts(3)
    store(engine, facts)
    some = np.array([2, 3, 5, 7, 11, 999])
    with reading(engine) as connection:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, extras=ALL, only=some)
        nobody = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, extras=ALL, only=some[:0])
    everyone = plainly(facts, Subject.ACCOUNT)
    assert as_rows(found) == {one: everyone[one] for one in everyone if one in some.tolist()}
    assert len(nobody) == 0


def test_nothing_at_all_gives_nobody(engine: Engine) -> None:
    with reading_widely(engine) as connection:
        found = read_purchases(
            connection, Subject.CONTACT, as_of=AS_OF, window=timedelta(days=1), extras=ALL, rollup="top"
        )
    assert len(found) == len(found.subject_ids) == len(found.units) == 0
    assert as_rows(found) == {}


def test_what_other_engines_compute_themselves_is_the_same(engine: Engine) -> None:
    facts = random_facts(4)
    store(engine, facts)
    rows = STORE.lines(Subject.ACCOUNT, AS_OF).rows
    with reading(engine) as connection:
        here = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, extras=("gaps",))
        added = read_columns(connection, order_sums.added(rows, since_ms=None, home=None, convert=False))
        gaps = read_columns(connection, order_sums.gaps(rows))
    twice = dict(zip(gaps["id"].tolist(), gaps["twice_gap"].tolist(), strict=True))
    found = {
        one: [
            added[name][at].item()
            for name in ("first_ms", "last_ms", "orders", "days", "net_minor", "gross_minor", "returned_minor")
        ]
        for at, one in enumerate(added["id"].tolist())
        if added["orders"][at]
    }
    expected = as_rows(here)
    assert found == {one: [row[name] for name in list(row)[:7]] for one, row in expected.items()}
    assert {one: gap / 2 for one, gap in twice.items()} == {
        one: row["median_gap_days"] for one, row in expected.items() if row["median_gap_days"] is not None
    }


@given(
    st.lists(
        st.lists(
            st.integers(min_value=-(10**13), max_value=10**14) | st.integers(0, 9).map(lambda n: n * DAY),
            min_size=1,
            max_size=9,
        ),
        max_size=9,
    )
)
def test_timing_does_not_depend_on_the_order_of_instants(lists: list[list[int]]) -> None:
    counts = np.array([len(one) for one in lists], dtype=np.int64)
    found = timing(np.array([at for one in lists for at in one], dtype=np.int64), counts)
    turned = timing(np.array([at for one in lists for at in one[::-1]], dtype=np.int64), counts)
    for name in ("first_ms", "last_ms", "days", "twice_gap"):
        assert getattr(found, name).tolist() == getattr(turned, name).tolist()
    assert found.first_ms.tolist() == [min(one) for one in lists]
    assert found.last_ms.tolist() == [max(one) for one in lists]
    assert found.days.tolist() == [len({at // DAY for at in one}) for one in lists]
    medians = [
        np.median(np.diff(sorted({at // DAY for at in one}))) if len({at // DAY for at in one}) > 2 else None
        for one in lists
    ]
    assert [None if np.isnan(gap) else gap for gap in in_days(found.twice_gap, found.days)] == medians


def test_a_second_currency_is_refused_with_an_example_and_what_to_do(engine: Engine) -> None:
    facts = random_facts(5, currencies=("GBP", "GBP", "GBP", "USD"))
    store(engine, facts)
    with reading(engine) as connection, pytest.raises(ConfigError) as refused:
        read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, currency="GBP")
    stood = [
        order
        for order in facts.orders
        if order["account_id"] and order["ordered_at"] < AS_OF.timestamp() * 1000 and order["currency"] == "USD"
        if order["cancelled_at"] is None or order["cancelled_at"] >= AS_OF.timestamp() * 1000
    ]
    example = min(order["external_id"] for order in stood)
    assert f"{len(stood)} order(s) are not in GBP, among them {example!r} (USD is one currency found)" in str(
        refused.value
    )
    assert "rates: rates.csv" in str(refused.value)


def test_orders_in_another_currency_after_the_instant_harm_nobody(engine: Engine) -> None:
    facts = random_facts(6)
    late = dict(facts.orders[0], id=9_999, external_id="late", ordered_at=int(AS_OF.timestamp() * 1000), currency="USD")
    facts.orders.append(late)
    store(engine, facts)
    with reading(engine) as connection:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF)
        assert one_currency(connection, Subject.ACCOUNT, as_of=AS_OF, currency=None) == "GBP"
    assert as_rows(found).keys() == plainly(facts, Subject.ACCOUNT).keys()


def test_sums_beyond_32_bits_are_exact(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(insert(accounts), {"id": 1, "external_id": "A"})
        row = {"account_id": 1, "kind": "order", "currency": "GBP", "gross_minor": 2**61, "ordered_at": 0}
        amounts = [2**61 + 1, 2**61 + 1, -1]
        connection.execute(
            insert(orders), [row | {"external_id": str(at), "net_minor": net} for at, net in enumerate(amounts)]
        )
    with reading(engine) as connection:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF)
    assert found.purchases.net_minor.tolist() == [2**62 + 1]
    assert found.purchases.gross_minor.tolist() == [3 * 2**61]
