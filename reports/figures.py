"""Every figure of a funnel as a line a person reads; the report, its text part and the command line share it."""

from __future__ import annotations

from reports import words
from reports.funnel import Funnel


def figures(totals: Funnel, currency: str, goal_noun: str = "Conversions") -> list[tuple[str, str]]:
    """Return names and figures with their shares, in the order of the way a message goes."""
    lines = [
        _line("Audience (people × steps)", totals.audience),
        _line("People", totals.people),
        _line("Sent", totals.sent, totals.audience, "audience"),
        _line("Skipped", totals.skipped_total, totals.audience, "audience"),
        _line("Held out", totals.held_out, totals.audience, "audience"),
        _line("Failed", totals.failed),
        _line("Pending", totals.pending),
        _line("In doubt", totals.in_doubt),
        _line("Delivered", totals.delivered, totals.sent, "sent"),
        _line("Bounced", totals.bounced, totals.sent, "sent"),
        _line("Opened", totals.opened, totals.delivered_email, "delivered e-mails"),
        _line("Clicked", totals.clicked, totals.delivered, "delivered"),
        _line("Unsubscribed", totals.unsubscribed, totals.delivered, "delivered"),
        _line("Complained", totals.complained, totals.delivered, "delivered"),
        _line("Hits of machines, left out", totals.machine_opens + totals.machine_clicks),
    ]
    if totals.has_goal:
        lines.append(_line(goal_noun, totals.converted, totals.delivered, "delivered"))
        lines.append(("Revenue", words.all_money(dict(totals.revenue), currency)))
    if totals.cost_minor is not None:
        lines.append(("Cost", words.money(totals.cost_minor, currency)))
    if totals.roi is not None:
        lines.append(("ROI (on revenue, not on margin)", words.signed_percent(totals.roi)))
    return lines


def _line(name: str, number: int, whole: int = 0, word: str = "") -> tuple[str, str]:
    said = words.share_of(number, whole, word)
    return name, words.count(number) + (f" ({said})" if said else "")
