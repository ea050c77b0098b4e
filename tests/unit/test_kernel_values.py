"""Durations, rates, shares, money, instants, ids: as people write them and as the ledger keeps them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import from_ms, system_clock, to_ms
from kernel.errors import InputError, Problem
from kernel.ids import boot_id, digest, host_name, message_id_header, new_installation
from kernel.quantities import (
    Rate,
    format_minor,
    minor_exponent,
    parse_duration,
    parse_rate,
    parse_share,
    to_minor,
)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30s", timedelta(seconds=30)),
        ("30 sec", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("15 min", timedelta(minutes=15)),
        ("8h", timedelta(hours=8)),
        ("1 hour", timedelta(hours=1)),
        ("7d", timedelta(days=7)),
        ("2 weeks", timedelta(weeks=2)),
        (" 3d ", timedelta(days=3)),
        ("0s", timedelta(0)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "1.5h", "7 d 3 h", "1month", "7 D", "٣d", "9999999999d"])
def test_what_is_no_duration_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a number and a unit, as in 30s"):
        parse_duration(text)


def test_a_duration_ends_within_a_lifetime() -> None:
    assert parse_duration("5000 weeks") == timedelta(weeks=5000)
    with pytest.raises(ValueError, match="longer than 36500 days"):
        parse_duration("999999999w")


def test_a_rate_is_a_count_and_a_unit() -> None:
    assert parse_rate("600/hour") == Rate(count=600, per=timedelta(hours=1))
    assert str(parse_rate("10 / second")) == "10/second"


@pytest.mark.parametrize("text", ["", "0/hour", "600", "600/month", "-1/hour", "1.5/second", "/hour"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate; write a count and a unit"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("0.1", 0.1), ("0%", 0.0), ("100%", 1.0), (" 12.5% ", 0.125)]
)
def test_a_share_is_a_percentage_or_a_fraction(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "ten", "101%", "-1%", "1.01", "nan", "inf%", "10 % of all"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a share|is outside 0% to 100%"):
        parse_share(text)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.50", "EUR", 1250),
        ("12.5", "GBP", 1250),
        (12.1, "EUR", 1210),
        (0.285, "EUR", 28),
        ("0.015", "EUR", 2),
        ("0.025", "EUR", 2),
        ("-3.20", "EUR", -320),
        ("1200", "JPY", 1200),
        ("1.234", "KWD", 1234),
        (Decimal("1E+3"), "EUR", 100_000),
        (7, "EUR", 700),
    ],
)
def test_money_is_whole_minor_units_of_its_currency(amount: str | float | Decimal, currency: str, minor: int) -> None:
    assert to_minor(amount, currency) == minor


@pytest.mark.parametrize("amount", ["", "twelve", "1,50", "nan", "inf", "-Infinity", float("nan"), "1e30"])
def test_what_is_no_amount_is_refused(amount: str | float) -> None:
    with pytest.raises(ValueError, match="is not an amount of money"):
        to_minor(amount, "EUR")


def test_money_is_shown_with_its_currency() -> None:
    assert format_minor(123_450, "EUR") == "EUR 1,234.50"
    assert format_minor(-5, "EUR") == "EUR -0.05"
    assert format_minor(1234, "JPY") == "JPY 1,234"
    assert minor_exponent("XXX") == 2


@given(st.integers(-(10**15), 10**15), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_minor_units_come_back_from_their_major_form(minor: int, currency: str) -> None:
    assert to_minor(Decimal(minor).scaleb(-minor_exponent(currency)), currency) == minor


# --- instants ------------------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_comes_back_to_the_millisecond_before(instant: datetime) -> None:
    assert timedelta(0) <= instant - from_ms(to_ms(instant)) < timedelta(milliseconds=1)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_stored_milliseconds_come_back_exactly(milliseconds: int) -> None:
    assert to_ms(from_ms(milliseconds)) == milliseconds


def test_an_instant_is_the_same_whatever_its_zone() -> None:
    east = datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    assert to_ms(east) == to_ms(datetime(2026, 1, 1, tzinfo=UTC)) == 1_767_225_600_000


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="must be timezone-aware"):
        to_ms(datetime(2026, 1, 1))  # noqa: DTZ001 - naive on purpose


def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert system_clock().utcoffset() == timedelta(0)


# --- ids -----------------------------------------------------------------------------------------------------


def test_every_attempt_of_a_message_bears_the_same_id() -> None:
    assert message_id_header(7, "abc123", "acme.example") == "<m7.abc123@acme.example>"


def test_installations_have_names_of_their_own() -> None:
    assert len({new_installation() for _ in range(100)}) == 100


def test_a_digest_knows_where_its_parts_end() -> None:
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("é") == digest("é".encode())


def test_this_machine_has_a_name_and_a_boot() -> None:
    assert host_name()
    assert boot_id() == boot_id()


# --- errors --------------------------------------------------------------------------------------------------


def test_problems_are_told_in_the_order_of_the_files() -> None:
    def at(path: str, line: int, column: int) -> Problem:
        return Problem(path=path, line=line, column=column, message="m", hint="h" if column == 2 else "")

    error = InputError(iter([at("b", 1, 1), at("a", 9, 1), at("a", 2, 2), at("a", 0, 0)]))
    assert str(error) == "a: m\na:2:2: m (h)\na:9:1: m\nb:1:1: m"
