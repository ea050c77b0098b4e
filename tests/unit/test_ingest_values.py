"""Cells into values: money, times, addresses, places, and cells no spreadsheet runs."""

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import from_ms
from kernel.quantities import to_minor
from store.ingest.addresses import normal_email, normal_phone
from store.ingest.fields import FieldType
from store.ingest.money import MAX_AMOUNT, MAX_NUMBER, PRODUCT_SCALE, SCALE, exact_sum, in_minor, scaled
from store.ingest.places import country_code, is_country, language_tag, zone_name
from store.ingest.rejects import safe_cell
from store.ingest.sources import date_pattern
from store.ingest.values import ATTRIBUTE_CONVERTERS, CONVERTERS, MAX_ATTRIBUTE, Reading, refusal, stripped

LONDON = Reading(zone="Europe/London")


def converted(kind: FieldType, texts: list[str | None], reading: Reading = LONDON) -> list[object]:
    return CONVERTERS[kind](stripped(pl.Series(texts, dtype=pl.String)), reading).to_list()


def instants(texts: list[str], reading: Reading = LONDON) -> list[datetime | None]:
    return [None if ms is None else from_ms(int(str(ms))) for ms in converted(FieldType.INSTANT, texts, reading)]


@given(st.integers(-(10**6), 10**6), st.decimals(-(10**6), 10**6, places=5), st.sampled_from(["GBP", "JPY", "KWD"]))
def test_a_column_is_rounded_as_a_single_amount_is(quantity: int, price: Decimal, currency: str) -> None:
    product = scaled(pl.Series([str(quantity)]), MAX_NUMBER) * scaled(pl.Series([f"{price:f}"]), MAX_AMOUNT)
    assert in_minor(product, PRODUCT_SCALE, pl.Series([currency]))[0] == to_minor(quantity * price, currency)


@pytest.mark.parametrize(
    ("text", "minor"), [("0.005", 0), ("0.015", 2), ("-0.005", 0), ("-0.015", -2), ("1e2", 10_000)]
)
def test_halves_go_to_the_even_penny(text: str, minor: int) -> None:
    assert in_minor(scaled(pl.Series([text]), MAX_AMOUNT), SCALE, pl.Series(["GBP"])).to_list() == [minor]


def test_the_sum_of_many_tenths_is_exact() -> None:
    assert exact_sum(scaled(pl.Series(["0.1"] * 30), MAX_AMOUNT), SCALE) == Decimal(3)


def test_numbers_that_are_none_or_too_large_are_refused() -> None:
    assert converted(FieldType.NUMBER, ["", None, "abc", "NaN", "1,5", "10000000000", "--1"]) == [None] * 7


NO_NUMBERS: list[str | None] = ["1e999", "-1e999", "inf", "-inf", "+Infinity", "NaN", "-nan"]


@pytest.mark.parametrize("reading", [LONDON, Reading(zone="UTC", typed=True), Reading(zone="UTC", decimal_comma=True)])
def test_a_number_that_is_infinite_or_none_is_read_nowhere(reading: Reading) -> None:
    for kind in (FieldType.NUMBER, FieldType.MONEY):
        assert converted(kind, NO_NUMBERS, reading) == [None] * len(NO_NUMBERS)
        assert ATTRIBUTE_CONVERTERS[kind](pl.Series(NO_NUMBERS), reading).to_list() == [None] * len(NO_NUMBERS)


def test_numbers_are_read_up_to_the_limit_their_refusal_names() -> None:
    edges: list[str | None] = [str(MAX_NUMBER), str(-MAX_NUMBER), f"{MAX_NUMBER}.1", str(-MAX_NUMBER - 1)]
    assert converted(FieldType.NUMBER, edges) == [MAX_NUMBER * 10**SCALE, -MAX_NUMBER * 10**SCALE, None, None]
    assert converted(FieldType.MONEY, [str(MAX_AMOUNT), str(MAX_AMOUNT + 1)]) == [MAX_AMOUNT * 10**SCALE, None]
    large = pl.Series([str(MAX_ATTRIBUTE), str(-MAX_ATTRIBUTE), str(MAX_ATTRIBUTE + 1), "1e300"])
    attributes = ATTRIBUTE_CONVERTERS[FieldType.NUMBER](large, LONDON).to_list()
    assert attributes == [MAX_ATTRIBUTE, -MAX_ATTRIBUTE, None, None]
    typed = Reading(zone="UTC", typed=True)
    assert refusal(FieldType.NUMBER, typed) == "is not a number up to a thousand million (as an attribute, up to 10¹⁵)"
    assert refusal(FieldType.MONEY, typed) == "is not an amount of money up to ten thousand million"
    assert refusal(FieldType.NUMBER, LONDON).startswith("is not a number with a decimal point (decimal_comma in")


def test_a_decimal_comma_is_read_where_the_source_says_so() -> None:
    german = Reading(zone="UTC", decimal_comma=True)
    texts = ["1.234,50", "1234,5", "-3", "1 234,5", "1.5", "1,234.5"]
    assert converted(FieldType.MONEY, texts, german) == [
        *(Decimal(text).scaleb(9) for text in ("1234.5", "1234.5", "-3", "1234.5")),
        None,
        None,
    ]


def test_a_number_cell_of_a_typed_file_keeps_its_point_beside_decimal_commas() -> None:
    typed = Reading(zone="UTC", decimal_comma=True, typed=True)
    assert converted(FieldType.MONEY, ["1.234", "1,5"], typed) == [1_234_000_000, 1_500_000_000]


def test_times_without_an_offset_are_read_on_the_sources_wall_clock() -> None:
    assert instants(["2011-07-01 12:00", "2011-12-01T12:00:30", "2011-12-01"]) == [
        datetime(2011, 7, 1, 11, 0, tzinfo=UTC),
        datetime(2011, 12, 1, 12, 0, 30, tzinfo=UTC),
        datetime(2011, 12, 1, 0, 0, tzinfo=UTC),
    ]


def test_the_hours_of_a_clock_change_have_one_meaning_each() -> None:
    assert instants(["2010-03-28 01:30", "2010-10-31 01:30"]) == [
        datetime(2010, 3, 28, 1, 30, tzinfo=UTC),
        datetime(2010, 10, 31, 0, 30, tzinfo=UTC),
    ]


def test_offsets_are_obeyed() -> None:
    expected = datetime(2010, 12, 1, 6, 26, tzinfo=UTC)
    assert (
        instants(["2010-12-01T08:26:00+02:00", "2010-12-01 08:26+0200", "2010-12-01T06:26:00.000Z"]) == [expected] * 3
    )


def test_the_sources_own_date_formats_are_read_and_nonsense_is_not() -> None:
    reading = Reading(zone="UTC", patterns=(date_pattern("DD.MM.YYYY HH:mm"), date_pattern("DD.MM.YYYY")))
    assert instants(["24.12.2026 18:00", "24.12.2026", "12/24/2026", "31.02.2026", "0001-01-01"], reading) == [
        datetime(2026, 12, 24, 18, tzinfo=UTC),
        datetime(2026, 12, 24, tzinfo=UTC),
        None,
        None,
        None,
    ]


@pytest.mark.parametrize("text", ["DD.MM", "yyyy-mm-dd", "DD/MM/YYYY at HH", "whenever"])
def test_a_date_format_of_unknown_words_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date format"):
        date_pattern(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Ann.Lee@ACME.Example", "Ann.Lee@acme.example"),
        (" ann+news@bücher.example ", "ann+news@xn--bcher-kva.example"),
        ("ann@BÜCHER.example", "ann@xn--bcher-kva.example"),
        ("ann@acme", None),
        ("ann.acme.example", None),
        ("ann@@acme.example", None),
        ("a nn@acme.example", None),
        (".ann@acme.example", None),
        ("ann@acme..example", None),
        ("ann@-acme.example", None),
        ("ann@[192.0.2.1]", None),
        ("ann@192.0.2.1", None),
        ("änn@acme.example", None),
        ("Ann <ann@acme.example>", None),
        ("a" * 65 + "@acme.example", None),
        ("ann@acme.example\r\nBcc: all@acme.example", None),
    ],
)
def test_an_address_has_one_spelling_or_is_none(text: str, address: str | None) -> None:
    assert normal_email(text) == address


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("020 7946 0018", "GB", "+442079460018"),
        ("+49 (30) 901820", None, "+4930901820"),
        ("030 901820", None, None),
        ("12", "GB", None),
        ("call me", "GB", None),
    ],
)
def test_a_phone_number_becomes_e164_or_is_none(text: str, region: str | None, number: str | None) -> None:
    assert normal_phone(text, region) == number


def test_places_and_languages_have_one_spelling() -> None:
    assert [country_code(text) for text in ("gb", "United Kingdom", "GERMANY", "EIRE")] == ["GB", "GB", "DE", None]
    assert is_country("GB")
    assert not is_country("gb")
    assert [language_tag(text) for text in ("EN", "de_at", "zh-hant-tw", "english")] == [
        "en",
        "de-AT",
        "zh-Hant-TW",
        None,
    ]
    assert [zone_name(text) for text in ("Europe/London", "Mars/Base", "../etc")] == ["Europe/London", None, None]


def test_control_characters_become_blanks() -> None:
    assert stripped(pl.Series(["a\x00b", " x\r\ny ", "\t", ""])).to_list() == ["a b", "x y", None, None]


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_formula_in_a_rejected_cell_is_made_harmless(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-5", "+447700900123", "-1.50", "plain", "", "a=b"])
def test_a_plain_cell_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text
