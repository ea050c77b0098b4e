"""Durations, rates, shares and money as people write them: "7d", "600/hour", "10%", "12.50"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

_DURATION = re.compile(r"([0-9]{1,9})\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)")
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds of each unit."""
_LONGEST = timedelta(days=36_500)
_RATE = re.compile(r"([0-9]{1,9})\s*/\s*(second|minute|hour|day)")
_RATE_UNITS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
_WITHOUT_MINOR = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_WITH_THREE = "BHD IQD JOD KWD LYD OMR TND"
_EXPONENTS = dict.fromkeys(_WITHOUT_MINOR.split(), 0) | dict.fromkeys(_WITH_THREE.split(), 3) | {"CLF": 4, "UYW": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `count` messages in each fixed window of length `per`."""

    count: int
    per: timedelta

    def __str__(self) -> str:
        unit = next(name for name, length in _RATE_UNITS.items() if length == self.per)
        return f"{self.count}/{unit}"


def parse_duration(text: str) -> timedelta:
    """Return the length written as a whole number and a unit: "30s", "15 min", "8h", "7d", "2 weeks".

    Raises:
        ValueError: anything else, or longer than a hundred years; the message shows the accepted form.
    """
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, as in 30s, 15min, 8h, 7d or 2w")
    seconds = int(found[1]) * _DURATION_UNITS[found[2][0]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is longer than {_LONGEST.days} days")
    return timedelta(seconds=seconds)


def parse_rate(text: str) -> Rate:
    """Return the rate written as "600/hour".

    Raises:
        ValueError: anything else, or a count of 0.
    """
    found = _RATE.fullmatch(text.strip())
    if not found or int(found[1]) == 0:
        raise ValueError(f"{text!r} is not a rate; write a count and a unit, as in 10/second, 600/hour or 5000/day")
    return Rate(count=int(found[1]), per=_RATE_UNITS[found[2]])


def parse_share(value: str) -> float:
    """Return a share in [0, 1] written as "10%" or "0.1".

    Raises:
        ValueError: not a number, or outside 0 to 100 %.
    """
    text = value.strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError(f"{value!r} is not a share; write 10% or 0.1") from None
    if not 0 <= share <= 1:
        raise ValueError(f"{value!r} is outside 0% to 100%")
    return share


def minor_exponent(currency: str) -> int:
    """Return how many decimals the currency's minor unit has. Source: ISO 4217, list one."""
    return _EXPONENTS.get(currency, 2)


def to_minor(amount: Decimal | str | int | float, currency: str) -> int:
    """Return an amount in the currency's minor units, halves rounded to even.

    Raises:
        ValueError: `amount` is not a finite number.
    """
    try:
        exact = Decimal(str(amount)).scaleb(minor_exponent(currency))
        return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"{amount!r} is not an amount of money") from None


def format_minor(amount_minor: int, currency: str) -> str:
    """Return the amount with its currency code, as in "EUR 1,234.50"."""
    exponent = minor_exponent(currency)
    return f"{currency} {Decimal(amount_minor).scaleb(-exponent):,.{exponent}f}"
