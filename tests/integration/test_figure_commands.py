"""`carillon economics` and `carillon stock`, as typed."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from cli.main import build
from kernel.clock import system_clock
from kernel.settings import Workspace
from store.engine import open_database, writing
from store.schema import migrate
from store.tables import accounts, order_lines, orders, products, spend, stock_levels


@pytest.fixture
def shop(workspace: Workspace) -> Workspace:
    """A workspace with its embedded database: one customer of ads, one product that sells and one that lies."""
    engine = open_database(f"sqlite:///{workspace.data_dir / 'carillon.db'}")
    migrate(engine)
    now = system_clock()
    with writing(engine) as connection:
        connection.execute(accounts.insert(), {"id": 1, "external_id": "A1", "attributes": {"channel": "ads"}})
        row = {"id": 1, "external_id": "O1", "account_id": 1, "ordered_at": now - timedelta(days=5), "kind": "order"}
        connection.execute(orders.insert(), row | {"net_minor": 90_000, "gross_minor": 90_000, "currency": "GBP"})
        for number, name in enumerate(("pump", "relic"), start=1):
            row = {"id": number, "external_id": name, "name": name, "cost_minor": 500, "currency": "GBP"}
            connection.execute(products.insert(), row)
            level = {"product_id": number, "at": now - timedelta(days=100), "on_hand": 90.0}
            connection.execute(stock_levels.insert(), level)
        line = {"order_id": 1, "line": 1, "product_id": 1, "quantity": 45.0, "net_minor": 90_000}
        connection.execute(order_lines.insert(), line)
        period = {"starts_at": now - timedelta(days=30), "ends_at": now, "amount_minor": 30_000, "currency": "GBP"}
        connection.execute(spend.insert(), {"external_id": "x", "channel": "ads"} | period)
    engine.dispose()
    return workspace


def _run(workspace: Workspace, *words: str) -> str:
    done = CliRunner().invoke(build(["figures"]), [*words, "--workspace", str(workspace.root)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_economics_prints_a_table_and_json(shop: Workspace) -> None:
    assert "300.00" in _run(shop, "economics")
    row = json.loads(_run(shop, "economics", "--json"))["rows"][0]
    assert (row["channel"], row["new_customers"], row["cac_minor"]["value"]) == ("ads", 1, 30_000)
    assert row["roi_to_date"]["value"] == pytest.approx(2.0)


def test_stock_picks_slow_movers_and_what_runs_out(shop: Workspace) -> None:
    def named(*words: str) -> list[str]:
        return [row["product"] for row in json.loads(_run(shop, "stock", "--json", *words))["products"]]

    assert named() == ["pump", "relic"]
    assert named("--slow", "200") == ["relic"]  # 90 pieces at 45 in 90 days last 180 days
    assert named("--short", "180") == ["pump"]
    assert "in total: turnover 0.25" in _run(shop, "stock")
