"""People as data holds them sooner or later: made up from a real one, to see what a template makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

_LONG = "Wolfeschlegelsteinhausenbergerdorff"


def odd_people(context: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return contexts by what is odd about the person, as a reader would say it.

    Args:
        context: A person's data, as `templates.context.load_contexts` gives it; what is not odd is taken from it,
            and scores and orders from nobody in particular where it has none: only one of these never bought.
    """

    def like(*, contact: Mapping[str, Any] | None = None, account: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {
            **context,
            "contact": {**context["contact"], **(contact or {})},
            "account": {**context["account"], **(account or {})},
        }

    context = {**context, **{name: context[name] or anybody()[name] for name in ("rfm", "last_order")}}
    nobody = dict.fromkeys(context["account"], None)
    return {
        "somebody without a name": like(contact={"first_name": "", "last_name": "", "role": None}),
        "somebody with an endless name": like(
            contact={"first_name": _LONG * 4, "last_name": _LONG * 4}, account={"name": f"{_LONG} " * 8}
        ),
        "somebody whose name runs from right to left": like(
            contact={"first_name": "محمد", "last_name": "בן־עמי"}, account={"name": "شركة النور للتجارة"}
        ),
        "somebody with an emoji in the name": like(
            contact={"first_name": "Zoë 👩‍👩‍👧‍👦", "last_name": "🇬🇧"}, account={"name": "Café ☕️ & Söhne"}
        ),
        "somebody whose name looks like code": like(
            contact={"first_name": "<b>{{ 7 * 7 }}</b>", "last_name": "{% raw %} & \"'"}
        ),
        "somebody who never bought": {**like(), "rfm": None, "last_order": None},
        "somebody without an account": like(account={**nobody, "name": "", "attributes": {}}),
        "somebody without attributes": like(contact={"attributes": {}}, account={"attributes": {}}),
    }


def anybody() -> dict[str, Any]:
    """Return the data of a person nothing is odd about, for where there is nobody yet."""
    contact = {"id": 0, "email": "jane@sample.invalid", "phone": None, "first_name": "Jane", "last_name": "Doe"}
    return {
        "contact": {**contact, "role": "buyer", "language": None, "timezone": None, "attributes": {}},
        "account": {
            "id": 0,
            "name": "Corner Shop",
            "country": None,
            "language": None,
            "parent_name": None,
            "attributes": {},
        },
        "rfm": {"segment": "at_risk", "r": 2, "f": 3, "m": 4, "recency_days": 63, "frequency": 7, "monetary": 1234.5},
        "last_order": {"date": date(2026, 1, 30), "days_ago": 63, "amount": 70.5, "currency": "EUR"},
        "currency": "EUR",
    }
