"""Figures and reasons as a person reads them."""

from __future__ import annotations

from decimal import Decimal

from kernel.quantities import format_minor, minor_exponent

_SYMBOLS = {"EUR": "€", "GBP": "£", "USD": "$"}

REASONS = {
    "excluded": "in an excluded segment",
    "account_limit": "enough colleagues of the account were chosen",
    "no_address": "no address on record",
    "invalid_address": "the address cannot be right",
    "duplicate_address": "the same address was in the audience already",
    "no_consent": "no consent for the channel",
    "suppressed": "unsubscribed, bounced or complained before",
    "frequency_cap": "had enough messages lately",
    "converted": "had already converted",
    "step_condition": "the step's own condition",
    "too_late": "the time for it had passed",
    "cancelled": "the campaign was cancelled",
    "contact_deleted": "the contact was deleted",
    "template_error": "the template could not be filled in",
    "refused": "refused by the receiving side",
    "retries_exhausted": "put off too often",
}


def reason_in_words(reason: str) -> str:
    """Return a skip or fail reason in words; a reason without words as it is."""
    return REASONS.get(reason, reason.replace("_", " "))


def name_in_words(name: str) -> str:
    """Return the name of a segment as words: "cant_lose" is "Can't lose"."""
    if name == "cant_lose":
        return "Can't lose"
    return name.replace("_", " ").replace("-", " ").capitalize() if name else "none"


def count(number: int) -> str:
    """Return a count with thousands separators."""
    return f"{number:,}"


def counted(number: int, plural: str) -> str:
    """Return a count with its noun, "1 order" or "25 orders"; `plural` ends in s."""
    return f"{number:,} {plural.removesuffix('s') if number == 1 else plural}"


def share(part: float, whole: float) -> str:
    """Return part / whole in percent, with a decimal below 10 %; "" where there is no whole."""
    if not whole:
        return ""
    percent = 100 * part / whole
    if percent and percent < 0.1:
        return "<0.1%"
    return f"{percent:.0f}%" if percent >= 10 or not percent else f"{percent:.1f}%"


def share_of(part: float, whole: float, word: str) -> str:
    """Return a share with what it is a share of, "9.6% of delivered"; "" where there is no whole."""
    said = share(part, whole)
    return f"{said} of {word}" if said else ""


def money(amount_minor: int, currency: str, *, whole: bool = False) -> str:
    """Return an amount with the currency's sign or code; `whole` rounds zero and amounts from 100 to whole units."""
    exponent = minor_exponent(currency)
    symbol = _SYMBOLS.get(currency)
    if whole and (not amount_minor or abs(amount_minor) >= 100 * 10**exponent):
        units = f"{round(Decimal(abs(amount_minor)).scaleb(-exponent)):,}"
    else:
        units = format_minor(abs(amount_minor), currency).split(" ", 1)[1]
    return ("-" if amount_minor < 0 else "") + (f"{symbol}{units}" if symbol else f"{currency} {units}")


def all_money(amounts_minor: dict[str, int], currency: str, *, whole: bool = False) -> str:
    """Return amounts of several currencies in a row, the workspace's own first; zero in it where there are none."""
    if not amounts_minor:
        return money(0, currency, whole=whole)
    ordered = sorted(amounts_minor, key=lambda code: (code != currency, code))
    return " + ".join(money(amounts_minor[code], code, whole=whole) for code in ordered)


def signed_percent(ratio: float) -> str:
    """Return a ratio as a signed percentage: 4.4 is "+440%"."""
    return f"{100 * ratio:+,.0f}%"
