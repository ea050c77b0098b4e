"""The report's charts: one definition, drawn as PNG for e-mail and as SVG for pages.

Built for a phone held upright: large figures, direct labels instead of legends, one colour whose meaning never has
to be told from another's. Titles stand in the text around a chart, where every mail client shows them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from reports.daily import DayCounts
from reports.funnel import Funnel, Slice
from reports.words import count, counted, money, name_in_words, share, share_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_PX = 560
"""How wide a chart is shown; the PNG has twice as many pixels, for sharp screens."""
_INK, _MUTED, _RULE, _TRACK = "#1f2933", "#616e7c", "#d9dee3", "#eef1f4"
_FONT_PT = 17.0
_BAR_ROW_PX = 56
_LARGEST_ROWS = 10
_FEW_DAYS = 12
"""Up to so many columns there is room for a figure over each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: its name, its length, and what is written at its end."""

    name: str
    value: float
    figure: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarChart:
    """Horizontal bars, first on top."""

    title: str
    bars: tuple[Bar, ...]

    @property
    def alt(self) -> str:
        """The chart's figures in words, for those who do not see it."""
        said = "; ".join(f"{bar.name} {bar.figure}" + (f" ({bar.note})" if bar.note else "") for bar in self.bars)
        return f"{self.title}: {said}."


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyChart:
    """One panel of daily columns for each row of figures, on a common calendar."""

    title: str
    days: tuple[date, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def alt(self) -> str:
        """The chart's totals and best days in words."""
        said = []
        for name, numbers in self.rows:
            best = max(range(len(numbers)), key=lambda index: numbers[index])
            on = f", most on {_day(self.days[best])} ({count(numbers[best])})" if numbers[best] else ""
            said.append(f"{name} {count(sum(numbers))}{on}")
        return f"{self.title}, {_day(self.days[0])} to {_day(self.days[-1])}: {'; '.join(said)}."


Chart = BarChart | DailyChart


def funnel_chart(figures: Funnel, *, goal_noun: str = "Conversions") -> BarChart:
    """Return the way from the audience to the conversions; shares are of what was delivered."""
    delivered = figures.delivered
    bars = [
        Bar(name="Audience", value=figures.audience, figure=count(figures.audience)),
        Bar(
            name="Sent",
            value=figures.sent,
            figure=count(figures.sent),
            note=share_of(figures.sent, figures.audience, "audience"),
        ),
        Bar(name="Delivered", value=delivered, figure=count(delivered), note=share_of(delivered, figures.sent, "sent")),
        Bar(
            name="Opened",
            value=figures.opened,
            figure=count(figures.opened),
            note=share_of(figures.opened, figures.delivered_email, _delivered_email(figures)),
        ),
        Bar(
            name="Clicked",
            value=figures.clicked,
            figure=count(figures.clicked),
            note=share_of(figures.clicked, delivered, "delivered"),
        ),
    ]
    if figures.has_goal:
        converted = figures.converted
        bars.append(
            Bar(
                name=goal_noun,
                value=converted,
                figure=count(converted),
                note=share_of(converted, delivered, "delivered"),
            )
        )
    return BarChart(title="From audience to conversions", bars=tuple(bars))


def daily_chart(days: Sequence[DayCounts], *, goal_noun: str = "Conversions") -> DailyChart | None:
    """Return opens, clicks and conversions by day; None where nothing has happened yet."""
    if not days:
        return None
    rows = [
        ("Opens", tuple(day.opened for day in days)),
        ("Clicks", tuple(day.clicked for day in days)),
        (goal_noun, tuple(day.converted for day in days)),
    ]
    return DailyChart(title="Day by day", days=tuple(day.day for day in days), rows=tuple(rows))


def segments_chart(slices: Sequence[Slice], currency: str, *, goal_noun: str = "Conversions") -> BarChart | None:
    """Return revenue by segment in the workspace's currency, largest first; clicks where no revenue came in.

    None where there is neither.
    """
    earned = [part for part in slices if part.funnel.revenue.get(currency)]
    if earned:
        earned.sort(key=lambda part: -part.funnel.revenue[currency])
        bars = [
            Bar(
                name=name_in_words(part.key),
                value=part.funnel.revenue[currency],
                figure=money(part.funnel.revenue[currency], currency, whole=True),
                note=counted(part.funnel.converted, goal_noun.lower()),
            )
            for part in earned[:_LARGEST_ROWS]
        ]
        return BarChart(title="Revenue by segment", bars=tuple(bars))
    clicked = sorted((part for part in slices if part.funnel.clicked), key=lambda part: -part.funnel.clicked)
    bars = [
        Bar(
            name=name_in_words(part.key),
            value=part.funnel.clicked,
            figure=count(part.funnel.clicked),
            note=share(part.funnel.clicked, part.funnel.delivered),
        )
        for part in clicked[:_LARGEST_ROWS]
    ]
    return BarChart(title="Clicks by segment", bars=tuple(bars)) if bars else None


def png(chart: Chart, *, color: str) -> bytes:
    """Return the chart as a PNG of 1120 pixels' width; the same chart gives the same bytes."""
    return _saved(chart, color, "png", dpi=144, metadata={"Software": None})


def svg(chart: Chart, *, color: str) -> bytes:
    """Return the chart as an SVG document; the same chart gives the same bytes."""
    return _saved(chart, color, "svg", metadata={"Date": None, "Creator": None})


def _delivered_email(figures: Funnel) -> str:
    """Name what opens are a share of: an SMS cannot be seen to be opened."""
    return "delivered" if figures.delivered_email == figures.delivered else "e-mails"


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"


def _saved(chart: Chart, color: str, kind: str, **options: Any) -> bytes:
    # Loaded here: matplotlib takes most of a second to load, so only who draws pays for it.
    import matplotlib as mpl

    settings: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
        "font.size": _FONT_PT,
        "svg.fonttype": "none",
        "svg.hashsalt": "carillon",
    }
    with mpl.rc_context(settings):
        figure = _bars(chart, color) if isinstance(chart, BarChart) else _panels(chart, color)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, facecolor="white", **options)
    return buffer.getvalue()


def _figure(height_px: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_PX / 72, height_px / 72), dpi=72)


def _bars(chart: BarChart, color: str) -> Figure:
    """Draw each bar over the whole width, under a line that names it and says its figure: room for any name."""
    rows = len(chart.bars)
    figure = _figure(_BAR_ROW_PX * rows + 4)
    axes = figure.add_axes((0.004, 0.0, 0.992, 1.0))
    axes.set_axis_off()
    largest = max((bar.value for bar in chart.bars), default=0) or 1
    axes.set_xlim(0, 1)
    axes.set_ylim(_BAR_ROW_PX * rows + 4, 0)
    for row, bar in enumerate(chart.bars):
        top = _BAR_ROW_PX * row
        axes.barh(top + 40, 1, height=14, color=_TRACK)
        axes.barh(top + 40, bar.value / largest, height=14, color=color)
        axes.text(0, top + 26, bar.name, color=_INK, va="baseline")
        figures = axes.text(1, top + 26, bar.figure, color=_INK, va="baseline", ha="right", fontweight="bold")
        if bar.note:
            axes.annotate(
                bar.note,
                (0, 0),
                xycoords=figures,
                xytext=(-10, 0),
                textcoords="offset points",
                ha="right",
                va="bottom",
                color=_MUTED,
                fontsize=_FONT_PT - 2,
            )
    return figure


def _panels(chart: DailyChart, color: str) -> Figure:
    panel_px = 124
    figure = _figure(panel_px * len(chart.rows) + 34)
    axes_of: list[Axes] = list(
        figure.subplots(len(chart.rows), 1, sharex=True, squeeze=False, gridspec_kw={"hspace": 0.42})[:, 0]
    )
    figure.subplots_adjust(left=0.015, right=0.985, top=0.925, bottom=0.1)
    for axes, (name, numbers) in zip(axes_of, chart.rows, strict=True):
        _panel(axes, name, numbers, color)
    _name_days(axes_of[-1], chart.days)
    return figure


def _panel(axes: Axes, name: str, numbers: Sequence[int], color: str) -> None:
    places = list(range(len(numbers)))
    largest = max(numbers) or 1
    axes.bar(places, numbers, width=0.78, color=color)
    axes.set_ylim(0, largest * 1.28)
    axes.set_xlim(-0.6, max(len(numbers), 7) - 0.4)
    axes.set_title(
        f"{name}  {count(sum(numbers))}", loc="left", fontsize=_FONT_PT, color=_INK, pad=4, fontweight="bold"
    )
    axes.get_yaxis().set_visible(False)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    written = places if len(places) <= _FEW_DAYS else [places[numbers.index(largest)]] if max(numbers) else []
    for place in written:
        if numbers[place]:
            axes.annotate(
                count(numbers[place]),
                (place, numbers[place]),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=_FONT_PT - 3,
                color=_MUTED,
            )


def _name_days(axes: Axes, days: Sequence[date]) -> None:
    step = max(1, -(-len(days) // 6))
    named = list(range(0, len(days), step))
    labels = axes.set_xticks(named, [_day(days[place]) for place in named], color=_MUTED, fontsize=_FONT_PT - 2)
    axes.tick_params(axis="x", labelbottom=True, pad=5)
    if len(days) > _FEW_DAYS:
        labels[0].label1.set_horizontalalignment("left")
