"""The filters templates may use: a few of Jinja's own that are safe, and money and dates."""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView, KeysView, Mapping, ValuesView
from datetime import date as date_type
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import wraps
from types import GeneratorType
from typing import Any

from jinja2 import Undefined, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, do_join

from kernel.quantities import minor_exponent
from templates.budget import MAX_TEXT, RENDERING, capped, charge
from templates.sandbox import printed

_JINJAS_OWN = (
    "abs capitalize e escape first float int items last length list lower map max min reject rejectattr reverse "
    "round select selectattr sort string striptags sum title trim truncate unique upper urlencode wordcount"
)
_SYMBOLS = {"EUR": "€", "GBP": "£", "USD": "$", "JPY": "¥", "CNY": "¥", "INR": "₹", "KRW": "₩", "PLN": "zł"}
_AFTER = frozenset({"PLN"})
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_PLAIN = (
    *(str, int, float, type(None), dict, list, tuple, range, date_type, Undefined),
    *(GeneratorType, KeysView, ItemsView, ValuesView),
)
_DIRECTIVE = re.compile(r"%(-?[a-zA-Z%])")


def template_filters(own: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return every filter by name, each paid from the budget.

    Args:
        own: Filters of the kind of part that is rendered, among them `_link`.
    """
    safe = {name: FILTERS[name] for name in _JINJAS_OWN.split()}
    ours = {"default": _default, "d": _default, "date": _date, "join": _join, "money": _money}
    ours |= {"number": _number, "replace": _replace}
    return {name: _charged(function) for name, function in {**safe, **ours}.items()} | dict(own)


def _charged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that its input and output are paid for. Keeps Jinja's marks of what it is to be passed."""
    position = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value = args[position] if len(args) > position else None
        if not isinstance(value, _PLAIN):
            raise SecurityError(f"a value of kind {type(value).__name__} cannot be used in a template")
        charge(10 + (len(value) // 8 if isinstance(value, str | list | dict | range) else 0))
        result = function(*args, **kwargs)
        return capped(result) if isinstance(result, str) else result

    return wrapped


def _default(value: Any, default: Any = "", boolean: bool = True) -> Any:
    """Return the value, or the default where it is undefined, None or empty text."""
    if isinstance(value, Undefined) or value is None or value == "":
        return default
    return default if not value and boolean and isinstance(value, list | dict) else value


def _date(value: Any, form: str = "%-d %B %Y") -> str:
    """Return a date as text. Knows %d %-d %m %-m %Y %y %B %b %A %a %H %M %% with English names."""
    moment = _as_date(value)
    month, weekday = _MONTHS[moment.month - 1], _WEEKDAYS[moment.weekday()]
    hour, minute = (moment.hour, moment.minute) if isinstance(moment, datetime) else (0, 0)
    words = {
        "d": f"{moment.day:02d}",
        "-d": str(moment.day),
        "m": f"{moment.month:02d}",
        "-m": str(moment.month),
        "Y": f"{moment.year:04d}",
        "y": f"{moment.year % 100:02d}",
        "B": month,
        "b": month[:3],
        "A": weekday,
        "a": weekday[:3],
        "H": f"{hour:02d}",
        "M": f"{minute:02d}",
        "%": "%",
    }

    def word(found: re.Match[str]) -> str:
        if found[1] not in words:
            raise SecurityError(f"date: {found[0]} is not known; use {' '.join('%' + name for name in words)}")
        return words[found[1]]

    return _DIRECTIVE.sub(word, str(form))


def _as_date(value: Any) -> date_type:
    if isinstance(value, date_type):
        return value
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value) if len(value) > 10 else date_type.fromisoformat(value)
        except ValueError:
            pass
    raise SecurityError(f"date: {_shown(value)} is not a date")


def _money(value: Any, currency: str | None = None) -> str:
    """Return an amount in major units with its currency's sign: 1234.5 as "£1,234.50"."""
    rendering = RENDERING.get()
    code = currency or str((rendering.variables if rendering else {}).get("currency", "")) or "EUR"
    text = f"{_decimal('money', value):,.{minor_exponent(code)}f}"
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    symbol = _SYMBOLS.get(code)
    if symbol is None:
        return f"{sign}{code} {text}"
    return f"{sign}{text} {symbol}" if code in _AFTER else f"{sign}{symbol}{text}"


def _number(value: Any, decimals: int = 0) -> str:
    """Return a number with thousands separated: 12345.6 as "12,346"."""
    if not 0 <= decimals <= 6:
        raise SecurityError("number: 0 to 6 decimals")
    return f"{_decimal('number', value):,.{decimals}f}"


def _decimal(name: str, value: Any) -> Decimal:
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        amount = Decimal("NaN")
    if not amount.is_finite() or abs(amount) > 10**18 or isinstance(value, bool):
        raise SecurityError(f"{name}: {_shown(value)} is not an amount")
    return amount


@pass_eval_context
def _join(context: Any, value: Any, between: str = "", attribute: str | None = None) -> Any:
    values = list(value) if attribute else [printed(item) for item in value]
    if sum(len(item) for item in values if isinstance(item, str)) + len(values) * len(str(between)) > MAX_TEXT:
        raise SecurityError("join: the result is too long")
    return do_join(context, values, between, attribute)


def _replace(value: Any, old: str, new: str) -> str:
    text = value if isinstance(value, str) else str(value)
    if not old or len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise SecurityError("replace: the result is too long")
    return text.replace(old, new)


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]
