"""Both sheets of UCI Online Retail II, imported by the example workspace: each count to the row, each sum to the mill.

The sheets overlap: 1 to 9 December 2010 stands in both. The overlapping 1,088 invoices have the same lines in both
sheets but for blanks and spelling in descriptions, so each is one order whichever sheet comes first.

Two numbers in circulation differ from these by one row. Online Retail (541,909 rows, GBP 9,747,747.934) lacks one line
that the second sheet of Online Retail II has: POSTAGE, GBP 18.00, on invoice 581587; so the union has 1,044,848 rows
and GBP 18,909,762.118, not 1,044,847 and GBP 18,909,744.118. And of the first sheet's 4,632 stock codes one, "47503J ",
differs from another only by the blank at its end; Carillon takes both for one product.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import Engine, func, select

from kernel.settings import Workspace, load_workspace
from store.engine import open_database
from store.ingest.importing import run_import
from store.ingest.result import ImportResult
from store.schema import migrate
from store.tables import accounts, order_lines, orders, products
from tests.importing import NOW, rows

pytestmark = pytest.mark.data

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND = "online_retail_2009-2010.parquet", "online_retail_2010-2011.parquet"
POSTAGE = Decimal("18.00")


def data_file(name: str) -> Path:
    """Return the path of a real data file; fail with a reason where it is absent."""
    folder = Path(os.environ.get("CARILLON_DATA") or ROOT.parent / "shared" / "data")
    path = folder / name
    if not path.is_file():
        pytest.fail(f"{name} is not in {folder}; set CARILLON_DATA to the folder that holds it (docs/importing.md)")
    return path


@dataclass(frozen=True)
class Imported:
    engine: Engine
    workspace: Workspace
    first: ImportResult
    second: ImportResult


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    """The example workspace with both sheets imported, the first year first."""
    root = tmp_path_factory.mktemp("online-retail") / "workspace"
    shutil.copytree(ROOT / "examples" / "online-retail", root, ignore=shutil.ignore_patterns(".carillon"))
    data_file(SECOND)
    workspace = load_workspace(root, {"CARILLON_DATA": str(data_file(FIRST).parent)})
    engine = open_database(workspace.database_url)
    migrate(engine)
    first = run_import(engine, workspace, "invoices", data_file(FIRST), now=NOW)
    second = run_import(engine, workspace, "invoices", None, now=NOW)
    yield Imported(engine, workspace, first, second)
    engine.dispose()


def test_the_first_sheet_has_its_counts_and_its_sum(both: Imported) -> None:
    told = both.first.as_json()
    assert (told["rows"], told["new"], told["rejected"]) == (525_461, 525_461, 0)
    assert (told["orders"], told["accounts"], told["without_customer"]) == (28_816, 4_383, 107_927)
    assert told["products"] == 4_632 - 1
    assert Decimal(told["amount"]) == Decimal("9539484.634")
    assert told["orders_by_kind"] == {"adjustment": 3, "cancellation": 4_592, "order": 22_100, "return": 2_121}


def test_the_second_sheet_has_its_counts_and_its_sum(both: Imported) -> None:
    told = both.second.as_json()
    assert (told["rows"], told["rejected"]) == (541_910, 0)
    assert (told["orders"], told["products"], told["accounts"]) == (25_900, 4_070, 4_372)
    assert told["without_customer"] == 135_080
    assert Decimal(told["amount"]) == Decimal("9747747.934") + POSTAGE
    assert told["orders_by_kind"] == {"adjustment": 3, "cancellation": 3_836, "order": 20_725, "return": 1_336}


def test_the_overlap_is_in_both_sheets_and_counts_once(both: Imported) -> None:
    assert both.second.tally.unchanged == 22_523
    assert both.second.tally.changed == 0
    assert both.second.tally.new == 541_910 - 22_523
    assert both.first.tally.orders + both.second.tally.orders - 1_088 == 53_628


def test_the_union_has_the_lines_invoices_and_customers_it_should(both: Imported) -> None:
    count = [
        rows(both.engine, select(func.count()).select_from(table))[0][0] for table in (order_lines, orders, accounts)
    ]
    assert count == [1_044_847 + 1, 53_628, 5_942]
    assert rows(both.engine, select(func.count()).select_from(products)) == [(5_304,)]


def test_the_union_has_the_money_it_should(both: Imported) -> None:
    sheets = [pl.read_parquet(data_file(name)) for name in (FIRST, SECOND)]
    overlap = sheets[1].filter(pl.col("Invoice").is_in(sheets[0]["Invoice"].unique().implode()))
    twice = sum((q * Decimal(str(p)) for q, p in overlap.select("Quantity", "Price").iter_rows()), Decimal(0))
    assert both.first.amount is not None
    assert both.second.amount is not None
    assert both.first.amount + both.second.amount - twice == Decimal("18909744.118") + POSTAGE
    stored = rows(both.engine, select(func.sum(orders.c.net_minor)))[0][0]
    lines = rows(both.engine, select(func.sum(order_lines.c.net_minor)))[0][0]
    assert stored == lines
    # Each line is rounded to the penny; a few thousand lines have prices with a third decimal.
    assert abs(Decimal(stored) / 100 - (Decimal("18909744.118") + POSTAGE)) < 1


def test_times_are_london_wall_clock(both: Imported) -> None:
    extent = select(func.min(orders.c.ordered_at), func.max(orders.c.ordered_at))
    assert rows(both.engine, extent) == [
        (datetime(2009, 12, 1, 7, 45, tzinfo=UTC), datetime(2011, 12, 9, 12, 50, tzinfo=UTC))
    ]


def test_both_sheets_again_change_nothing(both: Imported) -> None:
    for name, count in ((SECOND, 541_910), (FIRST, 525_461)):
        again = run_import(both.engine, both.workspace, "invoices", data_file(name), now=NOW).tally
        assert (again.new, again.changed, again.unchanged, again.rejected) == (0, 0, count, 0)
        assert (again.created_accounts, again.created_products) == (0, 0)
