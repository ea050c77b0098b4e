"""Exact arithmetic on whole columns: decimals as 128-bit integers, rounded once, halves to even."""

from __future__ import annotations

from decimal import Decimal

import polars as pl

from kernel.quantities import minor_exponent

SCALE = 9
"""Decimals kept of a number read from a file."""
PRODUCT_SCALE = 2 * SCALE
MAX_NUMBER = 10**9
MAX_AMOUNT = 10**10
"""Largest number and price, so that no product and no sum of them leaves 128 bits."""
MAX_PRODUCT = 10**12
_INT128 = pl.Int128


def scaled(text: pl.Series, limit: int) -> pl.Series:
    """Return decimals written in text, times 10⁹, as 128-bit integers; null where it is no number up to the limit."""
    # A decimal type would round silently where it cannot hold a number; 10²⁰ fits, and the limit is far below.
    number = text.cast(pl.Decimal(38, SCALE), strict=False).to_physical()
    return number.set(number.abs() > limit * 10**SCALE, None)


def in_minor(amount: pl.Series, scale: int, currency: pl.Series) -> pl.Series:
    """Return amounts in minor units, halves to even, as 64-bit integers.

    Args:
        amount: The amounts times 10^scale.
        scale: See `amount`.
        currency: The currency of each.
    """
    divisors = {code: 10 ** (scale - minor_exponent(code)) for code in currency.unique().drop_nulls().to_list()}
    if not divisors:
        return pl.Series(amount.name, [None] * len(amount), dtype=pl.Int64)
    frame = pl.DataFrame({"amount": amount, "currency": currency}).with_columns(
        pl.col("currency").replace_strict(divisors, default=None, return_dtype=_INT128).alias("divisor")
    )
    whole = pl.col("amount") // pl.col("divisor")
    twice = (pl.col("amount") - whole * pl.col("divisor")) * 2
    up = (twice > pl.col("divisor")) | ((twice == pl.col("divisor")) & (whole % 2 != 0))
    return frame.select((whole + up.cast(_INT128)).cast(pl.Int64, strict=False)).to_series().alias(amount.name)


def exact_sum(amount: pl.Series, scale: int) -> Decimal:
    """Return the sum of amounts times 10^scale as an exact decimal."""
    total = amount.sum()
    return Decimal(int(total or 0)).scaleb(-scale)
