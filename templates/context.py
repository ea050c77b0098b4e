"""What a template may know about a person, loaded for many people at once: dicts, texts, numbers and dates."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Text,
    and_,
    cast,
    func,
    or_,
    select,
    type_coerce,
)

from kernel.clock import from_ms, to_ms
from kernel.quantities import minor_exponent
from kernel.vocabulary import OrderKind, Subject
from store.sql import in_slices
from store.tables import accounts, contacts, orders, profiles

SHAPE: dict[str, frozenset[str] | None] = {
    "contact": frozenset(
        {"id", "email", "phone", "first_name", "last_name", "role", "language", "timezone", "attributes"}
    ),
    "account": frozenset({"id", "name", "country", "language", "parent_name", "attributes"}),
    "rfm": frozenset({"segment", "r", "f", "m", "recency_days", "frequency", "monetary"}),
    "last_order": frozenset({"date", "days_ago", "amount", "currency"}),
    "currency": None,
}
"""The names a template may use, and what each holds; None where it is a single value."""

SMS_SHAPE: dict[str, frozenset[str] | None] = {
    "brand": frozenset({"name", "postal_address", "website", "color"}),
    "campaign": None,
    "unsubscribe_url": None,
    "preferences_url": None,
}
EMAIL_SHAPE = {**SMS_SHAPE, "sender": frozenset({"name", "email"}), "subject": None, "footer": None}
"""What templates of a channel know beside their person's data."""

LOOKED_UP = frozenset({"rfm", "last_order"})
"""Names that cost a look-up of their own, beside the contact and its account."""

_SLICE = 5_000
_DAY_MS = 86_400_000
_EMPTY = "{}"


def load_contexts(
    connection: Connection,
    contact_ids: Sequence[int],
    *,
    now: datetime,
    currency: str,
    zone: tzinfo,
) -> dict[int, dict[str, Any]]:
    """Return the data of each contact's templates, by contact id; unknown ids are left out.

    `contact` and `account` are dicts; `rfm` and `last_order` are dicts or None. A contact's language and time zone are
    its own, else its account's, else None. `rfm` is the account's score, or the contact's own where it has no account;
    `last_order` the latest order of the account (else of the contact) before `now` that was not cancelled. Money is in
    major units, as 1234.5.

    Args:
        connection: A transaction; four queries for every 5,000 contacts.
        contact_ids: Any number of them.
        now: Orders at or after it are not seen.
        currency: The workspace's currency, of `rfm.monetary`.
        zone: The workspace's zone, in which `last_order.date` is read.
    """
    found: dict[int, dict[str, Any]] = {}
    for ids in in_slices(dict.fromkeys(contact_ids), _SLICE):
        query = select(*person_columns()).select_from(with_account(contacts)).where(contacts.c.id.in_(ids))
        people = connection.execute(query).all()
        made = contexts_of(connection, people, wanted=LOOKED_UP, now=now, currency=currency, zone=zone)
        found |= {context["contact"]["id"]: context for context in made}
    return found


def person_columns() -> list[ColumnElement[Any]]:
    """Return what a context is made of, for a query over `with_account`; `contexts_of` reads them in this order."""
    return [
        contacts.c.id,
        contacts.c.account_id,
        contacts.c.email,
        contacts.c.phone,
        contacts.c.first_name,
        contacts.c.last_name,
        contacts.c.role,
        contacts.c.language,
        contacts.c.timezone,
        _document(contacts.c.attributes),
        accounts.c.name,
        accounts.c.country,
        accounts.c.language,
        accounts.c.timezone,
        _document(accounts.c.attributes),
        _parent.c.name,
    ]


PERSON_COLUMNS = 16
"""How many `person_columns` there are."""
_parent = accounts.alias("parent")


def with_account(source: FromClause) -> FromClause:
    """Return a source that has contacts, joined to their accounts and those accounts' parents."""
    joined = source.outerjoin(accounts, accounts.c.id == contacts.c.account_id)
    return joined.outerjoin(_parent, _parent.c.id == accounts.c.parent_id)


def _document(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a document as text: most are empty, and reading each would cost more than the rest."""
    return cast(column, Text)


def _read(document: str | None) -> dict[str, Any]:
    return {} if document is None or document == _EMPTY else dict(json.loads(document) or {})


def contexts_of(
    connection: Connection,
    people: Sequence[Sequence[Any]],
    *,
    wanted: Collection[str],
    now: datetime,
    currency: str,
    zone: tzinfo,
) -> list[dict[str, Any]]:
    """Return a context for each row of `person_columns`, in the same order.

    Args:
        connection: A transaction; no query unless `rfm` or `last_order` is wanted.
        people: The rows; what stands behind those columns is not looked at.
        wanted: Which of LOOKED_UP are looked up; the others are None.
        now: See `load_contexts`.
        currency: See `load_contexts`.
        zone: See `load_contexts`.
    """
    scores: dict[tuple[Subject, int], dict[str, Any]] = {}
    last: dict[tuple[Subject, int], dict[str, Any]] = {}
    if wanted:
        with_account = {row[1] for row in people if row[1] is not None}
        alone = {row[0] for row in people if row[1] is None}
        scores = _scores(connection, with_account, alone, currency, now) if "rfm" in wanted else {}
        last = _last_orders(connection, with_account, alone, now, zone) if "last_order" in wanted else {}
    return [_context(row, scores, last, currency) for row in people]


def _context(
    row: Sequence[Any],
    scores: dict[tuple[Subject, int], dict[str, Any]],
    last: dict[tuple[Subject, int], dict[str, Any]],
    currency: str,
) -> dict[str, Any]:
    contact_id, account_id, email, phone, first_name, last_name, role, language, timezone, attributes = row[:10]
    name, country, account_language, account_zone, account_attributes, parent_name = row[10:PERSON_COLUMNS]
    key = (Subject.CONTACT, contact_id) if account_id is None else (Subject.ACCOUNT, account_id)
    return {
        "contact": {
            "id": contact_id,
            "email": email,
            "phone": phone,
            "first_name": first_name,
            "last_name": last_name,
            "role": role,
            "language": language or account_language,
            "timezone": timezone or account_zone,
            "attributes": _read(attributes),
        },
        "account": {
            "id": account_id,
            "name": name or "",
            "country": country,
            "language": account_language,
            "parent_name": parent_name,
            "attributes": _read(account_attributes),
        },
        "rfm": scores.get(key),
        "last_order": last.get(key),
        "currency": currency,
    }


def _scores(
    connection: Connection, account_ids: Iterable[int], contact_ids: Iterable[int], currency: str, now: datetime
) -> dict[tuple[Subject, int], dict[str, Any]]:
    asked = select(profiles).where(
        profiles.c.rfm_segment.is_not(None),
        or_(
            and_(profiles.c.subject == Subject.ACCOUNT, profiles.c.subject_id.in_(list(account_ids))),
            and_(profiles.c.subject == Subject.CONTACT, profiles.c.subject_id.in_(list(contact_ids))),
        ),
    )
    return {
        (Subject(row["subject"]), row["subject_id"]): {
            "segment": row["rfm_segment"],
            **{name: row[name] for name in ("r", "f", "m", "frequency")},
            "recency_days": (now - row["last_order_at"]) // timedelta(days=1),
            "monetary": _major(row["monetary_minor"], currency),
        }
        for row in connection.execute(asked).mappings()
    }


def _last_orders(
    connection: Connection, account_ids: Iterable[int], contact_ids: Iterable[int], now: datetime, zone: tzinfo
) -> dict[tuple[Subject, int], dict[str, Any]]:
    """Return the latest order of each account or contact: greatest instant, then greatest id."""
    now_ms = to_ms(now)
    out: dict[tuple[Subject, int], dict[str, Any]] = {}
    for subject, column, ids in (
        (Subject.ACCOUNT, orders.c.account_id, list(account_ids)),
        (Subject.CONTACT, orders.c.contact_id, list(contact_ids)),
    ):
        if not ids:
            continue
        at = type_coerce(orders.c.ordered_at, BigInteger)
        cancelled = type_coerce(orders.c.cancelled_at, BigInteger)
        rank = func.row_number().over(partition_by=column, order_by=(at.desc(), orders.c.id.desc()))
        ranked = (
            select(column.label("owner"), at.label("at"), orders.c.net_minor, orders.c.currency, rank.label("rank"))
            .where(column.in_(ids), orders.c.kind == OrderKind.ORDER, at < now_ms)
            .where(or_(cancelled.is_(None), cancelled > now_ms))
            .subquery()
        )
        for row in connection.execute(select(ranked).where(ranked.c.rank == 1)).mappings():
            out[subject, row["owner"]] = {
                "date": from_ms(row["at"]).astimezone(zone).date(),
                "days_ago": (now_ms - row["at"]) // _DAY_MS,
                "amount": _major(row["net_minor"], row["currency"]),
                "currency": row["currency"],
            }
    return out


def _major(amount_minor: int, currency: str) -> float:
    return float(amount_minor / 10 ** minor_exponent(currency))
