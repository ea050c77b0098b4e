"""What each kind of source can hold: its fields, their types, and which of them every row needs.

The models are what `columns` and `constants` of a source may name; docs/importing.md shows the same words.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar

from pydantic import Field

from kernel.fields import Strict


class Kind(StrEnum):
    """What the rows of a source are."""

    ACCOUNTS = "accounts"
    CONTACTS = "contacts"
    CONSENTS = "consents"
    ORDERS = "orders"
    ORDER_LINES = "order_lines"
    PRODUCTS = "products"
    STOCK = "stock"
    OPPORTUNITIES = "opportunities"
    EVENTS = "events"
    SPEND = "spend"


class FieldType(StrEnum):
    """How the text of a cell is read."""

    KEY = "key"
    TEXT = "text"
    NUMBER = "number"
    MONEY = "money"
    INSTANT = "instant"
    COUNTRY = "country"
    LANGUAGE = "language"
    TIMEZONE = "time zone"
    EMAIL = "e-mail"
    PHONE = "phone"
    CURRENCY = "currency"
    CHANNEL = "channel"
    CONSENT_STATUS = "consent status"
    ORDER_KIND = "order kind"
    ORDER_STATUS = "order status"
    BOOLEAN = "boolean"
    DATE = "date"


class OrderStatus(StrEnum):
    """Whether an order still stands."""

    PLACED = "placed"
    CANCELLED = "cancelled"


def _column(description: str) -> str | None:
    column: str | None = Field(default=None, min_length=1, description=description)
    return column


class Fields(Strict):
    """Base of the fields of a kind: each names a column of the file (or, under `constants`, a value)."""

    required: ClassVar[tuple[str, ...]] = ()

    def given(self) -> dict[str, str]:
        """Return what the file says, by field, in the order of the model."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if value is not None}


class AccountFields(Fields):
    required = ("account",)
    account: str | None = _column("The shop's own number of the account.")
    name: str | None = _column("The company's name.")
    parent: str | None = _column("Number of the account this one belongs to; rows may come in any order.")
    country: str | None = _column("ISO code (GB) or English name.")
    timezone: str | None = _column("IANA zone, as Europe/London.")
    language: str | None = _column("Language tag, as en or de-AT.")
    created_at: str | None = _column("Customer since.")


class ContactFields(Fields):
    required = ("contact",)
    contact: str | None = _column("The shop's own number of the person.")
    account: str | None = _column("Number of the person's account.")
    email: str | None = _column("E-mail address.")
    phone: str | None = _column("Phone number; without a country prefix it needs phone_region.")
    first_name: str | None = _column("First name.")
    last_name: str | None = _column("Last name.")
    role: str | None = _column("buyer, finance, owner, … in your own words.")
    timezone: str | None = _column("IANA zone; without one, the account's.")
    language: str | None = _column("Language tag; without one, the account's.")
    created_at: str | None = _column("Known since.")


class ConsentFields(Fields):
    required = ("contact", "channel", "status", "at")
    contact: str | None = _column("Number of the person.")
    channel: str | None = _column("email or sms.")
    status: str | None = _column("granted or withdrawn.")
    at: str | None = _column("When the person said so; the latest word holds.")
    source: str | None = _column("Where the person said so.")
    wording: str | None = _column("What the person agreed to.")


class OrderFields(Fields):
    required = ("order", "ordered_at", "amount")
    order: str | None = _column("Number of the order.")
    account: str | None = _column("Number of the account; empty is kept and counted as without customer.")
    contact: str | None = _column("Number of the person who ordered.")
    ordered_at: str | None = _column("When it was ordered.")
    amount: str | None = _column("Net amount; negative on returns and cancellations.")
    gross: str | None = _column("Amount before returns; default: the amount, where it is positive.")
    currency: str | None = _column("Currency code of the row.")
    kind: str | None = _column(
        "order, return, cancellation or adjustment; default: return where the amount is negative."
    )
    status: str | None = _column("placed or cancelled.")
    cancelled_at: str | None = _column("From when on the order counts as nothing.")


class OrderLineFields(Fields):
    required = ("order", "product", "quantity")
    order: str | None = _column("Number of the order or invoice.")
    product: str | None = _column("Number of the product.")
    quantity: str | None = _column("Pieces; negative on returns.")
    unit_price: str | None = _column("Net price of one piece.")
    amount: str | None = _column("Net amount of the line, instead of unit_price.")
    unit_cost: str | None = _column("What one piece costs you.")
    ordered_at: str | None = _column(
        "When it was ordered; leave it out where the orders come from a source of their own."
    )
    account: str | None = _column("Number of the account; empty is kept and counted as without customer.")
    currency: str | None = _column("Currency code of the row.")
    product_name: str | None = _column("Name for products made on demand.")
    account_name: str | None = _column("Name for accounts made on demand.")
    country: str | None = _column("Country for accounts made on demand.")


class ProductFields(Fields):
    required = ("product",)
    product: str | None = _column("Number of the product.")
    name: str | None = _column("Its name.")
    category: str | None = _column("Its group.")
    price: str | None = _column("List price.")
    cost: str | None = _column("What one piece costs you.")
    currency: str | None = _column("Currency code of the row.")


class StockFields(Fields):
    required = ("product", "on_hand")
    product: str | None = _column("Number of the product.")
    on_hand: str | None = _column("Pieces in stock.")
    at: str | None = _column("When they were counted; default: the day of the import.")


class OpportunityFields(Fields):
    required = ("opportunity", "stage", "at")
    opportunity: str | None = _column("Number of the opportunity; one row for each stage it entered.")
    stage: str | None = _column("The stage entered.")
    at: str | None = _column("When it was entered; the latest is the present stage.")
    account: str | None = _column("Number of the account.")
    contact: str | None = _column("Number of the person.")
    name: str | None = _column("What it is about.")
    value: str | None = _column("Expected amount.")
    currency: str | None = _column("Currency code of the row.")


class EventFields(Fields):
    required = ("event", "name", "at")
    event: str | None = _column("The event's own id.")
    name: str | None = _column("What happened, as demo_requested.")
    at: str | None = _column("When.")
    account: str | None = _column("Number of the account.")
    contact: str | None = _column("Number of the person.")
    value: str | None = _column("Its worth in money.")
    currency: str | None = _column("Currency code of the row.")


class SpendFields(Fields):
    required = ("channel", "starts_at", "ends_at", "amount")
    channel: str | None = _column("Where the money went, as ads, fair or field sales.")
    starts_at: str | None = _column("First day of the period.")
    ends_at: str | None = _column("The day after the last one, so that months meet without a gap.")
    amount: str | None = _column("What was spent in the period, fully loaded.")
    currency: str | None = _column("Currency code of the row.")


_TYPES = {
    FieldType.KEY: "account parent contact order product opportunity event stage",
    FieldType.NUMBER: "quantity on_hand",
    FieldType.MONEY: "amount gross unit_price unit_cost price cost value",
    FieldType.INSTANT: "created_at at ordered_at cancelled_at starts_at ends_at",
    FieldType.COUNTRY: "country",
    FieldType.LANGUAGE: "language",
    FieldType.TIMEZONE: "timezone",
    FieldType.EMAIL: "email",
    FieldType.PHONE: "phone",
    FieldType.CURRENCY: "currency",
    FieldType.CHANNEL: "channel",
    FieldType.ORDER_KIND: "kind",
}
_BY_FIELD = MappingProxyType({name: kind for kind, names in _TYPES.items() for name in names.split()})


def type_of(kind: Kind, field: str) -> FieldType:
    """Return how a field of a kind is read."""
    if field == "status":
        return FieldType.CONSENT_STATUS if kind is Kind.CONSENTS else FieldType.ORDER_STATUS
    if (kind, field) in ((Kind.EVENTS, "name"), (Kind.SPEND, "channel")):
        return FieldType.KEY
    return _BY_FIELD.get(field, FieldType.TEXT)
