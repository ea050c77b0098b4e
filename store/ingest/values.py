"""Cells: columns of text into columns of values. What cannot be read becomes null, and the caller says so.

A converter takes a column of stripped text (null where empty) and returns a column of values; it never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import polars as pl

from kernel.vocabulary import Channel, ConsentStatus, OrderKind
from store.ingest.addresses import normal_email, normal_phone
from store.ingest.fields import FieldType, OrderStatus
from store.ingest.money import MAX_AMOUNT, MAX_NUMBER, scaled
from store.ingest.places import country_code, language_tag, zone_name

MAX_KEY = 200
MAX_TEXT = 20_000
MAX_ATTRIBUTE = 10**15
"""Largest number kept as an attribute: a float still tells all whole numbers up to it apart."""
_TRUE = ("true", "yes", "y", "1", "t")
_FALSE = ("false", "no", "n", "0", "f")
_EARLIEST_MS = -2_208_988_800_000
_LATEST_MS = 7_258_118_400_000
"""1900 to 2200: outside, a date is a slip of the keyboard or an empty cell's zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a source writes its values."""

    zone: str
    patterns: tuple[str, ...] = ()
    decimal_comma: bool = False
    typed: bool = False
    region: str | None = None


Converter = Callable[[pl.Series, Reading], pl.Series]


def stripped(text: pl.Series) -> pl.Series:
    """Return text without control characters and surrounding blanks; empty becomes null."""
    clean = text.str.replace_all(r"[\x00-\x1f\x7f]+", " ").str.strip_chars()
    return clean.set(clean == "", None)


def _key(text: pl.Series, _reading: Reading) -> pl.Series:
    return text.set(text.str.len_chars() > MAX_KEY, None)


def _text(text: pl.Series, _reading: Reading) -> pl.Series:
    return text.set(text.str.len_chars() > MAX_TEXT, None)


def decimal_text(text: pl.Series, reading: Reading) -> pl.Series:
    """Return numbers with a decimal point and nothing else between digits; null where they are not so written."""
    if not reading.decimal_comma:
        return text
    grouped = text.str.contains(r"^[+-]?(\d{1,3}([. '\u{a0}\u{202f}]\d{3})+|\d+)(,\d+)?$")
    bare = text.str.replace_all(r"[. '\u{a0}\u{202f}]", "").str.replace(",", ".", literal=True)
    if reading.typed:
        grouped = grouped & (text.str.contains(",", literal=True) | ~text.str.contains(".", literal=True))
        return pl.select(pl.when(grouped).then(bare).otherwise(text)).to_series().alias(text.name)
    return bare.set(~grouped, None)


def _number(text: pl.Series, reading: Reading) -> pl.Series:
    return scaled(decimal_text(text, reading), MAX_NUMBER)


def _money(text: pl.Series, reading: Reading) -> pl.Series:
    return scaled(decimal_text(text, reading), MAX_AMOUNT)


def _float(text: pl.Series, reading: Reading) -> pl.Series:
    number = decimal_text(text, reading).cast(pl.Float64, strict=False).fill_nan(None)
    return number.set(number.abs() > MAX_ATTRIBUTE, None)


_OFFSET = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"
_ISO = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y%m%d")


def instants(text: pl.Series, reading: Reading) -> pl.Series:
    """Return milliseconds since 1970 UTC: ISO 8601 first, then the source's own formats.

    A time without an offset is read on the wall clock of the source's zone: the first of two where the clock was
    set back, and an hour on where it was set forward over it.
    """
    aware = text.str.contains(r":\d{2}.*" + _OFFSET) if bool(text.str.contains(_OFFSET).any()) else None
    naive = text if aware is None else text.set(aware, None)
    out = _localised(
        _first_match(naive.str.replace(r"(\d)[Tt](\d)", "$1 $2"), (*_ISO, *reading.patterns)), reading.zone
    )
    if aware is not None:
        out = pl.select(pl.coalesce(out, _with_offset(text.set(~aware, None)))).to_series()
    return out.set((out < _EARLIEST_MS) | (out > _LATEST_MS), None).alias(text.name)


def _first_match(text: pl.Series, patterns: tuple[str, ...]) -> pl.Series:
    found = pl.Series(text.name, [None] * len(text), dtype=pl.Datetime("ms"))
    for pattern in patterns:
        left = text.set(found.is_not_null(), None)
        if left.null_count() == len(left):
            break
        time = "%H" in pattern or "%I" in pattern
        read = (
            left.str.to_datetime(pattern, strict=False, time_unit="ms")
            if time
            else left.str.to_date(pattern, strict=False).cast(pl.Datetime("ms"))
        )
        found = pl.select(pl.coalesce(found, read)).to_series()
    return found


def _localised(naive: pl.Series, zone: str) -> pl.Series:
    placed = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    lost = naive.is_not_null() & placed.is_null()
    if bool(lost.any()):
        later = naive.dt.offset_by("1h").dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        placed = pl.select(pl.coalesce(placed, later)).to_series()
    return placed.dt.epoch("ms")


def _with_offset(text: pl.Series) -> pl.Series:
    whole = text.str.replace(r"[Zz]$", "+00:00").str.replace(r"(\d)[Tt ](\d)", "${1}T${2}")
    whole = whole.str.replace(r"([+-]\d{2})(\d{2})$", "$1:$2").str.replace(r"T(\d{2}:\d{2})([+-])", "T$1:00$2")
    return whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="ms").dt.epoch("ms")


def _date(text: pl.Series, reading: Reading) -> pl.Series:
    found = _first_match(text.str.replace(r"(\d)[Tt](\d)", "$1 $2"), (*_ISO, *reading.patterns))
    return found.dt.strftime("%Y-%m-%d")


def _boolean(text: pl.Series, _reading: Reading) -> pl.Series:
    low = text.str.to_lowercase()
    return pl.select(
        pl.when(low.is_in(_TRUE)).then(statement=True).when(low.is_in(_FALSE)).then(statement=False)
    ).to_series()


def _currency(text: pl.Series, _reading: Reading) -> pl.Series:
    upper = text.str.to_uppercase()
    return upper.set(~upper.str.contains(r"^[A-Z]{3}$"), None)


def _one_of(words: type[Channel] | type[ConsentStatus] | type[OrderKind] | type[OrderStatus]) -> Converter:
    known = [str(word) for word in words]

    def convert(text: pl.Series, _reading: Reading) -> pl.Series:
        low = text.str.to_lowercase()
        return low.set(~low.is_in(known), None)

    return convert


def _each(function: Callable[[str], str | None]) -> Converter:
    """Return a converter that asks the function once per distinct text."""

    def convert(text: pl.Series, _reading: Reading) -> pl.Series:
        return _looked_up(text, function)

    return convert


def _looked_up(text: pl.Series, function: Callable[[str], str | None]) -> pl.Series:
    distinct = text.drop_nulls().unique()
    if distinct.is_empty():
        return text
    values = pl.Series([function(value) for value in distinct.to_list()], dtype=pl.String)
    return text.replace_strict(distinct, values, default=None, return_dtype=pl.String)


def _phone(text: pl.Series, reading: Reading) -> pl.Series:
    return _looked_up(text, lambda value: normal_phone(value, reading.region))


CONVERTERS: Mapping[FieldType, Converter] = MappingProxyType(
    {
        FieldType.KEY: _key,
        FieldType.TEXT: _text,
        FieldType.NUMBER: _number,
        FieldType.MONEY: _money,
        FieldType.INSTANT: instants,
        FieldType.COUNTRY: _each(country_code),
        FieldType.LANGUAGE: _each(language_tag),
        FieldType.TIMEZONE: _each(zone_name),
        FieldType.EMAIL: _each(normal_email),
        FieldType.PHONE: _phone,
        FieldType.CURRENCY: _currency,
        FieldType.CHANNEL: _one_of(Channel),
        FieldType.CONSENT_STATUS: _one_of(ConsentStatus),
        FieldType.ORDER_KIND: _one_of(OrderKind),
        FieldType.ORDER_STATUS: _one_of(OrderStatus),
        FieldType.BOOLEAN: _boolean,
        FieldType.DATE: _date,
    }
)
ATTRIBUTE_CONVERTERS: Mapping[FieldType, Converter] = MappingProxyType(dict(CONVERTERS) | {FieldType.NUMBER: _float})
"""Attributes are read as fields are, but their numbers are floats, and may be larger than a quantity."""

_EXPECTED: Mapping[FieldType, str] = MappingProxyType(
    {
        FieldType.KEY: f"is longer than {MAX_KEY} characters",
        FieldType.TEXT: f"is longer than {MAX_TEXT} characters",
        FieldType.NUMBER: "is not a number",
        FieldType.MONEY: "is not an amount of money",
        FieldType.INSTANT: "is not a date or time; give date_format",
        FieldType.COUNTRY: "is not a country; map it under values",
        FieldType.LANGUAGE: "is not a language tag, as en or de-AT",
        FieldType.TIMEZONE: "is not a time zone, as Europe/London",
        FieldType.EMAIL: "is not an e-mail address",
        FieldType.PHONE: "is not a phone number",
        FieldType.CURRENCY: "is not a currency code, as EUR",
        FieldType.CHANNEL: f"is none of {', '.join(Channel)}; map it under values",
        FieldType.CONSENT_STATUS: f"is none of {', '.join(ConsentStatus)}; map it under values",
        FieldType.ORDER_KIND: f"is none of {', '.join(OrderKind)}; map it under values",
        FieldType.ORDER_STATUS: f"is none of {', '.join(OrderStatus)}; map it under values",
        FieldType.BOOLEAN: "is neither true nor false",
        FieldType.DATE: "is not a date; give date_format",
    }
)


_LIMITS: Mapping[FieldType, str] = MappingProxyType(
    {
        FieldType.NUMBER: "up to a thousand million (as an attribute, up to 10¹⁵)",
        FieldType.MONEY: "up to ten thousand million",
    }
)


def refusal(kind: FieldType, reading: Reading) -> str:
    """Return what is wrong with a cell that could not be read, to stand after its value."""
    if kind in _LIMITS and not reading.typed:
        separator = "comma" if reading.decimal_comma else "point"
        return f"{_EXPECTED[kind]} with a decimal {separator} (decimal_comma in sources.yaml), {_LIMITS[kind]}"
    if kind in _LIMITS:
        return f"{_EXPECTED[kind]} {_LIMITS[kind]}"
    if kind is FieldType.PHONE and reading.region is None:
        return "is not a phone number with + and country prefix (or give phone_region)"
    return _EXPECTED[kind]


def constant_value(text: str, kind: FieldType, reading: Reading) -> Any:
    """Return the value of a constant of sources.yaml; None where it cannot be read."""
    return CONVERTERS[kind](stripped(pl.Series([text], dtype=pl.String)), reading)[0]
