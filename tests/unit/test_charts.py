from __future__ import annotations

import io
import struct
from datetime import date, timedelta
from xml.etree import ElementTree as ET

import pytest

from reports.charts import Bar, BarChart, Chart, daily_chart, funnel_chart, png, segments_chart, svg
from reports.daily import DayCounts
from reports.funnel import Funnel, Slice

BLUE = "#1f4e79"


def figures(**changed: object) -> Funnel:
    plain: dict[str, object] = {
        "audience": 1000, "people": 1000, "places": None, "skipped": {"no_consent": 100}, "held_out": 0, "pending": 0,
        "in_doubt": 0, "failed": 0, "failures": {}, "sent": 900, "delivered": 880, "delivered_email": 880,
        "opened": 300, "clicked": 88, "opened_raw": 400, "clicked_raw": 120, "machine_opens": 0, "machine_clicks": 0,
        "converted": 12,
        "revenue": {"GBP": 123_456}, "cost_minor": None, "currency": "GBP", "has_goal": True, "unsubscribed": 0,
        "bounced": 20, "complained": 0, "replied": 0,
    }  # fmt: skip
    return Funnel(**{**plain, **changed})  # type: ignore[arg-type]  # figures by name, mixed on purpose


def days(number: int) -> list[DayCounts]:
    first = date(2026, 3, 2)
    return [
        DayCounts(day=first + timedelta(days=n), sent=0, opened=90 - n, clicked=n % 7, converted=n % 3)
        for n in range(number)
    ]


def some_charts() -> list[Chart]:
    drawn = [
        funnel_chart(figures()),
        funnel_chart(figures(audience=0, sent=0, delivered=0, opened=0, clicked=0, converted=0)),
        daily_chart(days(1)),
        daily_chart(days(62)),
        BarChart(
            title="One", bars=(Bar(name="A name far longer than any bar would leave room for", value=0, figure="0"),)
        ),
    ]
    return [chart for chart in drawn if chart is not None]


def test_the_funnel_is_told_in_numbers_to_those_who_cannot_see_it() -> None:
    assert funnel_chart(figures(), goal_noun="Orders").alt == (
        "From audience to conversions: Audience 1,000; Sent 900 (90% of audience); Delivered 880 (98% of sent); "
        "Opened 300 (34% of delivered); Clicked 88 (10% of delivered); Orders 12 (1.4% of delivered)."
    )


def test_opens_are_a_share_of_emails_where_some_messages_were_sms() -> None:
    opened = funnel_chart(figures(delivered_email=600)).bars[3]
    assert (opened.name, opened.note) == ("Opened", "50% of e-mails")


def test_a_campaign_without_a_goal_has_no_bar_for_it() -> None:
    assert [bar.name for bar in funnel_chart(figures(has_goal=False)).bars][-1] == "Clicked"


def test_revenue_by_segment_comes_largest_first_and_falls_back_to_clicks() -> None:
    slices = [
        Slice(key="at_risk", label="at_risk", funnel=figures(revenue={"GBP": 5_000}, converted=1)),
        Slice(key="cant_lose", label="cant_lose", funnel=figures(revenue={"GBP": 1_234_500}, converted=2)),
        Slice(key="", label="none", funnel=figures(revenue={"EUR": 9}, clicked=0)),
    ]
    chart = segments_chart(slices, "GBP", goal_noun="Orders")
    assert chart is not None
    assert [(bar.name, bar.figure, bar.note) for bar in chart.bars] == [
        ("Can't lose", "£12,345", "2 orders"),
        ("At risk", "£50.00", "1 order"),
    ]
    clicks = segments_chart(slices, "USD")
    assert clicks is not None
    assert (clicks.title, len(clicks.bars)) == ("Clicks by segment", 2)
    assert segments_chart([], "GBP") is None


def test_nothing_happened_means_no_daily_chart() -> None:
    assert daily_chart([]) is None


@pytest.mark.parametrize("chart", some_charts(), ids=lambda chart: chart.title)
def test_every_chart_becomes_a_png_for_mail_and_an_svg_for_pages(chart: Chart) -> None:
    image = png(chart, color=BLUE)
    assert image.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", image[16:24])
    assert width == 1120
    assert 0 < height < 2000
    drawing = svg(chart, color=BLUE)
    assert ET.parse(io.BytesIO(drawing)).getroot().tag.endswith("svg")
    assert BLUE.encode() in drawing


def test_the_same_chart_gives_the_same_bytes() -> None:
    chart = funnel_chart(figures())
    assert png(chart, color=BLUE) == png(chart, color=BLUE)
    assert svg(chart, color=BLUE) == svg(chart, color=BLUE)


def test_an_svg_carries_its_figures_as_text() -> None:
    assert b"880" in svg(funnel_chart(figures()), color=BLUE)
