"""Facts over HTTP: orders and events, one batch a transaction, idempotent by the sender's own id.

The words are those of sources.yaml. An item that names an unknown account or contact is refused with its reason;
the others of the batch are kept. Sending a batch again changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from sqlalchemy import Connection, delete, select

from kernel.clock import to_ms
from kernel.quantities import minor_exponent, to_minor
from kernel.vocabulary import OrderKind
from store.changes import owners, touch_owners
from store.ingest.bulk import among, ids_of, insert_rows, lock_facts
from store.ingest.upserts import Upserted, create_missing, upsert
from store.tables import accounts, contacts, events, order_lines, orders, products

MAX_ITEMS = 1_000
"""Items of one batch."""
_MAX_PROPERTIES = 20_000
_MAX_PRODUCT = 10**12
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})",
    re.IGNORECASE,
)
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""The years the import of files accepts; outside, a date is a slip of a program."""


def _checked_key(value: str) -> str:
    key = value.strip()
    if not key or _CONTROL.search(key):
        raise ValueError("must hold something, and no control characters")
    return key


def _plain_text(value: str) -> str:
    return _CONTROL.sub(" ", value).strip()


def _instant(value: Any) -> datetime:
    """Return the instant of ISO 8601 text with a zone.

    Raises:
        ValueError: anything else, numbers and digits that could be seconds since 1970 included.
    """
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise ValueError("is not ISO text with a zone, as 2026-03-02T10:00:00Z")
    at = datetime.fromisoformat(value.upper())
    # Compared without arithmetic: the first and the last hours of the calendar have no UTC time.
    if not _EARLIEST <= at <= _LATEST:
        raise ValueError(f"{value} lies outside {_EARLIEST:%Y} to {_LATEST:%Y}")
    return at


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(value, allow_nan=False)
    if "\\u0000" in text or len(text) > _MAX_PROPERTIES:
        raise ValueError(f"must be at most {_MAX_PROPERTIES} characters of JSON without null characters")
    return value


Key = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_checked_key)]
Money = Annotated[Decimal, Field(ge=-(10**10), le=10**10)]
Instant = Annotated[AwareDatetime, BeforeValidator(_instant)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class _Item(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LineIn(_Item):
    """One line of an order; `amount` is the line's net, else quantity times unit_price."""

    product: Key
    quantity: Annotated[Decimal, Field(ge=-(10**9), le=10**9)]
    unit_price: Money | None = None
    amount: Annotated[Decimal, Field(ge=-_MAX_PRODUCT, le=_MAX_PRODUCT)] | None = None
    unit_cost: Money | None = None
    product_name: Annotated[str, Field(max_length=500), AfterValidator(_plain_text)] = ""

    @model_validator(mode="after")
    def _priced(self) -> LineIn:
        if (self.amount is None) == (self.unit_price is None):
            raise ValueError("a line needs either amount or unit_price")
        if abs(self.net()) > _MAX_PRODUCT:
            raise ValueError("quantity times unit_price is too large")
        if abs(self.quantity * (self.unit_cost or 0)) > _MAX_PRODUCT:
            raise ValueError("quantity times unit_cost is too large")
        return self

    def net(self) -> Decimal:
        """Return the line's exact net amount."""
        if self.amount is not None:
            return self.amount
        return self.quantity * (self.unit_price or Decimal(0))


class OrderIn(_Item):
    """An order as programs send it; without `amount` it is the sum of its lines."""

    order: Key
    ordered_at: Instant
    account: Key | None = None
    contact: Key | None = None
    amount: Money | None = None
    gross: Money | None = None
    currency: Currency | None = None
    kind: OrderKind | None = None
    cancelled_at: Instant | None = None
    lines: list[LineIn] | None = Field(default=None, max_length=10_000)

    @model_validator(mode="after")
    def _counted(self) -> OrderIn:
        if self.amount is None and not self.lines:
            raise ValueError("an order needs amount, or lines")
        if sum(abs(line.net()) for line in self.lines or ()) > _MAX_PRODUCT:
            raise ValueError("the sum of the lines is too large")
        return self

    def amounts(self) -> dict[str, Decimal | None]:
        """Return the amounts of money it names, by where they stand; prices of one piece are none."""
        lines = {f"lines.{at}.amount": line.amount for at, line in enumerate(self.lines or ())}
        return {"amount": self.amount, "gross": self.gross} | lines


class EventIn(_Item):
    """Something a contact or an account did; the first word on an id holds."""

    event: Key
    name: Key
    at: Instant
    account: Key | None = None
    contact: Key | None = None
    value: Money | None = None
    currency: Currency | None = None
    properties: Annotated[dict[str, Any], AfterValidator(_storable)] = {}

    @model_validator(mode="after")
    def _somebody(self) -> EventIn:
        if self.account is None and self.contact is None:
            raise ValueError("an event needs an account or a contact")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An item that was not kept: its place in the batch, from 0, its id, and why."""

    index: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What became of a batch: items = new + changed + unchanged + refused."""

    new: int
    changed: int
    unchanged: int
    refused: tuple[Refused, ...] = ()

    @property
    def accepted(self) -> int:
        """How many items are now stored as sent."""
        return self.new + self.changed + self.unchanged


Item = TypeVar("Item", OrderIn, EventIn)


def accept_orders(
    connection: Connection, items: Sequence[OrderIn], *, now: datetime, currency: str | None = None
) -> Intake:
    """Store orders by their own number; one sent again with other words is changed, its lines replaced as a whole.

    An order with a contact and no account is its contact's account's. Products its lines name are made on demand.

    Args:
        connection: A write transaction.
        items: At most `MAX_ITEMS`; of two with one number the last holds.
        now: When they came in.
        currency: Of orders that name none; without it such orders are refused, as are amounts with more decimals
            than their currency has.

    Raises:
        ValueError: more than `MAX_ITEMS`.
    """
    known, refused = _known(connection, items, {one.order: index for index, one in enumerate(items)})
    for index, one, _ in known:
        code = one.currency or currency
        reason = _too_fine(one.amounts(), code) if code else "the order names no currency"
        if reason:
            refused.append(Refused(index=index, id=one.order, reason=reason))
    lost = {one.index for one in refused}
    known = [one for one in known if one[0] not in lost]
    rows = [_order_row(one, whose, one.currency or currency or "") for _, one, whose in known]
    columns = ["account_id", "contact_id", "ordered_at", "kind", "net_minor", "gross_minor", "currency", "cancelled_at"]
    done = upsert(connection, orders, columns, rows, stamp={"imported_at": to_ms(now)})
    lined = [(done.ids[one.order], one, one.currency or currency or "") for _, one, _ in known if one.lines is not None]
    relined = _replace_lines(connection, lined) - {done.ids[key] for key in done.new}
    touch_owners(connection, owners(connection, orders, relined))
    changed = {done.ids[key] for key in done.changed} | relined
    return _intake(items, done, len(changed), refused)


def accept_events(
    connection: Connection, items: Sequence[EventIn], *, now: datetime, currency: str | None = None
) -> Intake:
    """Store events whose id is new; one whose id is known is left as it was first sent.

    Args:
        connection: A write transaction.
        items: At most `MAX_ITEMS`.
        now: When they came in; an event cannot lie more than a day later.
        currency: Of values that name none; without it such events are refused, as are values with more decimals
            than their currency has.

    Raises:
        ValueError: more than `MAX_ITEMS`.
    """
    first = {one.event: index for index, one in reversed(list(enumerate(items)))}
    known, refused = _known(connection, items, first)
    before = ids_of(connection, events, [one.event for _, one, _ in known])
    fresh = [entry for entry in known if entry[1].event not in before]
    homes = _people(connection, (one.contact for _, one, _ in fresh if one.contact and one.account))
    for index, one, (account, _) in fresh:
        reason = _against_event(one, one.currency or currency, now)
        if one.contact in homes and one.account is not None and homes[one.contact][1] != account:
            reason = f"contact {one.contact!r} is not of account {one.account!r}"
        if reason:
            refused.append(Refused(index=index, id=one.event, reason=reason))
    lost = {one.index for one in refused}
    rows = []
    for index, one, (account, contact) in fresh:
        if index not in lost:
            code = (one.currency or currency) if one.value is not None else None
            value = to_minor(one.value, code) if one.value is not None and code else None
            rows.append((one.event, account, contact, one.name, to_ms(one.at), value, code, one.properties))
    columns = ["account_id", "contact_id", "name", "at", "value_minor", "currency", "properties"]
    done = upsert(connection, events, columns, rows)
    return _intake(items, done, 0, refused)


def _against_event(one: EventIn, currency: str | None, now: datetime) -> str:
    """Return why a new event cannot be kept; empty where it can."""
    if one.value is not None and currency is None:
        return "the value names no currency"
    if to_ms(one.at) > to_ms(now) + 86_400_000:
        return "lies more than a day in the future"
    return _too_fine({"value": one.value}, currency) if currency else ""


def _too_fine(amounts: Mapping[str, Decimal | None], currency: str) -> str:
    """Return which amount has more decimals than its currency; empty where none has. Zeros at the end do not count."""
    decimals = minor_exponent(currency)
    for place, amount in amounts.items():
        if amount is not None and amount != round(amount, decimals):
            return f"{place}: {amount!s:.40} has more decimals than {currency} has ({decimals})"
    return ""


def _intake(items: Sequence[Any], done: Upserted, changed: int, refused: list[Refused]) -> Intake:
    new = len(done.new)
    return Intake(
        new=new,
        changed=changed,
        unchanged=len(items) - new - changed - len(refused),
        refused=tuple(sorted(refused, key=lambda one: one.index)),
    )


_Whose = tuple[int | None, int | None]


def _known(
    connection: Connection, items: Sequence[Item], places: Mapping[str, int]
) -> tuple[list[tuple[int, Item, _Whose]], list[Refused]]:
    """Return the items at the given places with account and contact ids, and those that name unknown ones."""
    if len(items) > MAX_ITEMS:
        raise ValueError(f"a batch holds at most {MAX_ITEMS} items, got {len(items)}")
    lock_facts(connection)
    account_ids = ids_of(connection, accounts, (one.account for one in items if one.account))
    people = _people(connection, (one.contact for one in items if one.contact))
    known: list[tuple[int, Item, _Whose]] = []
    refused: list[Refused] = []
    for key, index in places.items():
        one = items[index]
        contact, home = people.get(one.contact or "", (None, None))
        account = account_ids.get(one.account or "", home if one.account is None else None)
        if one.account is not None and account is None:
            refused.append(Refused(index=index, id=key, reason=f"unknown account {one.account!r}"))
        elif one.contact is not None and contact is None:
            refused.append(Refused(index=index, id=key, reason=f"unknown contact {one.contact!r}"))
        else:
            known.append((index, one, (account, contact)))
    return known, refused


def _people(connection: Connection, keys: Iterable[str]) -> dict[str, tuple[int, int | None]]:
    wanted = sorted(set(keys))
    query = select(contacts.c.external_id, contacts.c.id, contacts.c.account_id)
    found = connection.execute(query.where(among(connection, contacts.c.external_id, wanted)))
    return {row[0]: (row[1], row[2]) for row in found}


def _order_row(one: OrderIn, whose: _Whose, currency: str) -> tuple[Any, ...]:
    nets = [(line, to_minor(line.net(), currency)) for line in one.lines or ()]
    net = to_minor(one.amount, currency) if one.amount is not None else sum(minor for _, minor in nets)
    kind = one.kind or _kind(net, nets)
    gross = 0
    if kind is OrderKind.ORDER:
        positive = sum(minor for line, minor in nets if line.quantity > 0) if nets else max(net, 0)
        gross = to_minor(one.gross, currency) if one.gross is not None else positive
    cancelled = to_ms(one.cancelled_at) if one.cancelled_at else None
    return (one.order, *whose, to_ms(one.ordered_at), str(kind), net, gross, currency, cancelled)


def _kind(net: int, nets: Sequence[tuple[LineIn, int]]) -> OrderKind:
    """Tell a return from its amounts, as the import of files does."""
    negative = all(line.quantity < 0 or minor < 0 for line, minor in nets) if nets else net < 0
    return OrderKind.RETURN if negative else OrderKind.ORDER


def _replace_lines(connection: Connection, lined: Sequence[tuple[int, OrderIn, str]]) -> set[int]:
    """Store the lines of those orders whose lines differ, and return the orders' ids."""
    named = {line.product: line for _, one, _ in lined for line in one.lines or ()}
    makers = [(key, line.product_name) for key, line in named.items()]
    ids = create_missing(connection, products, ["name"], makers)[0] if makers else {}
    given = {number: [_line(line, ids, code) for line in one.lines or ()] for number, one, code in lined}
    names = ("order_id", "product_id", "quantity", "net_minor", "cost_minor")
    query = select(*(order_lines.c[name] for name in names)).where(
        among(connection, order_lines.c.order_id, list(given))
    )
    stored: dict[int, list[tuple[Any, ...]]] = {}
    for number, *rest in connection.execute(query):
        stored.setdefault(number, []).append(tuple(rest))
    differing = {number for number, lines in given.items() if _sorted(lines) != _sorted(stored.get(number, []))}
    if differing:
        connection.execute(delete(order_lines).where(among(connection, order_lines.c.order_id, sorted(differing))))
    rows = [(number, at, *line) for number in sorted(differing) for at, line in enumerate(given[number], 1)]
    insert_rows(connection, order_lines, ["order_id", "line", *names[1:]], rows)
    return differing


def _line(line: LineIn, ids: Mapping[str, int], currency: str) -> tuple[Any, ...]:
    cost = None if line.unit_cost is None else to_minor(line.quantity * line.unit_cost, currency)
    return (ids[line.product], float(line.quantity), to_minor(line.net(), currency), cost)


def _sorted(lines: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(lines, key=lambda line: tuple((value is None, value or 0) for value in line))
