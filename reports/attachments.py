"""The report's figures as files: funnel.csv, by_step.csv, by_segment.csv, conversions.csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from kernel.quantities import minor_exponent
from reports.content import Report
from reports.csv_files import Cell, csv_bytes
from reports.funnel import Funnel, Slice

_COUNTS = (
    "audience",
    "people",
    "sent",
    "failed",
    "skipped",
    "held_out",
    "pending",
    "in_doubt",
    "delivered",
    "opened",
    "clicked",
    "converted",
    "unsubscribed",
    "bounced",
    "complained",
)


def attachments(report: Report) -> dict[str, bytes]:
    """Return the files by name, in the order they are attached."""
    return {
        "funnel.csv": csv_bytes(("figure", "detail", "value", "unit"), _funnel_rows(report.totals)),
        "by_step.csv": _slices_file("step", report.steps, report.currency),
        "by_segment.csv": _segments_file(report),
        "conversions.csv": _conversions_file(report),
    }


def major(amount_minor: int, currency: str) -> Decimal:
    """Return an amount in major units with the currency's decimals, as spreadsheets add it up."""
    return Decimal(amount_minor).scaleb(-minor_exponent(currency))


def _funnel_rows(totals: Funnel) -> Iterator[Sequence[Cell]]:
    for name in _COUNTS:
        yield name, "", _count(totals, name), "people" if name == "people" else "messages"
    for reason, number in totals.skipped.items():
        yield "skipped", reason, number, "messages"
    for reason, number in totals.failures.items():
        yield "failed", reason, number, "messages"
    yield "opened_raw", "people and machines", totals.opened_raw, "messages"
    yield "clicked_raw", "people and machines", totals.clicked_raw, "messages"
    yield "machine_opens", "", totals.machine_opens, "hits"
    yield "machine_clicks", "", totals.machine_clicks, "hits"
    for currency, amount in totals.revenue.items():
        yield "revenue", "", major(amount, currency), currency
    if totals.cost_minor is not None and totals.currency is not None:
        yield "cost", "", major(totals.cost_minor, totals.currency), totals.currency
    if totals.roi is not None:
        yield "roi", "on revenue", round(totals.roi, 4), "ratio"


def _count(figures: Funnel, name: str) -> int:
    return figures.skipped_total if name == "skipped" else int(getattr(figures, name))


def _slices_file(name: str, slices: Sequence[Slice], currency: str) -> bytes:
    currencies = sorted({currency} | {code for part in slices for code in part.funnel.revenue})
    heading = (name, "name", *_COUNTS, *(f"revenue_{code.lower()}" for code in currencies), f"cost_{currency.lower()}")
    return csv_bytes(heading, (_slice_row(part, currencies, currency) for part in slices))


def _slice_row(part: Slice, currencies: Sequence[str], currency: str) -> Sequence[Cell]:
    return (
        int(part.key) if part.key.isdecimal() else part.key,
        part.label,
        *(_count(part.funnel, name) for name in _COUNTS),
        *(major(part.funnel.revenue.get(code, 0), code) for code in currencies),
        major(part.funnel.cost_minor or 0, currency),
    )


def _segments_file(report: Report) -> bytes:
    """Audience segments and RFM groups in one file; the column `kind` tells them apart, each kind adds up to all."""
    kinds = (("segment", report.segments), ("rfm_segment", report.rfm_segments), ("variant", report.variants))
    every = [part for _, slices in kinds for part in slices]
    currencies = sorted({report.currency} | {code for part in every for code in part.funnel.revenue})
    heading = (
        "kind",
        "segment",
        "name",
        *_COUNTS,
        *(f"revenue_{code.lower()}" for code in currencies),
        f"cost_{report.currency.lower()}",
    )
    rows = ((kind, *_slice_row(part, currencies, report.currency)) for kind, slices in kinds for part in slices)
    return csv_bytes(heading, rows)


def _conversions_file(report: Report) -> bytes:
    heading = (
        "at",
        "kind",
        "reference",
        "account",
        "account_name",
        "value",
        "currency",
        "run",
        "step",
        "channel",
        "touch",
        "touched_at",
    )

    def wall(instant: datetime) -> str:
        return f"{instant.astimezone(report.zone):%Y-%m-%d %H:%M:%S}"

    rows = (
        (
            wall(row.at),
            row.kind,
            row.reference,
            row.account_key,
            row.account,
            major(row.value_minor, row.currency) if row.currency else row.value_minor,
            row.currency,
            wall(row.run_at),
            row.step,
            row.channel,
            row.touch,
            wall(row.touched_at),
        )
        for row in report.conversions
    )
    return csv_bytes(heading, rows)
