"""What an import tells: counts with stable names, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an import has come: `done` of `total` (None: not known) of what `stage` names."""

    stage: str
    done: int
    total: int | None


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Tell nobody."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of rows of the file: rows = new + changed + unchanged + superseded + rejected.

    `superseded` rows were followed by another of the same id; the last one holds.
    """

    rows: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    superseded: int = 0
    rejected: int = 0
    without_customer: int = 0
    orders: int = 0
    products: int = 0
    accounts: int = 0
    created_accounts: int = 0
    created_products: int = 0
    net_minor: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Tally)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of a file, or of all the files of a source.

    Counts of orders, products and accounts are distinct ones named by good rows (added up over several files).
    `amount` is the exact sum of quantity times price, or of the amounts, of the good rows; None where the kind has
    no money or the rows have several currencies. `net_minor` is the same after rounding each row.
    """

    source: str
    kind: str
    files: tuple[str, ...]
    tally: Tally = field(default_factory=Tally)
    currency: str | None = None
    amount: Decimal | None = None
    orders_by_kind: dict[str, int] = field(default_factory=dict)
    rejects_file: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the result with stable keys; amounts as exact decimals in text."""
        counts = {one.name: getattr(self.tally, one.name) for one in fields(Tally)}
        created = {"accounts": counts.pop("created_accounts"), "products": counts.pop("created_products")}
        return {
            "source": self.source,
            "kind": self.kind,
            "files": list(self.files),
            **counts,
            "created": created,
            "orders_by_kind": self.orders_by_kind,
            "currency": self.currency,
            "amount": None if self.amount is None else plain_decimal(self.amount),
            "rejects_file": str(self.rejects_file) if self.rejects_file else None,
        }


def plain_decimal(amount: Decimal) -> str:
    """Return an exact decimal without exponent and without zeros at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def combined(results: list[ImportResult]) -> ImportResult:
    """Return one result for several files of one source."""
    first = results[0]
    if len(results) == 1:
        return first
    tally = Tally()
    by_kind: dict[str, int] = {}
    for result in results:
        tally += result.tally
        for kind, count in result.orders_by_kind.items():
            by_kind[kind] = by_kind.get(kind, 0) + count
    same = {result.currency for result in results} == {first.currency}
    amounts = [result.amount for result in results if result.amount is not None]
    return ImportResult(
        source=first.source,
        kind=first.kind,
        files=tuple(name for result in results for name in result.files),
        tally=tally,
        currency=first.currency if same else None,
        amount=sum(amounts, Decimal(0)) if same and len(amounts) == len(results) else None,
        orders_by_kind=by_kind,
        rejects_file=next((result.rejects_file for result in reversed(results) if result.rejects_file), None),
    )
