"""Figures and names as a person reads them on a picture, and how much room they take."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from decimal import Decimal

from kernel.quantities import minor_exponent

_SYMBOLS = {"EUR": "€", "GBP": "£", "USD": "$"}
_APOSTROPHES = {"cant_lose": "Can't lose"}
_NARROW = frozenset("iIjl.,:;'|!ftr()[]-· ")
_BROAD = frozenset("mwMW@%—…")
_ELLIPSIS = "…"


def name_in_words(name: str) -> str:
    """Return the name of a group as words: "at_risk" is "At risk"."""
    return _APOSTROPHES.get(name) or name.replace("_", " ").replace("-", " ").strip().capitalize()


def count(number: float) -> str:
    """Return a count with thousands separators."""
    return f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """Return a number of things: "1 account", "1,234 accounts"."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def date_in_words(instant: datetime) -> str:
    """Return the day as "1 December 2026", in the instant's own zone."""
    return f"{instant.day} {instant:%B %Y}"


def percent(share: float) -> str:
    """Return a share in [0, 1] in percent, with a decimal below 10 %."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{100 * share:.0f}%" if share >= 0.0995 or not share else f"{100 * share:.1f}%"


def short(number: float) -> str:
    """Return a number from 10,000 on in three digits and its thousands: "12.3k", "450k", "4.5m", "1.2bn"."""
    for unit, sign in ((1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if number >= max(unit * 0.9995, 9_999.5):
            return f"{number / unit:,.1f}{sign}" if number < unit * 99.95 else f"{number / unit:,.0f}{sign}"
    return f"{number:,.0f}"


def count_within(number: float, room_px: float, size_px: float, *, bold: bool = False) -> str:
    """Return a count in full where there is room for it, else short: a number is never cut off."""
    full = count(number)
    if width_px(full, size_px, bold=bold) <= room_px:
        return full
    return ("−" if number < 0 else "") + short(abs(number))


def money(amount_minor: float, currency: str) -> str:
    """Return an amount in whole major units, short from ten thousand on: "£1,234", "£12.3k", "£4.5m"."""
    units = float(Decimal(round(abs(amount_minor))).scaleb(-minor_exponent(currency)))
    said = short(units) if units >= 100 or not units else f"{units:,.2f}"
    sign = "−" if amount_minor < 0 else ""
    symbol = _SYMBOLS.get(currency)
    return f"{sign}{symbol}{said}" if symbol else f"{sign}{currency} {said}"


def width_px(text: str, size_px: float, *, bold: bool = False) -> float:
    """Return about how wide a text is, rather too much than too little, in the fonts of pictures."""
    return sum(_width_em(letter) for letter in text) * size_px * (1.1 if bold else 1.0)


def fitted(text: str, room_px: float, size_px: float, *, bold: bool = False) -> str:
    """Return the text, cut with an ellipsis where it is too wide."""
    if width_px(text, size_px, bold=bold) <= room_px:
        return text
    while text and width_px(text + _ELLIPSIS, size_px, bold=bold) > room_px:
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS


def wrapped(text: str, room_px: float, size_px: float, *, lines: int = 2, bold: bool = False) -> list[str]:
    """Return the text in at most so many lines, broken between words; the last one is cut where it must be."""
    rows: list[str] = []
    waiting = text.split()
    while waiting and len(rows) < lines - 1:
        row = waiting.pop(0)
        while waiting and width_px(f"{row} {waiting[0]}", size_px, bold=bold) <= room_px:
            row = f"{row} {waiting.pop(0)}"
        rows.append(row)
    if waiting:
        rows.append(" ".join(waiting))
    return [fitted(row, room_px, size_px, bold=bold) for row in rows]


def _width_em(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in _NARROW:
        return 0.40
    if letter in _BROAD:
        return 0.95
    return 0.70 if letter.isupper() else 0.63
