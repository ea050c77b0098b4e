"""The invented wholesaler: the same every time, free of real addresses, and with customers that differ."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from pathlib import Path

import phonenumbers
import polars as pl
import pytest

from demo.shop import BAD_CONTACT_ROWS, Shop, make_shop, write_shop

ANCHOR = date(2026, 11, 21)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop(7, ANCHOR)


@pytest.fixture(scope="module")
def orders(shop: Shop) -> pl.DataFrame:
    return shop.trade.orders.with_columns(net=pl.col("net_amount"))


@pytest.fixture(scope="module")
def groups(orders: pl.DataFrame) -> pl.DataFrame:
    """Accounts with R and F in quintiles by tie-stable rank, and their net money: a scoring of the test's own."""
    buys = (
        orders.filter(pl.col("kind") == "order")
        .group_by("account_no")
        .agg(last=pl.col("ordered_at").max(), orders=pl.col("order_no").n_unique())
    )
    money = orders.group_by("account_no").agg(money=pl.col("net").sum())
    scored = buys.join(money, on="account_no")
    count = len(scored)
    return scored.with_columns(
        r=((pl.col("last").rank("min") - 1) * 5 // count + 1).cast(pl.Int64),
        f=((pl.col("orders").rank("min") - 1) * 5 // count + 1).cast(pl.Int64),
    )


def test_the_shop_has_the_size_of_a_wholesaler(shop: Shop, orders: pl.DataFrame) -> None:
    assert len(shop.accounts) == 2_000
    assert len(shop.contacts) == 6_000
    assert 250 < sum(account.parent_code is not None for account in shop.accounts) < 700
    assert 20_000 < orders.filter(pl.col("kind") == "order")["order_no"].n_unique() < 50_000
    first, last = orders["ordered_at"].min(), orders["ordered_at"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    assert 700 < (last - first).days <= 730


def test_the_same_seed_and_anchor_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_shop(make_shop(3, ANCHOR, accounts=120, contacts=360), tmp_path / folder)
    write_shop(make_shop(4, ANCHOR, accounts=120, contacts=360), tmp_path / "other-seed")

    def digests(folder: str) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / folder).iterdir()}

    assert digests("one") == digests("two")
    assert digests("one")["orders.parquet"] != digests("other-seed")["orders.parquet"]


def test_nothing_in_the_shop_is_newer_than_its_anchor(shop: Shop, orders: pl.DataFrame) -> None:
    midnight = datetime(2026, 11, 21)  # noqa: DTZ001 - the export writes naive UTC
    newest = orders["ordered_at"].max()
    assert isinstance(newest, datetime)
    assert newest < midnight
    assert max(row.entered_at for row in shop.stages) < midnight
    assert max(row.at for row in shop.events) < midnight
    assert max(consent.at for consent in shop.consents) < midnight
    counted = shop.trade.stock["counted_on"].max()
    assert isinstance(counted, date)
    assert counted < ANCHOR


def test_every_address_is_reserved_and_given_once(shop: Shop) -> None:
    emails = [contact.email for contact in shop.contacts if contact.email]
    assert all(email.endswith(".example") for email in emails)
    assert len(set(emails)) == len(emails)
    phones = [contact.phone for contact in shop.contacts if contact.phone]
    assert len(set(phones)) == len(phones)
    for phone in phones:
        assert phonenumbers.is_possible_number(phonenumbers.parse(phone)), phone
        fictional = ("5550" in phone and phone.startswith("+1")) or phone.startswith(
            ("+4917139200", "+49176040690", "+46701740", "+4420794600", "+447700900", "+33639980")
        )
        assert fictional, phone


def test_every_group_of_the_grid_is_there_and_the_best_hold_most_of_the_money(groups: pl.DataFrame) -> None:
    assert {(r, f) for r, f in groups.select("r", "f").iter_rows()} >= {(5, 5), (4, 4), (3, 3), (1, 5), (5, 1), (4, 1)}
    champions = groups.filter((pl.col("r") == 5) & (pl.col("f") >= 4))
    assert champions["money"].sum() / groups["money"].sum() > 0.35
    for low_r, low_f in ((1, 5), (1, 3), (5, 1), (4, 1), (3, 3), (1, 1)):
        assert len(groups.filter((pl.col("r") == low_r) & (pl.col("f") == low_f))) >= 10


def test_the_lines_of_an_order_sum_to_its_amount(shop: Shop) -> None:
    sums = shop.trade.order_lines.group_by("order_no").agg(
        lines=(pl.col("quantity") * pl.col("unit_price")).sum().round(2)
    )
    both = shop.trade.orders.join(sums, on="order_no", how="full")
    assert len(both) == len(shop.trade.orders)
    assert both["lines"].to_list() == pytest.approx(both["net_amount"].to_list(), abs=0.005)


def test_spending_is_heavy_tailed(groups: pl.DataFrame) -> None:
    best_first = groups["money"].sort(descending=True)
    assert best_first.head(len(best_first) // 5).sum() / best_first.sum() > 0.7


def test_autumn_sells_more_than_summer(orders: pl.DataFrame) -> None:
    months = orders.filter(pl.col("kind") == "order").group_by(pl.col("ordered_at").dt.month()).len()
    by_month = dict(months.iter_rows())
    assert by_month[10] > 1.1 * by_month[8]


def test_a_reversal_names_an_order_comes_after_it_and_takes_back_no_more(orders: pl.DataFrame) -> None:
    placed = {
        number[3:]: (at, money)
        for number, at, money in orders.filter(pl.col("kind") == "order")
        .group_by("order_no")
        .agg(pl.col("ordered_at").min(), pl.col("net").sum())
        .iter_rows()
    }
    back = (
        orders.filter(pl.col("kind") != "order")
        .group_by("order_no", "kind")
        .agg(pl.col("ordered_at").min(), pl.col("net").sum())
    )
    assert set(back["kind"]) == {"return", "cancellation"}
    for number, kind, at, money in back.iter_rows():
        bought_at, paid = placed[number[3:]]
        assert at > bought_at
        assert -paid - 0.01 <= money < 0
        assert kind == "return" or abs(money + paid) < 0.01


def test_consents_are_partial_and_some_were_taken_back(shop: Shop) -> None:
    granted = {(word.contact_code, word.channel) for word in shop.consents if word.status == "granted"}
    withdrawn = {(word.contact_code, word.channel) for word in shop.consents if word.status == "withdrawn"}
    email = sum(channel == "email" for _, channel in granted)
    assert 0.75 < email / len(shop.contacts) < 0.9
    assert 300 < sum(channel == "sms" for _, channel in granted) < 2_000
    assert withdrawn < granted
    assert 0.02 < len(withdrawn) / len(granted) < 0.12


def test_at_every_hour_some_accounts_work_and_some_sleep(shop: Shop) -> None:
    from datetime import UTC, timedelta
    from zoneinfo import ZoneInfo

    zones = {ZoneInfo(account.timezone) for account in shop.accounts}
    for hour in range(24):
        instant = datetime(2026, 11, 21, tzinfo=UTC) + timedelta(hours=hour)
        at_work = {8 <= instant.astimezone(zone).hour < 18 for zone in zones}
        assert at_work == {True, False}


def test_the_contacts_file_holds_exactly_the_rows_that_are_wrong_on_purpose(tmp_path: Path) -> None:
    small = make_shop(3, ANCHOR, accounts=60, contacts=200)
    rows = write_shop(small, tmp_path)
    assert rows["contacts.csv"] == 200 + len(BAD_CONTACT_ROWS)
    text = (tmp_path / "contacts.csv").read_text(encoding="utf-8")
    assert all(bad[4] in text for bad in BAD_CONTACT_ROWS)
