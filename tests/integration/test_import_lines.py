"""Invoice lines become orders: money netted, returns never counted, the same file twice changes nothing."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import Engine, func, select

from kernel.errors import ConfigError, InputError
from kernel.settings import Workspace
from store.ingest.result import Progress
from store.tables import accounts, imports, order_lines, orders, products
from tests.importing import HEADER, LINES, NOW, counts, give_file, give_sources, imported, rows

SHEET = HEADER + (
    "536365,85123A,T-LIGHT HOLDER,6,2010-12-01 08:26,2.55,17850,United Kingdom\n"
    "536365,71053,LANTERN,2,2010-12-01 08:27,3.395,17850,United Kingdom\n"
    "536365,71053,LANTERN,2,2010-12-01 08:27,3.395,17850,United Kingdom\n"
    "C536379,D,Discount,-1,2010-12-01 09:41,27.50,14527,Germany\n"
    "536380,71053,,-4,2010-12-01 10:00,0.00,,United Kingdom\n"
    "A563185,B,Adjust bad debt,1,2011-08-12 14:50,-11062.06,,United Kingdom\n"
    "536381,85123A,T-LIGHT HOLDER,10,2010-12-01 11:00,1.00,17850,United Kingdom\n"
    "536381,71053,LANTERN,-3,2010-12-01 11:00,1.00,17850,United Kingdom\n"
)
ORDER = select(
    orders.c.external_id, accounts.c.external_id, orders.c.kind, orders.c.net_minor, orders.c.gross_minor
).join_from(orders, accounts, isouter=True)


@pytest.fixture(autouse=True)
def _sources(workspace: Workspace) -> None:
    give_sources(workspace, LINES)


def test_lines_become_orders_of_four_kinds(engine: Engine, workspace: Workspace) -> None:
    result = imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    assert counts(result) == {"rows": 8, "new": 8}
    assert sorted(rows(engine, ORDER)) == sorted(
        [
            ("536365", "17850", "order", 1530 + 679 + 679, 1530 + 679 + 679),
            ("C536379", "14527", "cancellation", -2750, 0),
            ("536380", None, "return", 0, 0),
            ("A563185", None, "adjustment", -1_106_206, 0),
            ("536381", "17850", "order", 700, 1000),
        ]
    )
    assert result.orders_by_kind == {"adjustment": 1, "cancellation": 1, "order": 2, "return": 1}


def test_the_result_tells_what_the_sheet_holds(engine: Engine, workspace: Workspace) -> None:
    told = imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET)).as_json()
    assert {name: told[name] for name in ("orders", "products", "accounts", "without_customer", "currency")} == {
        "orders": 5,
        "products": 4,
        "accounts": 2,
        "without_customer": 2,
        "currency": "GBP",
    }
    exact = Decimal("15.30") + 4 * Decimal("3.395") - Decimal("27.50") - Decimal("11062.06") + 7
    assert Decimal(told["amount"]) == exact
    assert told["created"] == {"accounts": 2, "products": 4}


def test_times_are_the_shops_wall_clock_and_the_earliest_of_an_order(engine: Engine, workspace: Workspace) -> None:
    imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    at = select(orders.c.ordered_at).where(orders.c.external_id.in_(["536365", "A563185"])).order_by(orders.c.id)
    assert rows(engine, at) == [
        (datetime(2010, 12, 1, 8, 26, tzinfo=UTC),),
        (datetime(2011, 8, 12, 13, 50, tzinfo=UTC),),
    ]


def test_equal_lines_of_one_order_are_both_kept_and_counted_from_one(engine: Engine, workspace: Workspace) -> None:
    imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    query = (
        select(order_lines.c.line, products.c.external_id, order_lines.c.quantity, order_lines.c.net_minor)
        .join_from(order_lines, products)
        .join(orders, orders.c.id == order_lines.c.order_id)
        .where(orders.c.external_id == "536365")
        .order_by(order_lines.c.line)
    )
    assert rows(engine, query) == [(1, "85123A", 6.0, 1530), (2, "71053", 2.0, 679), (3, "71053", 2.0, 679)]


def test_made_accounts_and_products_take_their_names_from_the_lines(engine: Engine, workspace: Workspace) -> None:
    imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    assert sorted(rows(engine, select(accounts.c.external_id, accounts.c.country))) == [
        ("14527", "DE"),
        ("17850", "GB"),
    ]
    assert ("71053", "LANTERN") in rows(engine, select(products.c.external_id, products.c.name))


def test_the_same_file_twice_changes_nothing(engine: Engine, workspace: Workspace) -> None:
    file = give_file(workspace, "s.csv", SHEET)
    imported(engine, workspace, "invoices", file)
    tables = (accounts, products, orders, order_lines)
    before = [rows(engine, select(table)) for table in tables]
    again = imported(engine, workspace, "invoices", file)
    assert counts(again) == {"rows": 8, "unchanged": 8}
    assert again.as_json()["created"] == {"accounts": 0, "products": 0}
    assert [rows(engine, select(table)) for table in tables] == before


def test_the_same_lines_in_another_order_and_another_format_are_the_same(engine: Engine, workspace: Workspace) -> None:
    imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    header, *lines = SHEET.splitlines()
    turned = gzip.compress("\n".join([header, *reversed(lines)]).encode())
    assert counts(imported(engine, workspace, "invoices", give_file(workspace, "t.csv.gz", turned))) == {
        "rows": 8,
        "unchanged": 8,
    }


def test_a_changed_line_replaces_its_orders_lines_and_no_others(engine: Engine, workspace: Workspace) -> None:
    imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    ids = sorted(rows(engine, select(orders.c.external_id, orders.c.id)))
    changed = SHEET.replace("71053,LANTERN,2,", "71053,LANTERN,1,", 1)
    result = imported(engine, workspace, "invoices", give_file(workspace, "s.csv", changed))
    assert counts(result) == {"rows": 8, "changed": 3, "unchanged": 5}
    assert sorted(rows(engine, select(orders.c.external_id, orders.c.id))) == ids
    net = rows(engine, select(orders.c.net_minor).where(orders.c.external_id == "536365"))
    lines = (
        select(func.sum(order_lines.c.net_minor)).join_from(order_lines, orders).where(orders.c.external_id == "536365")
    )
    assert net == [(1530 + 340 + 679,)]
    assert int(rows(engine, lines)[0][0]) == net[0][0]


def test_an_order_that_lost_a_line_loses_it_here(engine: Engine, workspace: Workspace) -> None:
    imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    shorter = "".join(line for line in SHEET.splitlines(keepends=True) if ",71053,LANTERN,-3," not in line)
    assert counts(imported(engine, workspace, "invoices", give_file(workspace, "s.csv", shorter)))["changed"] == 1
    assert (("536381", "17850", "order", 1000, 1000)) in rows(engine, ORDER)


def test_bad_rows_are_put_aside_and_the_good_ones_kept(engine: Engine, workspace: Workspace) -> None:
    bad = SHEET + (
        "536390,71053,=cmd|'/C calc'!A0,many,2010-12-02 08:00,1.00,17850,United Kingdom\n"
        "536391,71053,LANTERN,1,2010-13-45,1.00,17850,Atlantis\n"
        ",71053,LANTERN,1,2010-12-02 08:00,1.00,17850,United Kingdom\n"
        "536392,71053,LANTERN,1\n"
        "536393,71053,LANTERN,999999999,2010-12-02 08:00,9999999999,17850,United Kingdom\n"
        "536381,71053,LANTERN,1,2010-12-01 11:00,1.00,99999,United Kingdom\n"
    )
    result = imported(engine, workspace, "invoices", give_file(workspace, "s.csv", bad))
    assert counts(result) == {"rows": 14, "new": 8, "rejected": 6}
    assert result.rejects_file is not None
    assert result.rejects_file.name == f"invoices-{NOW:%Y%m%dT%H%M%SZ}.csv"
    assert result.rejects_file.stat().st_mode & 0o077 == 0
    text = result.rejects_file.read_text(encoding="utf-8").splitlines()
    assert text[0] == "line,reason," + HEADER.strip()
    assert [line.split(",")[0] for line in text[1:]] == ["10", "11", "12", "13", "14", "15"]
    assert "quantity: 'many' is not a number" in text[1]
    assert ",'=cmd|'/C calc'!A0,many," in text[1]
    assert "ordered_at: '2010-13-45' is not a date" in text[2]
    assert "country: 'Atlantis' is not a country" in text[2]
    assert "order is empty" in text[3]
    assert "has 4 cells where the header has 8" in text[4]
    assert "too large" in text[5]
    assert "account differs" in text[6]


def test_a_mended_file_brings_in_what_was_rejected(engine: Engine, workspace: Workspace) -> None:
    imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET.replace(",-3,", ",-x,")))
    assert (("536381", "17850", "order", 1000, 1000)) in rows(engine, ORDER)
    result = imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    assert counts(result) == {"rows": 8, "changed": 2, "unchanged": 6}
    assert (("536381", "17850", "order", 700, 1000)) in rows(engine, ORDER)


def test_a_rejects_file_of_lines_is_not_taken_for_whole_orders(sqlite_engine: Engine, workspace: Workspace) -> None:
    result = imported(
        sqlite_engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET.replace(",-3,", ",-x,"))
    )
    with pytest.raises(ConfigError, match="would replace the others"):
        imported(sqlite_engine, workspace, "invoices", result.rejects_file)


def test_a_missing_column_is_named_with_the_nearest_before_anything_is_written(
    sqlite_engine: Engine, workspace: Workspace
) -> None:
    file = give_file(workspace, "s.csv", SHEET.replace("StockCode", "Stock Code", 1).replace("Price", "price", 1))
    with pytest.raises(InputError) as caught:
        imported(sqlite_engine, workspace, "invoices", file)
    assert [str(problem) for problem in caught.value.problems] == [
        "sources.yaml:4:40: s.csv has no column 'StockCode' (did you mean 'Stock Code'?)",
        "sources.yaml:5:52: s.csv has no column 'Price' (did you mean 'price'?)",
    ]
    assert rows(sqlite_engine, select(func.count()).select_from(imports)) == [(0,)]


def test_an_import_cut_short_is_mended_by_running_it_again(engine: Engine, workspace: Workspace) -> None:
    lines = [
        f"{order},P{line},Thing,{line + 1},2010-12-01 08:{line:02},1.25,{order % 97},France\n"
        for order in range(2_500)
        for line in range(20)
    ]
    file = give_file(workspace, "s.csv", HEADER + "".join(lines))

    def pull_the_plug(progress: Progress) -> None:
        if progress.stage == "order lines":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(engine, workspace, "invoices", file, progress=pull_the_plug)
    stored = rows(engine, select(func.count()).select_from(order_lines))[0][0]
    assert 0 < stored < 50_000
    assert counts(imported(engine, workspace, "invoices", file)) == {
        "rows": 50_000,
        "new": 50_000 - stored,
        "unchanged": stored,
    }
    assert rows(engine, select(func.count(), func.sum(orders.c.net_minor))) == [(2_500, 2_500 * 210 * 125)]
    assert counts(imported(engine, workspace, "invoices", file)) == {"rows": 50_000, "unchanged": 50_000}
    begun_and_ended = rows(engine, select(func.count(), func.count(imports.c.finished_at)))
    assert begun_and_ended == [(3, 2)]


def test_lines_of_known_orders_leave_the_orders_as_they_are(engine: Engine, workspace: Workspace) -> None:
    give_sources(
        workspace,
        "sources:\n"
        "  heads: {kind: orders, currency: EUR, columns: {order: Nr, ordered_at: At, amount: Net}}\n"
        "  lines:\n    kind: order_lines\n    currency: EUR\n    create: [products]\n"
        "    columns: {order: Nr, product: Sku, quantity: Qty, amount: Net, unit_cost: Cost}\n",
    )
    imported(engine, workspace, "heads", give_file(workspace, "h.csv", "Nr,At,Net\nO1,2026-01-02,10.00\n"))
    file = give_file(workspace, "l.csv", "Nr,Sku,Qty,Net,Cost\nO1,A,2,7.50,1.105\nO2,A,1,1.00,1\nO1,B,1,1.50,\n")
    result = imported(engine, workspace, "lines", file)
    assert counts(result) == {"rows": 3, "new": 2, "rejected": 1}
    assert rows(engine, select(orders.c.external_id, orders.c.net_minor, orders.c.gross_minor)) == [("O1", 1000, 1000)]
    cost = select(order_lines.c.net_minor, order_lines.c.cost_minor).order_by(order_lines.c.line)
    assert rows(engine, cost) == [(750, 221), (150, None)]
    assert counts(imported(engine, workspace, "lines", file)) == {"rows": 3, "unchanged": 2, "rejected": 1}
    assert result.rejects_file is not None
    assert "unknown order 'O2'" in result.rejects_file.read_text(encoding="utf-8")


def test_an_import_leaves_its_counts_in_the_database(engine: Engine, workspace: Workspace) -> None:
    result = imported(engine, workspace, "invoices", give_file(workspace, "s.csv", SHEET))
    [(source, started, finished, stored)] = rows(
        engine, select(imports.c.source, imports.c.started_at, imports.c.finished_at, imports.c.counts)
    )
    assert (source, started) == ("invoices", NOW)
    assert finished is not None
    assert stored == result.as_json()
