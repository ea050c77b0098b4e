"""Orders in Parquet files, added up by DuckDB, are to the last integer what our own database says of the same."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from sqlalchemy import BigInteger, Engine, column, create_engine, insert, literal, select, table, text

from kernel.clock import from_ms, to_ms
from kernel.errors import ConfigError
from kernel.quantities import to_minor
from kernel.settings import WarehouseSettings
from kernel.vocabulary import Subject
from segments.buyers import read_purchases
from segments.portable import day_of, in_minor, utc_ms
from segments.rates import Rates, read_rates
from segments.warehouse import Warehouse
from store.engine import reading, writing
from store.tables import accounts, orders
from tests.purchase_facts import AS_OF, DAY, Facts, as_rows, random_facts, store
from tests.servers.postgres import PostgresServer

COLUMNS = {
    "subject": "customer",
    "ordered_ms": "at_ms",
    "cancelled_ms": "cancelled_ms",
    "amount_minor": "net",
    "gross_minor": "gross",
    "kind": "kind",
    "order": "number",
}
QUERY = "SELECT * FROM read_parquet('orders/*.parquet')"


def settings(**said: Any) -> WarehouseSettings:
    base: dict[str, Any] = {"url": "duckdb:///:memory:", "query": QUERY, "columns": COLUMNS, "memory": "500MB"}
    return WarehouseSettings.model_validate(base | said)


@contextmanager
def warehouse(folder: Path, *, currency: str = "GBP", others: Sequence[str] = (), **said: Any) -> Iterator[Warehouse]:
    opened = Warehouse(settings(**said), currency=currency, others=others, folder=folder)
    yield opened
    opened.close()


def write(folder: Path, facts: Facts, column: str = "account_id", *, parts: int = 3) -> None:
    """Write the orders as Parquet files, as another system would have them; row orders are shuffled."""
    (folder / "orders").mkdir(exist_ok=True)
    prefix, suffix = ("A'", "%") if column == "account_id" else ("C", "")
    rows = [
        {
            "number": order["external_id"],
            "customer": None if order[column] is None else f"{prefix}{order[column]}{suffix}",
            "customer_number": order[column],
            "at_ms": order["ordered_at"],
            "at": from_ms(order["ordered_at"]),
            "cancelled_ms": order["cancelled_at"],
            "cancelled_at": None if order["cancelled_at"] is None else from_ms(order["cancelled_at"]),
            "net": order["net_minor"],
            "amount": Decimal(order["net_minor"]).scaleb(-2),
            "gross": order["gross_minor"],
            "gross_amount": Decimal(order["gross_minor"]).scaleb(-2),
            "kind": order["kind"],
            "currency": order["currency"],
            "product": None if order["id"] % 5 == 4 else f"P{order['id'] % 5}",
            "cost": order["id"] * 7 % 500,
        }
        for order in facts.orders
    ]
    random.Random(1).shuffle(rows)
    schema = {"cancelled_ms": pl.Int64, "cancelled_at": pl.Datetime("ms", "UTC"), "amount": pl.Decimal(18, 4)}
    frame = pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)
    for part in range(parts):
        frame.gather_every(parts, part).write_parquet(folder / "orders" / f"{part}.parquet")


WORDS = {
    "milliseconds and minor units": COLUMNS,
    "timestamps and decimals": {
        "subject": "customer",
        "ordered_at": "at",
        "cancelled_at": "cancelled_at",
        "amount": "amount",
        "gross": "gross_amount",
        "kind": "kind",
        "currency": "currency",
    },
}


@pytest.mark.parametrize("columns", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("subject", list(Subject))
def test_parquet_by_duckdb_is_equal_to_our_own_tables(
    engine: Engine, tmp_path: Path, subject: Subject, columns: dict[str, str]
) -> None:
    facts = random_facts(11, subjects=40, number=900)
    store(engine, facts)
    write(tmp_path, facts, f"{subject}_id")
    how: dict[str, Any] = {"as_of": AS_OF, "window": timedelta(days=90), "extras": ("gaps",), "currency": "GBP"}
    with reading(engine) as connection, warehouse(tmp_path, subject=str(subject), columns=columns) as there:
        here = read_purchases(connection, subject, **how)
        elsewhere = read_purchases(connection, subject, source=there, **how)
    assert as_rows(elsewhere) == as_rows(here)
    assert len(elsewhere) > 30
    assert elsewhere.unknown == 0


@pytest.mark.parametrize("level", ["parent", "top"])
def test_families_are_brought_together_as_at_home(engine: Engine, tmp_path: Path, level: Any) -> None:
    facts = random_facts(12)
    store(engine, facts)
    write(tmp_path, facts)
    only = np.array([3, 4, 9])
    how: dict[str, Any] = {"as_of": AS_OF, "extras": ("gaps",), "rollup": level, "currency": "GBP"}
    with reading(engine) as connection, warehouse(tmp_path) as there:
        for some in (None, only):
            here = read_purchases(connection, Subject.ACCOUNT, only=some, **how)
            elsewhere = read_purchases(connection, Subject.ACCOUNT, only=some, source=there, **how)
            assert as_rows(elsewhere) == as_rows(here)
            assert elsewhere.subject_ids.tolist() == here.subject_ids.tolist()
            assert elsewhere.units.tolist() == here.units.tolist()


def test_other_currencies_are_converted_as_at_home(engine: Engine, tmp_path: Path) -> None:
    facts = random_facts(13, currencies=("GBP", "USD", "USD"))
    store(engine, facts)
    write(tmp_path, facts)
    (tmp_path / "rates.csv").write_text("from,currency,rate\n1900-01-01,USD,0.7777\n2026-01-01,USD,0.8123456789\n")
    rates: Rates = read_rates(tmp_path / "rates.csv", "GBP")
    how: dict[str, Any] = {"as_of": AS_OF, "window": timedelta(days=50), "currency": "GBP"}
    columns = WORDS["timestamps and decimals"]
    with reading(engine) as connection, warehouse(tmp_path, others=rates.currencies, columns=columns) as there:
        here = read_purchases(connection, Subject.ACCOUNT, rates=rates, **how)
        elsewhere = read_purchases(connection, Subject.ACCOUNT, rates=rates, source=there, **how)
        with pytest.raises(ConfigError, match=r"order\(s\) are not in GBP"):
            read_purchases(connection, Subject.ACCOUNT, source=there, **how)
    assert as_rows(elsewhere) == as_rows(here)


def test_customers_we_do_not_know_are_counted_and_left_out(engine: Engine, tmp_path: Path) -> None:
    facts = random_facts(14)
    store(engine, facts)
    write(tmp_path, facts)
    with writing(engine) as connection:
        connection.execute(text("UPDATE orders SET account_id = NULL WHERE account_id IN (1, 2)"))
        connection.execute(text("UPDATE accounts SET external_id = 'other ' || id WHERE id IN (1, 2)"))
    with reading(engine) as connection, warehouse(tmp_path) as there:
        here = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF)
        elsewhere = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, source=there, extras=("gaps",))
    assert (elsewhere.unknown, elsewhere.unknown_example) == (2, "A'1%")
    assert elsewhere.purchases.net_minor.tolist() == here.purchases.net_minor.tolist()


def test_keys_that_are_numbers_are_read_as_their_digits(sqlite_engine: Engine, tmp_path: Path) -> None:
    facts = random_facts(15)
    store(sqlite_engine, facts)
    write(tmp_path, facts)
    with writing(sqlite_engine) as connection:
        connection.execute(text("UPDATE accounts SET external_id = CAST(id AS TEXT)"))
    columns = COLUMNS | {"subject": "customer_number"}
    with reading(sqlite_engine) as connection, warehouse(tmp_path, columns=columns) as there:
        here = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF)
        elsewhere = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, source=there)
    assert as_rows(elsewhere) == as_rows(here)


def test_products_and_margins_come_from_the_order_rows(sqlite_engine: Engine, tmp_path: Path) -> None:
    facts = random_facts(16)
    store(sqlite_engine, facts)
    write(tmp_path, facts)
    columns = COLUMNS | {"product": "product", "cost_minor": "cost"}
    with reading(sqlite_engine) as connection, warehouse(tmp_path, columns=columns) as there:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, source=there, extras=("margin", "products"))
        rolled = read_purchases(
            connection, Subject.ACCOUNT, as_of=AS_OF, source=there, extras=("products",), rollup="top"
        )
    rows = as_rows(found)
    stood = [o for o in facts.orders if o["ordered_at"] < to_ms(AS_OF)]
    stood = [o for o in stood if o["cancelled_at"] is None or o["cancelled_at"] >= to_ms(AS_OF)]
    for one, row in rows.items():
        theirs = [o for o in stood if o["account_id"] == one]
        bought = {o["id"] % 5 for o in theirs if o["kind"] == "order"} - {4}
        assert row["products"] == (len(bought) or None)
        assert row["margin_minor"] == sum(o["net_minor"] - o["id"] * 7 % 500 for o in theirs)
    parents = {row["id"]: row["parent_id"] for row in facts.accounts}
    tops = {one: one for one in parents}
    for _ in parents:
        tops = {one: parents[top] or top for one, top in tops.items()}
    for one, row in as_rows(rolled).items():
        bought = {o["id"] % 5 for o in stood if tops.get(o["account_id"]) == one and o["kind"] == "order"} - {4}
        assert row["products"] == (len(bought) or None)


def test_without_kinds_and_gross_amounts_below_zero_are_returns(sqlite_engine: Engine, tmp_path: Path) -> None:
    with writing(sqlite_engine) as connection:
        connection.execute(insert(accounts), {"id": 1, "external_id": "A"})
    (tmp_path / "orders").mkdir()
    rows = {"customer": ["A"] * 3, "at_ms": [0, DAY, 2 * DAY], "net": [500, 300, -120]}
    pl.DataFrame(rows).write_parquet(tmp_path / "orders" / "1.parquet")
    columns = {"subject": "customer", "ordered_ms": "at_ms", "amount_minor": "net"}
    with reading(sqlite_engine) as connection, warehouse(tmp_path, columns=columns) as there:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, source=there).purchases
    assert (found.orders[0], found.net_minor[0], found.gross_minor[0], found.returned_minor[0]) == (2, 680, 800, 120)
    assert found.last_ms[0] == DAY


# --- borders between engines ------------------------------------------------------------------------------------------


@pytest.fixture
def duckdb() -> Iterator[Engine]:
    engine = create_engine("duckdb:///:memory:")
    yield engine
    engine.dispose()


AMOUNTS = ["0.005", "0.015", "0.025", "-0.005", "-0.015", "-0.025", "1.004999999", "1.005000001", "-0.994999999"]
AMOUNTS += ["0", "-0.001", "9999999999.995", "-9999999999.995", "12.3", "2.675", "0.000000001"]


@pytest.mark.parametrize("currency", ["GBP", "JPY", "KWD"])
@pytest.mark.parametrize("form", ["DECIMAL(24,9)", "VARCHAR"])
def test_decimals_become_minor_units_as_imports_make_them(
    duckdb: Engine, postgres: PostgresServer, currency: str, form: str
) -> None:
    factor = literal(10 ** {"GBP": 2, "JPY": 0, "KWD": 3}[currency], BigInteger)
    there = table("amounts", column("x"))
    other = create_engine(postgres.new_database())
    for engine in (duckdb, other):
        with engine.connect() as connection:
            connection.execute(text(f"CREATE TABLE amounts (n INT, x {form})"))
            for place, amount in enumerate(AMOUNTS):
                connection.execute(text("INSERT INTO amounts VALUES (:n, :x)"), {"n": place, "x": amount})
            found = connection.execute(select(in_minor(there.c.x, factor)).order_by(text("n"))).scalars().all()
        assert found == [to_minor(amount, currency) for amount in AMOUNTS], engine.dialect.name
    other.dispose()


def test_floats_are_first_rounded_to_nine_decimals(duckdb: Engine) -> None:
    with duckdb.connect() as connection:
        connection.execute(text("CREATE TABLE t (x DOUBLE)"))
        connection.execute(text("INSERT INTO t VALUES (2.675), (0.1 + 0.2), (-1.005), (1e9 + 0.005)"))
        query = select(in_minor(table("t", column("x")).c.x, literal(100, BigInteger)))
        assert connection.execute(query).scalars().all() == [268, 30, -100, 100_000_000_000]


INSTANTS = [0, 1, -1, -999, -1000, -DAY, DAY - 1, to_ms(datetime(2026, 3, 29, 1, tzinfo=UTC)), -62_135_596_800_000]


def test_timestamps_with_a_zone_become_the_same_milliseconds(duckdb: Engine) -> None:
    with duckdb.connect() as connection:
        connection.execute(text("CREATE TABLE t (n BIGINT, x TIMESTAMPTZ, y TIMESTAMP)"))
        for at in INSTANTS:
            connection.execute(
                text("INSERT INTO t SELECT :ms, to_timestamp(0) + to_microseconds(:us), make_timestamp(:us)"),
                {"ms": at, "us": at * 1000 + 999},
            )
        there = table("t", column("n"), column("x"), column("y"))
        utc = literal("UTC")
        query = select(there.c.n, utc_ms(there.c.x, utc), utc_ms(there.c.y, utc), day_of(there.c.n))
        for at, zoned, plain, day in connection.execute(query):
            assert (zoned, plain, day) == (at, at, at // DAY + 1_000_000)


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 0), ("Europe/Berlin", -2), ("America/New_York", 4)])
def test_timestamps_without_a_zone_are_wall_clocks_of_the_named_one(
    duckdb: Engine, engine: Engine, zone: str, hours: int
) -> None:
    wall = datetime(2026, 7, 1, 12)  # noqa: DTZ001 - the point
    for one in (duckdb, engine if engine.dialect.name == "postgresql" else duckdb):
        with one.connect() as connection:
            query = select(utc_ms(literal(wall), literal(zone)))
            assert connection.execute(query).scalar_one() == to_ms(wall.replace(tzinfo=UTC) + timedelta(hours=hours))


def test_timestamps_of_an_engine_nobody_tried_are_refused_with_a_way_out(sqlite_engine: Engine) -> None:
    with pytest.raises(
        ConfigError, match=r"timestamps of sqlite are not read; give a `query` that returns whole milli"
    ):
        select(utc_ms(literal("x"), literal("UTC"))).compile(sqlite_engine)


# --- what may be wrong ------------------------------------------------------------------------------------------------


def ask(engine: Engine, folder: Path, **said: Any) -> None:
    with reading(engine) as connection, warehouse(folder, **said) as there:
        read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, source=there)


def test_rows_that_lack_what_they_must_say_are_counted(sqlite_engine: Engine, tmp_path: Path) -> None:
    facts = random_facts(17, number=20)
    for order, flaw in zip(facts.orders, ({"ordered_at": None}, {"kind": "refund"}, {"kind": None}), strict=False):
        order.update(flaw, account_id=1)
    rows = [
        {"customer": "A'1%", "at_ms": order["ordered_at"], "net": order["net_minor"], "kind": order["kind"]}
        for order in facts.orders
    ]
    (tmp_path / "orders").mkdir()
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "orders" / "1.parquet")
    columns = {"subject": "customer", "ordered_ms": "at_ms", "amount_minor": "net", "kind": "kind"}
    with pytest.raises(ConfigError, match="1 name no instant and 2 are of another kind than order, return, canc"):
        ask(sqlite_engine, tmp_path, columns=columns)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"query": "SELECT * FROM read_parquet('none/*.parquet')"},
            r"warehouse: duckdb:///.* did not answer: .*No files",
        ),
        ({"query": None, "table": "nowhere.orders"}, "warehouse: duckdb:///.* did not answer: .*nowhere"),
        ({"columns": COLUMNS | {"subject": "client"}}, "did not answer: .*client.*names of columns"),
        ({"subject": "contact"}, "knows orders by contact, not by account; score contacts"),
        ({"url": "oracle9://x"}, "needs a dialect that is not installed"),
        ({"url": "nothing"}, "warehouse.url is not a database URL"),
    ],
)
def test_a_source_that_does_not_answer_is_told_with_what_to_look_at(
    sqlite_engine: Engine, tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    write(tmp_path, random_facts(18, number=10))
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        ask(sqlite_engine, tmp_path, **said)


def test_a_password_in_the_url_is_never_shown(sqlite_engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        ask(sqlite_engine, tmp_path, url="postgresql+psycopg://me:hunter2@127.0.0.1:1/x?connect_timeout=1")
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(settings(url="duckdb:///hunter2"))


def test_what_the_source_does_not_tell_is_refused_or_unknown(sqlite_engine: Engine, tmp_path: Path) -> None:
    facts = random_facts(19)
    store(sqlite_engine, facts)
    write(tmp_path, facts)
    with reading(sqlite_engine) as connection, warehouse(tmp_path) as there:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, source=there, extras=("products",))
        assert {row["products"] for row in as_rows(found).values()} == {None}
        with pytest.raises(ConfigError, match="the warehouse tells no cost"):
            read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, source=there, extras=("margin",))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"table": "orders"}, "give either a table or a query"),
        ({"query": None}, "give either a table or a query"),
        ({"columns": COLUMNS | {"ordered_at": "at"}}, "give one of ordered_at and ordered_ms"),
        ({"columns": {"subject": "x", "ordered_ms": "y"}}, "give one of amount and amount_minor"),
        ({"columns": COLUMNS | {"cancelled_at": "at"}}, "give at most one of cancelled_at and cancelled_ms"),
        ({"memory": "plenty"}, "memory"),
        ({"timezone": "Mars"}, "Mars"),
        ({"columns": COLUMNS | {"colour": "x"}}, "colour"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**said)


def test_a_hostile_name_of_a_column_stays_a_name(sqlite_engine: Engine, tmp_path: Path) -> None:
    hostile = 'x"; DROP TABLE orders; --'
    with writing(sqlite_engine) as connection:
        connection.execute(insert(accounts), {"id": 1, "external_id": "A"})
    (tmp_path / "orders").mkdir()
    pl.DataFrame({hostile: ["A"], "at_ms": [0], "net": [5]}).write_parquet(tmp_path / "orders" / "1.parquet")
    columns = {"subject": hostile, "ordered_ms": "at_ms", "amount_minor": "net"}
    with reading(sqlite_engine) as connection, warehouse(tmp_path, columns=columns) as there:
        found = read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, source=there)
    assert found.purchases.net_minor.tolist() == [5]
    with reading(sqlite_engine) as connection:
        assert connection.execute(select(orders.c.id)).all() == []
