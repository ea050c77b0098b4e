"""The report as a page and as text, from one set of figures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from kernel.quantities import minor_exponent
from reports import words
from reports.charts import WIDTH_PX, svg
from reports.content import Report
from reports.figures import figures
from reports.funnel import Slice

_PAGES = Path(__file__).parent / "pages"
_ROWS = 12
_NOT_REAL = "these figures do not come from real customers."
_LARGEST = 5
# What large receivers tolerate: Gmail asks for complaints under 0.1 % and never 0.3 %; the others are common practice.
_TOO_MANY = {"bounced": 0.02, "unsubscribed": 0.01, "complained": 0.001}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One headline figure."""

    name: str
    figure: str
    note: str = ""


def html_page(report: Report, pictures: Mapping[str, str]) -> str:
    """Return the report as HTML; `pictures` maps a chart's name to the URL its image is shown from."""
    return _pages().get_template("report.html").render(**_shown(report), pictures=pictures, width=WIDTH_PX)


def text_page(report: Report) -> str:
    """Return the report as plain text with the same figures."""
    return _pages().get_template("report.txt").render(**_shown(report)).strip() + "\n"


def standalone_page(report: Report) -> str:
    """Return the report as one HTML file with its charts inside, for a browser."""
    pictures = {
        name: "data:image/svg+xml;base64," + base64.b64encode(svg(chart, color=report.color)).decode("ascii")
        for name, chart in report.charts().items()
    }
    return html_page(report, pictures)


def subject_line(report: Report) -> str:
    """Return the subject: the label, the campaign, and its headline figures."""
    totals = report.totals
    if report.goal:
        said = [words.counted(totals.converted, report.goal_noun.lower())]
        if totals.revenue:
            said.append(words.all_money(dict(totals.revenue), report.currency, whole=True))
        if totals.roi is not None:
            said.append(f"ROI {words.signed_percent(totals.roi)}")
    else:
        said = [f"{words.count(totals.sent)} sent", f"{words.count(totals.clicked)} clicked"]
    return (f"[{report.label}] " if report.label else "") + f"{report.campaign}: {', '.join(said)}"


def _shown(report: Report) -> dict[str, Any]:
    return {
        "report": report,
        "totals": report.totals,
        "subject": subject_line(report),
        "banner": report.label.upper() + (f": {_NOT_REAL}" if report.label.lower() == "simulated" else ""),
        "tiles": list(_tiles(report)),
        "lead": _lead(report),
        "remarks": list(_remarks(report)),
        "charts": report.charts(),
        "unsent": _unsent(report),
        "tables": _tables(report),
        "largest": _largest(report),
        "figures": figures(report.totals, report.currency, report.goal_noun),
        "definitions": _definitions(report),
        "as_of": f"{report.now.astimezone(report.zone):%Y-%m-%d %H:%M} ({report.zone.key})",
        "period": _period(report),
    }


def _by_worth(currency: str) -> Any:
    return lambda part: (-part.funnel.revenue.get(currency, 0), -part.funnel.clicked, -part.funnel.sent, part.key)


def _period(report: Report) -> str:
    if not report.days:
        return ""
    first, last = report.days[0].day, report.days[-1].day
    return f"{first.day} {first:%b %Y}" + ("" if first == last else f" to {last.day} {last:%b %Y}")


def _lead(report: Report) -> str:
    """Return the one sentence a director reads."""
    totals = report.totals
    if not totals.sent:
        return f"Nothing has been sent yet; {words.counted(totals.pending, 'messages')} of the audience are pending."
    said = f"{words.counted(totals.sent, 'messages')} went out"
    if report.goal and totals.converted:
        said += f" and led to {words.counted(totals.converted, report.goal_noun.lower())}"
        if totals.revenue:
            said += f" worth {words.all_money(dict(totals.revenue), report.currency)}"
        if totals.roas is not None:
            unit = 10 ** minor_exponent(report.currency)
            back, spent = round(totals.roas * unit), unit
            said += f": {words.money(back, report.currency)} for every {words.money(spent, report.currency)} spent"
    elif report.goal:
        said += f"; no {report.goal_noun.lower()} are credited to them so far"
    else:
        said += f"; {words.counted(totals.clicked, 'messages')} were clicked"
    return said + "."


def _tiles(report: Report) -> Iterator[Tile]:
    totals, currency = report.totals, report.currency
    if report.goal:
        yield Tile(name="Revenue", figure=words.all_money(dict(totals.revenue), currency, whole=True))
        yield Tile(
            name=report.goal_noun,
            figure=words.count(totals.converted),
            note=words.share_of(totals.converted, totals.delivered, "delivered"),
        )
    yield Tile(
        name="Sent", figure=words.count(totals.sent), note=words.share_of(totals.sent, totals.audience, "audience")
    )
    yield Tile(
        name="Clicked",
        figure=words.count(totals.clicked),
        note=words.share_of(totals.clicked, totals.delivered, "delivered"),
    )
    if totals.cost_minor:
        yield Tile(name="Cost", figure=words.money(totals.cost_minor, currency, whole=True))
    if totals.roi is not None:
        yield Tile(name="ROI on revenue", figure=words.signed_percent(totals.roi))


def _remarks(report: Report) -> Iterator[str]:
    """Yield what somebody should look at, worst first."""
    totals = report.totals
    if not totals.balanced:
        yield (
            "The books do not balance: the audience is not the sum of its parts. Tell whoever runs Carillon; "
            "`carillon funnel` shows which run it is."
        )
    if totals.in_doubt:
        yield f"{words.counted(totals.in_doubt, 'messages')} may or may not have arrived; they are not sent again."
    if totals.failed:
        reasons = ", ".join(
            f"{words.count(number)} {words.reason_in_words(reason)}" for reason, number in totals.failures.items()
        )
        yield f"{words.counted(totals.failed, 'messages')} failed: {reasons}."
    for name, limit in _TOO_MANY.items():
        number, whole = getattr(totals, name), totals.sent if name == "bounced" else totals.delivered
        if whole and number / whole > limit:
            yield f"{words.share(number, whole)} {name}: more than the {100 * limit:g}% that is usual at most."
    if totals.pending:
        yield f"{words.counted(totals.pending, 'messages')} are still to go out; figures will rise."


@lru_cache(maxsize=1)
def _pages() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_PAGES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        count=words.count,
        counted=words.counted,
        share=words.share,
        money=words.money,
        all_money=words.all_money,
        reason=words.reason_in_words,
        name_in_words=words.name_in_words,
        percent=words.signed_percent,
    )
    environment.filters["columns"] = _columns
    return environment


def _columns(rows: Sequence[Sequence[str]], gap: int = 2) -> str:
    """Lay rows out in columns of equal width, the first left, the others right, for the text part."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        (
            row[0].ljust(widths[0])
            + "".join(cell.rjust(width + gap) for cell, width in zip(row[1:], widths[1:], strict=True))
        ).rstrip()
        for row in rows
    )


def _table_rows(slices: Sequence[Slice], report: Report, *, as_words: bool = False) -> list[tuple[str, ...]]:
    """Return a breakdown's rows as shown: name, sent, clicked, converted, revenue."""
    return [
        (
            words.name_in_words(part.key) if as_words else part.label,
            words.count(part.funnel.sent),
            words.count(part.funnel.clicked),
            words.count(part.funnel.converted),
            words.all_money(dict(part.funnel.revenue), report.currency, whole=True),
        )
        for part in slices
    ]


def _tables(report: Report) -> dict[str, list[tuple[str, ...]]]:
    """Return the breakdowns worth showing, by heading; one that has a single value says nothing new."""
    by_worth = sorted(report.shown_segments, key=_by_worth(report.currency))
    runs = report.runs[-_ROWS:]
    found = {
        "By segment": _table_rows(by_worth, report, as_words=True),
        "By step": _table_rows(report.steps, report),
        "By variant": _table_rows(report.variants, report),
        "By run (latest last, UTC)": _table_rows(runs, report),
    }
    return {heading: rows for heading, rows in found.items() if len(rows) > 1}


def _unsent(report: Report) -> list[tuple[str, str]]:
    """Return why people of the audience got no message, most first."""
    totals = report.totals
    reasons = sorted(totals.skipped.items(), key=lambda item: (-item[1], item[0]))
    rows = [(words.reason_in_words(reason).capitalize(), words.count(number)) for reason, number in reasons]
    if totals.held_out:
        rows.append(("Held out on purpose, to measure lift", words.count(totals.held_out)))
    return rows


def _largest(report: Report) -> list[tuple[str, str, str]]:
    """Return the most valuable conversions: account, reference and day, value."""
    chosen = sorted((row for row in report.conversions if row.value_minor), key=lambda row: -row.value_minor)[:_LARGEST]
    return [
        (
            row.account or row.account_key or "no account",
            f"{row.reference}, {row.at.astimezone(report.zone).day} {row.at.astimezone(report.zone):%b}",
            words.money(row.value_minor, row.currency),
        )
        for row in chosen
    ]


def _definitions(report: Report) -> list[str]:
    """Return what the figures mean, for the foot of the report."""
    goal = report.goal
    measured = (
        "Sent: taken over by the mail or SMS gateway. Delivered: sent and not bounced. Opened and clicked: messages a "
        "person opened or clicked at least once; clicks of scanners and other machines are left out, opens of mail "
        "clients that hide who opened are counted."
    )
    said = [measured]
    if goal:
        days = goal.within.total_seconds() / 86400
        touches = " or ".join(sorted(goal.touches))
        said.append(
            f"{report.goal_noun} are credited to the last {touches} of any colleague of the account within "
            f"{days:g} days before, each once over all campaigns; returns and cancellations are taken off. Credit is "
            "not proof: some would have come without the campaign."
        )
    return said
