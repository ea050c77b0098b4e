"""Columns of numbers out of the database and into it are the numbers that were there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, Select, case, func, insert, select, text

from store.columns import (
    NULL_INT,
    insert_columns,
    merge_columns,
    number_list,
    read_columns,
    read_grouped,
    reading_widely,
)
from store.engine import reading, writing
from store.packing import copied
from store.tables import accounts, order_lines, orders, profiles, segment_members

LARGEST = 2**63 - 1


def seed(engine: Engine, count: int, *, step: int = 1) -> None:
    with writing(engine) as connection:
        connection.execute(insert(accounts), [{"id": 1 + at * step, "external_id": f"A{at}"} for at in range(count)])
        connection.execute(
            insert(orders),
            [
                {
                    "external_id": f"O{at}",
                    "account_id": None if at % 11 == 10 else 1 + (at * at) % count * step,
                    "ordered_at": 1_000 * at,
                    "kind": "return" if at % 7 == 3 else "order",
                    "net_minor": at - 50,
                    "gross_minor": LARGEST if at == 0 else at,
                    "currency": "GBP",
                }
                for at in range(3 * count)
            ],
        )


def test_numbers_come_out_as_they_went_in(engine: Engine) -> None:
    seed(engine, 3)
    with writing(engine) as connection:
        connection.execute(
            insert(order_lines),
            [
                {"order_id": 1, "line": 1, "quantity": 0.1 + 0.2, "net_minor": -LARGEST, "cost_minor": None},
                {"order_id": 1, "line": 2, "quantity": 1e300, "net_minor": LARGEST, "cost_minor": 7},
            ],
        )
    with reading(engine) as connection:
        found = read_columns(
            connection,
            select(order_lines.c.line, order_lines.c.quantity, order_lines.c.net_minor, order_lines.c.cost_minor),
        )
        whole = read_columns(connection, select(order_lines.c.line, order_lines.c.net_minor, order_lines.c.cost_minor))
    order = np.argsort(found["line"])
    assert found["quantity"][order].tolist() == [0.1 + 0.2, 1e300]
    assert found["quantity"].dtype == np.float64
    for columns in (found, whole):
        assert columns["net_minor"][np.argsort(columns["line"])].tolist() == [-LARGEST, LARGEST]
        assert columns["cost_minor"][np.argsort(columns["line"])].tolist() == [NULL_INT, 7]
        assert columns["cost_minor"].dtype == np.int64


def test_a_missing_float_is_not_a_number(engine: Engine) -> None:
    with reading(engine) as connection:
        found = read_columns(connection, select(func.sum(order_lines.c.quantity).label("sum")))
        nobody = read_columns(connection, select(order_lines.c.line, order_lines.c.quantity))
        none = read_columns(connection, select(order_lines.c.line))
    assert np.isnan(found["sum"]).tolist() == [True]
    assert [len(column) for column in (*nobody.values(), *none.values())] == [0, 0, 0]


def test_no_row_is_lost_on_a_connection_that_streams(engine: Engine) -> None:
    seed(engine, 9)
    with reading(engine) as connection:
        connection.execution_options(stream_results=True)
        assert sorted(read_columns(connection, select(accounts.c.id))["id"].tolist()) == list(range(1, 10))
        assert read_grouped(connection, grouped(), orders.c.account_id)["orders"].sum() == 25


def grouped() -> Select[Any]:
    return (
        select(
            orders.c.account_id,
            func.count().label("orders"),
            func.sum(orders.c.net_minor).label("net"),
            func.min(case((orders.c.kind == "return", orders.c.net_minor))).label("least"),
            func.count(case((orders.c.kind == "order", 1))).label("at_count"),
            number_list(case((orders.c.kind == "order", orders.c.ordered_at))).label("at"),
        )
        .where(orders.c.account_id.is_not(None))
        .group_by(orders.c.account_id)
    )


@pytest.mark.parametrize("step", [1, 2**40], ids=["ids side by side", "ids far apart"])
@pytest.mark.parametrize("wide", [False, True], ids=["one connection", "several"])
def test_groups_are_the_same_in_blocks_and_in_one_piece(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, wide: bool, step: int
) -> None:
    monkeypatch.setattr("store.columns._KEYS_PER_BLOCK", 7)
    seed(engine, 100, step=step)
    with reading_widely(engine) if wide else reading(engine) as connection:
        in_blocks = read_grouped(connection, grouped(), orders.c.account_id)
        at_once = read_grouped(connection, grouped(), orders.c.account_id, whole=True)
        said = connection.execute(
            text(
                "SELECT account_id, count(*), sum(net_minor), min(CASE WHEN kind = 'return' THEN net_minor END)"
                " FROM orders WHERE account_id IS NOT NULL GROUP BY account_id ORDER BY account_id"
            )
        ).all()
        instants = connection.execute(
            text("SELECT account_id, ordered_at FROM orders WHERE account_id IS NOT NULL AND kind = 'order'")
        ).all()
    assert in_blocks["account_id"].tolist() == [row[0] for row in said]
    assert in_blocks["orders"].tolist() == [row[1] for row in said]
    assert in_blocks["net"].tolist() == [row[2] for row in said]
    assert in_blocks["least"].tolist() == [NULL_INT if row[3] is None else row[3] for row in said]
    whose = np.repeat(in_blocks["account_id"], in_blocks["at_count"])
    assert sorted(zip(whose.tolist(), in_blocks["at"].tolist(), strict=True)) == sorted(tuple(row) for row in instants)
    for name in ("account_id", "orders", "net", "least", "at_count"):
        assert in_blocks[name].tolist() == at_once[name].tolist()


def test_nobody_gives_empty_columns(engine: Engine) -> None:
    with reading_widely(engine) as connection:
        found = read_grouped(connection, grouped(), orders.c.account_id)
    assert {name: len(column) for name, column in found.items()} == dict.fromkeys(found, 0)
    assert set(found) == {"account_id", "orders", "net", "least", "at_count", "at"}


def test_floats_of_groups_are_exact(engine: Engine) -> None:
    seed(engine, 2)
    with writing(engine) as connection:
        connection.execute(
            insert(order_lines),
            [{"order_id": at, "line": 1, "quantity": 0.1 * at, "net_minor": 0} for at in range(1, 4)],
        )
    query = select(order_lines.c.order_id, func.sum(order_lines.c.quantity).label("quantity")).group_by(
        order_lines.c.order_id
    )
    with reading(engine) as connection:
        found = read_grouped(connection, query, order_lines.c.order_id)
    assert found["quantity"].tolist() == [0.1, 0.1 * 2, 0.1 * 3]


def test_a_key_without_an_index_is_read_in_one_piece(engine: Engine) -> None:
    seed(engine, 4)
    query = select(orders.c.net_minor, func.count().label("n")).group_by(orders.c.net_minor)
    with reading(engine) as connection:
        found = read_grouped(connection, query, orders.c.net_minor)
    assert found["net_minor"].tolist() == list(range(-50, -38))
    assert found["n"].tolist() == [1] * 12


def test_what_is_committed_meanwhile_is_seen_by_none_of_the_connections(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.columns._KEYS_PER_BLOCK", 7)
    seed(engine, 100)
    with reading_widely(engine, readers=3) as connection:
        assert len(connection.get_execution_options()["carillon_helpers"]) == 2
        with writing(engine) as writer:
            writer.execute(orders.delete())
        found = read_grouped(connection, grouped(), orders.c.account_id)
    assert found["orders"].sum() == len([at for at in range(300) if at % 11 != 10])


def test_one_connection_is_enough_where_others_keep_writing(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(sqlite_engine, 3)
    begun = []

    def busy(*arguments: object, **options: object) -> object:
        with writing(sqlite_engine) as writer:
            writer.execute(insert(accounts), [{"external_id": f"new {len(begun)}"}])
        begun.append(1)
        return begin(*arguments, **options)

    from store import columns

    begin = columns._begun
    monkeypatch.setattr("store.columns._begun", busy)
    with reading_widely(sqlite_engine) as connection:
        assert connection.get_execution_options()["carillon_helpers"] == ()
        assert read_grouped(connection, grouped(), orders.c.account_id)["orders"].sum() == 9


def profile_columns(ids: list[int], **columns: object) -> dict[str, object]:
    zeros = np.zeros(len(ids), dtype=np.int64)
    names = (
        "scored_as",
        "scored_at",
        "first_order_at",
        "last_order_at",
        "orders",
        "days",
        "net_minor",
        "returned_minor",
    )
    return {"subject": ["account"] * len(ids), "subject_id": np.array(ids), **dict.fromkeys(names, zeros), **columns}


@pytest.mark.parametrize("rows_per_commit", [2, 1_000])
def test_merging_adds_new_rows_and_sets_the_given_columns_of_old_ones(engine: Engine, rows_per_commit: int) -> None:
    first = profile_columns(
        [1, 2, 3],
        net_minor=np.array([LARGEST, -5, 0]),
        p_alive=np.array([0.1, np.nan, 1.0]),
        products=np.array([NULL_INT, 4, 2**31 - 1]),
        cluster=["c1", None, "Ω, \\N\t'\n"],
    )
    merge_columns(engine, profiles, ("subject", "subject_id"), first, rows_per_commit=rows_per_commit)
    with_defaults = profile_columns([2, 3, 4]) | {"cluster": ["", None, "c2"]}
    merge_columns(engine, profiles, ("subject", "subject_id"), with_defaults, rows_per_commit=rows_per_commit)
    shown = text("SELECT subject_id, net_minor, p_alive, products, cluster FROM profiles ORDER BY subject_id")
    with reading(engine) as connection:
        rows = [tuple(row) for row in connection.execute(shown)]
    assert rows == [
        (1, LARGEST, 0.1, None, "c1"),
        (2, 0, None, 4, ""),
        (3, 0, 1.0, 2**31 - 1, None),
        (4, 0, None, None, "c2"),
    ]


def test_merging_keys_alone_adds_what_is_new(engine: Engine) -> None:
    for ids in ([1, 2], [2, 3]):
        columns = {"segment_id": np.ones(2, np.int64), "subject_id": np.array(ids), "valid_from": np.zeros(2, np.int64)}
        merge_columns(engine, segment_members, list(columns), columns)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT subject_id FROM segment_members ORDER BY 1")).scalars().all() == [
            1,
            2,
            3,
        ]


def test_inserting_appends_in_slices(engine: Engine) -> None:
    columns = {"segment_id": np.ones(5, np.int64), "subject_id": np.arange(5), "valid_from": np.arange(5)}
    left = np.array([NULL_INT, 1, 2, 3, 4])
    insert_columns(engine, segment_members, columns | {"valid_to": left}, rows_per_commit=2)
    with reading(engine) as connection:
        found = connection.execute(
            text("SELECT subject_id, valid_from, valid_to FROM segment_members ORDER BY 1")
        ).all()
    assert [tuple(row) for row in found] == [(0, 0, None), *((at, at, at) for at in range(1, 5))]


def test_no_rows_are_written_as_none(engine: Engine) -> None:
    insert_columns(engine, segment_members, {"segment_id": np.zeros(0, np.int64), "subject_id": []})
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(segment_members)).scalar_one() == 0


def test_columns_of_different_lengths_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"differ in length: \[1, 2\]"):
        insert_columns(engine, segment_members, {"segment_id": np.zeros(1, np.int64), "subject_id": [1, 2]})


def test_a_number_too_large_for_its_column_is_refused_not_cut() -> None:
    assert copied([np.array([2**31 - 1, -(2**31) + 1])], ["INTEGER"])
    with pytest.raises(OverflowError, match="2147483648 does not fit into 32 bits"):
        copied([np.array([2**31])], ["INTEGER"])


def test_documents_are_not_written_in_bulk() -> None:
    with pytest.raises(TypeError, match="columns of type JSONB"):
        copied([["{}"]], ["JSONB"])
