"""What a template may know about a person, loaded for many people at once: dicts, texts, numbers and dates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import BigInteger, Connection, RowMapping, and_, func, or_, select, type_coerce

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

_SLICE = 5_000
_DAY_MS = 86_400_000


def load_contexts(
    connection: Connection, contact_ids: Sequence[int], *, now: datetime, currency: str, zone: tzinfo
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
        people = list(connection.execute(_people().where(contacts.c.id.in_(ids))).mappings())
        with_account = {row["account_id"] for row in people if row["account_id"] is not None}
        alone = {row["id"] for row in people if row["account_id"] is None}
        scores = _scores(connection, with_account, alone, currency, now)
        last = _last_orders(connection, with_account, alone, now, zone)
        for row in people:
            key = _key(row["account_id"], row["id"])
            found[row["id"]] = {
                "contact": _contact(row),
                "account": _account(row),
                "rfm": scores.get(key),
                "last_order": last.get(key),
                "currency": currency,
            }
    return found


def _key(account_id: int | None, contact_id: int) -> tuple[Subject, int]:
    return (Subject.CONTACT, contact_id) if account_id is None else (Subject.ACCOUNT, account_id)


def _people() -> Any:
    parent = accounts.alias("parent")
    return (
        select(
            contacts,
            accounts.c.name.label("account_name"),
            accounts.c.country.label("account_country"),
            accounts.c.language.label("account_language"),
            accounts.c.timezone.label("account_timezone"),
            accounts.c.attributes.label("account_attributes"),
            parent.c.name.label("parent_name"),
        )
        .outerjoin(accounts, accounts.c.id == contacts.c.account_id)
        .outerjoin(parent, parent.c.id == accounts.c.parent_id)
    )


def _contact(row: RowMapping) -> dict[str, Any]:
    plain = {name: row[name] for name in ("id", "email", "phone", "first_name", "last_name", "role")}
    plain["language"] = row["language"] or row["account_language"]
    plain["timezone"] = row["timezone"] or row["account_timezone"]
    plain["attributes"] = row["attributes"] or {}
    return plain


def _account(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["account_id"],
        "name": row["account_name"] or "",
        "country": row["account_country"],
        "language": row["account_language"],
        "parent_name": row["parent_name"],
        "attributes": row["account_attributes"] or {},
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
