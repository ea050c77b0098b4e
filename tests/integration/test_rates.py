"""Money in other currencies is converted exactly, alike on every database, or refused."""

from __future__ import annotations

from collections import defaultdict
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from kernel.clock import to_ms
from kernel.errors import ConfigError, InputError
from kernel.vocabulary import Subject
from segments.buyers import read_purchases
from segments.rates import Rates, read_rates
from store.engine import reading
from tests.purchase_facts import AS_OF, DAY, Facts, random_facts, store

RATES = """\
from,currency,rate
1900-01-01,USD,0.75
1970-01-02,USD,0.8421
2025-12-01,USD,0.7333333333
1900-01-01,JPY,0.00521
"""


def rates(folder: Path, text: str = RATES, home: str = "GBP") -> Rates:
    (folder / "rates.csv").write_text(text, encoding="utf-8")
    return read_rates(folder / "rates.csv", home, shown="rates.csv")


def by_hand(order: dict[str, object]) -> Fraction:
    day = int(str(order["ordered_at"])) // DAY
    first_of_december, second_of_january = 20_423, 1
    worth = {
        "GBP": "1",
        "JPY": "0.521",  # A yen has no minor unit, a pound has 100.
        "USD": "0.7333333333" if day >= first_of_december else "0.8421" if day >= second_of_january else "0.75",
    }
    return Fraction(worth[str(order["currency"])])


def expected(facts: Facts, column: str, window_ms: int) -> dict[int, list[int]]:
    """Return net, gross and returned, all in all and within a window: each day's money of a currency rounded once."""
    parts: dict[int, dict[object, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0] * 5))
    rate: dict[object, Fraction] = {}
    buyers = set()
    now = to_ms(AS_OF)
    for order in facts.orders:
        gone = order["cancelled_at"] is not None and order["cancelled_at"] < now
        if order[column] is None or order["ordered_at"] >= now or gone:
            continue
        key = (order["currency"], order["ordered_at"] // DAY)
        rate[key] = by_hand(order)
        is_order, late = order["kind"] == "order", order["ordered_at"] >= window_ms
        if is_order:
            buyers.add(order[column])
        sums = parts[order[column]][key]
        sums[0] += order["net_minor"]
        sums[1] += order["gross_minor"] if is_order else 0
        sums[2] += max(0, -order["net_minor"]) if not is_order else 0
        sums[3] += order["net_minor"] if late else 0
        sums[4] += order["gross_minor"] if is_order and late else 0
    return {
        one: [sum(round(sums[at] * rate[key]) for key, sums in parts[one].items()) for at in range(5)] for one in buyers
    }


@pytest.mark.parametrize("subject", list(Subject))
def test_orders_are_converted_at_the_rate_of_their_day(engine: Engine, tmp_path: Path, subject: Subject) -> None:
    facts = random_facts(1, currencies=("GBP", "USD", "JPY"))
    store(engine, facts)
    window = AS_OF - AS_OF.replace(month=1)
    with reading(engine) as connection:
        found = read_purchases(connection, subject, as_of=AS_OF, window=window, currency="GBP", rates=rates(tmp_path))
    wanted = expected(facts, f"{subject}_id", to_ms(AS_OF - window))
    read = {
        one: [
            found.purchases.net_minor[at].item(),
            found.purchases.gross_minor[at].item(),
            found.purchases.returned_minor[at].item(),
            found.window_net_minor[at].item(),
            found.window_gross_minor[at].item(),
        ]
        for at, one in enumerate(found.purchases.ids.tolist())
    }
    assert read == wanted


@given(
    amount=st.integers(min_value=-(10**15), max_value=10**15),
    rate=st.decimals(min_value="0.0000000001", max_value=900, places=10),
    currency=st.sampled_from(["USD", "JPY", "KWD"]),
)
def test_conversion_is_exact_and_rounds_halves_to_even(amount: int, rate: Decimal, currency: str) -> None:
    table = Rates(
        path="",
        home="GBP",
        days={currency: np.array([0])},
        worth={currency: np.array([int(rate.scaleb(10))])},
    )
    exponent = {"USD": 2, "JPY": 0, "KWD": 3}[currency]
    exact = Fraction(amount) * Fraction(rate) * Fraction(10) ** (2 - exponent)
    assert table.convert(currency, np.array([5]), np.array([amount])).tolist() == [round(exact)]


def test_halves_go_to_the_even_neighbour(tmp_path: Path) -> None:
    half = rates(tmp_path, "from,currency,rate\n2020-01-01,USD,0.5\n")
    amounts = np.array([1, 3, 5, -1, -3, -5])
    even = [int((Decimal(one) / 2).quantize(Decimal(1), ROUND_HALF_EVEN)) for one in amounts.tolist()]
    assert half.convert("USD", np.full(6, 20_000), amounts).tolist() == even == [0, 2, 2, 0, -2, -2]


def test_a_currency_without_a_rate_and_a_day_before_the_first_are_refused(engine: Engine, tmp_path: Path) -> None:
    facts = random_facts(2, currencies=("GBP", "USD"))
    store(engine, facts)
    too_late = rates(tmp_path, "from,currency,rate\n2026-03-01,USD,0.8\n")
    other = rates(tmp_path, "from,currency,rate\n2000-01-01,EUR,0.8\n")
    with reading(engine) as connection:
        with pytest.raises(
            ConfigError, match=r"rates.csv: no rate for USD on .*: the first one given is from 2026-03-01"
        ):
            read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, currency="GBP", rates=too_late)
        with pytest.raises(ConfigError, match=r"rates.csv: no rate for USD; add a line like "):
            read_purchases(connection, Subject.ACCOUNT, as_of=AS_OF, currency="GBP", rates=other)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "rates.csv:1:1: the first line must be from,currency,rate, not missing"),
        ("day,currency,rate\n", "rates.csv:1:1: the first line must be from,currency,rate, not day,currency,rate"),
        ("from,currency,rate\n2026-1-1,USD,1\n", "rates.csv:2:1: '2026-1-1' is no date; write it as 2026-01-31"),
        (
            "from,currency,rate\n\n2026-01-01,usd,1\n",
            "rates.csv:3:1: 'usd' is no currency; write its ISO 4217 code, as USD",
        ),
        (
            "from,currency,rate\n2026-01-01,GBP,1\n",
            "rates.csv:2:1: GBP is the workspace's own currency; it has no rate",
        ),
        ("from,currency,rate\n2026-01-01,USD,0\n", "rates.csv:2:1: the rate 0 is not above 0 and at most 1,000,000"),
        ("from,currency,rate\n2026-01-01,USD,-1\n", "rates.csv:2:1: the rate -1 is not above 0"),
        ("from,currency,rate\n2026-01-01,USD,NaN\n", "rates.csv:2:1: "),
        ("from,currency,rate\n2026-01-01,USD,Infinity\n", "rates.csv:2:1: "),
        ("from,currency,rate\n2026-01-01,USD,1e999999999\n", "rates.csv:2:1: "),
        ('from,currency,rate\n2026-01-01,USD,"0,8"\n', "rates.csv:2:1: '0,8' is no rate; write a number with a point"),
        (
            "from,currency,rate\n2026-01-01,USD,0.12345678901\n",
            "rates.csv:2:1: the rate 0.12345678901 has more than 10 decimals",
        ),
        ("from,currency,rate\n2026-01-01,USD\n", "rates.csv:2:1: 2 values where there are 3 columns"),
        (
            "from,currency,rate\n2026-01-01,USD,1\n2026-01-01,USD,2\n",
            "rates.csv:3:1: a second rate for USD from 2026-01-01",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError) as refused:
        rates(tmp_path, text)
    assert str(refused.value).startswith(problem)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        rates(tmp_path, "from,currency,rate\nx,USD,1\n2026-01-01,USD,1\n2026-01-02,US,1\n")
    assert [problem.line for problem in refused.value.problems] == [2, 4]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rates.csv: the rates cannot be read: .*No such file"):
        read_rates(tmp_path / "none.csv", "GBP", shown="rates.csv")


def test_a_file_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    found = rates(tmp_path, "\ufefffrom, currency, rate\r\n2026-01-02, USD, 0.8\r\n2026-01-01, USD, 0.7\r\n,,\r\n")
    assert found.worth["USD"].tolist() == [7 * 10**9, 8 * 10**9]
    assert found.currencies == ("USD",)
