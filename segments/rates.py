"""Exchange rates from a file, and money converted by them exactly: whole numbers of 128 bits, rounded once."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from kernel.errors import ConfigError, InputError, Problem
from kernel.quantities import minor_exponent
from segments.purchases import Ints

_HEADER = ["from", "currency", "rate"]
_CODE = re.compile(r"[A-Z]{3}")
_DECIMALS = 10
_LARGEST = 10**6
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one unit of a currency is worth in units of `home`, from a UTC day on until the next one given.

    `days` (since 1970, ascending) and `worth` (times 10¹⁰) are per currency, position by position.
    """

    path: str
    home: str
    days: dict[str, Ints]
    worth: dict[str, Ints]

    @property
    def currencies(self) -> tuple[str, ...]:
        return tuple(self.days)

    def convert(self, currency: str, days: Ints, amounts_minor: Ints) -> Ints:
        """Return amounts in minor units of a currency in those of `home`, halves rounded to even.

        Args:
            currency: Of all amounts.
            days: The UTC day of each, since 1970.
            amounts_minor: The amounts.

        Raises:
            ConfigError: there is no rate for the currency, or none yet on one of the days.
        """
        if currency == self.home:
            return amounts_minor
        if currency not in self.days:
            raise ConfigError(f"{self.path}: no rate for {currency}; add a line like {_example(currency, days)}")
        at = np.searchsorted(self.days[currency], days, side="right") - 1
        if len(at) and at.min() < 0:
            first = np.datetime64(int(days.min()), "D")
            raise ConfigError(
                f"{self.path}: no rate for {currency} on {first}: the first one given is from "
                f"{np.datetime64(int(self.days[currency][0]), 'D')}; add a line like {_example(currency, days)}"
            )
        shift = _DECIMALS + minor_exponent(currency) - minor_exponent(self.home)
        import polars as pl

        wide = pl.DataFrame({"amount": amounts_minor, "worth": self.worth[currency][at]}).cast(pl.Int128)
        exact, divisor = pl.col("amount") * pl.col("worth"), 10**shift
        whole = (pl.col("exact") // divisor).alias("whole")
        twice = (pl.col("exact") - pl.col("whole") * divisor) * 2
        up = (twice > divisor) | ((twice == divisor) & (pl.col("whole") % 2 != 0))
        found = wide.select(exact.alias("exact")).with_columns(whole).select(pl.col("whole") + up.cast(pl.Int128))
        converted: Ints = found.to_series().cast(pl.Int64).to_numpy()
        return converted


def read_rates(path: Path, home: str, *, shown: str = "") -> Rates:
    """Return the rates in a CSV file with the columns from, currency and rate.

    Args:
        path: The file.
        home: The workspace's currency, which rates are given in.
        shown: What the file is called in messages; its path where empty.

    Raises:
        ConfigError: the file cannot be read.
        InputError: everything wrong in it, by line.
    """
    name = shown or str(path)
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: the rates cannot be read: {error}; see `rates` in carillon.yaml") from error
    if not lines or [cell.strip() for cell in lines[0]] != _HEADER:
        message = f"the first line must be {','.join(_HEADER)}, not {','.join(lines[0]) if lines else 'missing'}"
        raise InputError([Problem(path=name, line=1, column=1, message=message)])
    found: dict[str, dict[int, int]] = {}
    problems = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            _take([cell.strip() for cell in cells], home, found)
        except ValueError as error:
            problems.append(Problem(path=name, line=number, column=1, message=str(error)))
    if problems:
        raise InputError(problems)
    return Rates(
        path=name,
        home=home,
        days={code: _ints(sorted(of)) for code, of in found.items()},
        worth={code: _ints(of[day] for day in sorted(of)) for code, of in found.items()},
    )


def _take(cells: list[str], home: str, found: dict[str, dict[int, int]]) -> None:
    if len(cells) != len(_HEADER):
        raise ValueError(f"{len(cells)} values where there are {len(_HEADER)} columns: {','.join(_HEADER)}")
    start, code, rate = cells
    if not _CODE.fullmatch(code):
        raise ValueError(f"{code!r} is no currency; write its ISO 4217 code, as USD")
    if code == home:
        raise ValueError(f"{code} is the workspace's own currency; it has no rate")
    day = (_day(start) - _EPOCH).days
    of = found.setdefault(code, {})
    if day in of:
        raise ValueError(f"a second rate for {code} from {start}; keep one")
    of[day] = _worth(rate)


def _day(written: str) -> date:
    try:
        return date.fromisoformat(written)
    except ValueError:
        raise ValueError(f"{written!r} is no date; write it as 2026-01-31") from None


def _worth(written: str) -> int:
    try:
        rate = Decimal(written)
    except InvalidOperation:
        raise ValueError(f"{written!r} is no rate; write a number with a point, as 0.8421") from None
    if not rate.is_finite() or not 0 < rate <= _LARGEST:
        raise ValueError(f"the rate {written} is not above 0 and at most {_LARGEST:,}")
    if rate != round(rate, _DECIMALS):
        raise ValueError(f"the rate {written} has more than {_DECIMALS} decimals; round it")
    return int(rate.scaleb(_DECIMALS))


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _example(currency: str, days: Ints) -> str:
    first = np.datetime64(int(days.min()) if len(days) else 0, "D")
    return f"{first},{currency},1.25"
