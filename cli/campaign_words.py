"""Plans, applied campaigns and previews in words, for people at a terminal."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from campaigns.applying import Applied, Change
from campaigns.pace import Pace
from campaigns.planning import Plan
from campaigns.preflight import in_words
from campaigns.rendering import Rendered
from campaigns.sms_forecast import TextForecast
from cli.shared import console
from kernel.quantities import format_minor

_ALPHABETS = {"gsm7": "the GSM alphabet", "ucs2": "UCS-2"}


def print_plan(plan: Plan) -> None:
    """Print what a campaign would do."""
    _line(f"{plan.name}: {plan.state}", style="bold")
    for change in plan.changes:
        _line(f"    {change}")
    if plan.run_at is not None:
        _line(f"  next run      {_at(plan.run_at)}")
        _line(f"  audience      {plan.people:,} people, {plan.audience:,} messages to consider")
        _line(f"  would leave   {_counts(plan.messages) or 'nothing'}")
        for reason, count in plan.skipped.items():
            _line(f"  skipped       {count:,} {reason}")
        if plan.held_out:
            _line(f"  held out      {plan.held_out:,}")
        for day, channels in plan.per_day.items():
            _line(f"  {day}    {_counts(channels)}")
        if plan.first_send_at and plan.last_send_at:
            _line(f"  first, last   {_at(plan.first_send_at)}, {_at(plan.last_send_at)}")
        for pace in plan.pace:
            _print_pace(pace)
        for text in plan.texts:
            _print_texts(text)
        _print_money(plan)
        for name, size in plan.segments.items():
            _line(f"  segment       {name}: {size:,}")
    for warning in plan.warnings:
        _line(f"  warning: {warning}", style="yellow")
    _print_findings(plan)
    if plan.sample is not None:
        _line(f"  a sample, as {plan.sample.contact} would get it:")
        console.rule(style="dim")
        print_rendered(plan.sample)
        console.rule(style="dim")


def _print_money(plan: Plan) -> None:
    """Print what the run costs, and how far the budgets go."""
    for currency, minor in plan.estimate.cost.items():
        if minor:
            _line(f"  cost          about {format_minor(minor, currency)}")
    for one in plan.budgets:
        some = f"{one.pays_for:,} of {one.messages:,}" if one.pays_for < one.messages else f"all {one.messages:,}"
        _line(f"  {one.budget} has {one.left:,.2f} left: it pays for {some} SMS")


def _print_pace(pace: Pace) -> None:
    """Print how long a gateway with limits takes."""
    takes = (
        "more than a year"
        if pace.ends_at is None
        else f"{_takes(pace.ends_at - pace.starts_at)}, until {_at(pace.ends_at)}"
    )
    _line(f"  by {pace.gateway} ({', '.join(pace.limits)}) {pace.messages:,} messages take {takes}")


def _takes(length: timedelta) -> str:
    """Return a length in words: minutes, hours or days, of each as many as one would say."""
    minutes = max(1, math.ceil(length.total_seconds() / 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{math.ceil(minutes / 60)} h" if minutes <= 48 * 60 else f"{math.ceil(minutes / 1440)} days"


def _print_findings(plan: Plan) -> None:
    for finding in plan.preflight:
        people = f" [{in_words(finding.people)}]" if finding.people else ""
        kind = "would not leave" if finding.fails else "worth mending"
        _line(f"  step {finding.step}, {kind}: {finding.message}{people}", style="red" if finding.fails else "yellow")


def _print_texts(text: TextForecast) -> None:
    """Print what the texts of one step come to: parts, alphabet, money by country, and the letters that cost."""
    about = "" if text.exact else "about "
    alphabets = ", ".join(f"{count:,} in {_ALPHABETS[name]}" for name, count in text.encodings.items())
    _line(f"  step {text.step} by SMS {about}{text.parts:,} parts of {text.messages:,} texts ({alphabets})")
    for country, bill in text.countries.items():
        cost = "no price" if bill.cost is None else f"{bill.cost:,.2f}"
        _line(f"    to {country}       {bill.messages:,} texts, {about}{bill.parts:,} parts, {cost}")
    for dear in text.dear:
        where = f"{dear.path}:{dear.line}:{dear.column}" if dear.path else "in the recipients' data"
        _line(f"    {where}: {dear.shown} ({dear.name}), in {dear.texts:,} of {text.rendered:,} texts: {dear.remedy}")


def print_applied(applied: Applied, now: datetime) -> None:
    """Print what applying one file did and when it runs next."""
    if applied.change is Change.UNCHANGED:
        _line(f"{applied.name}: unchanged (version {applied.version})")
    else:
        _line(f"{applied.name}: {applied.change}, now version {applied.version}", style="bold")
    for change in applied.changes:
        _line(f"    {change}")
    if applied.next_run_at is None:
        comes = f"the campaign is {applied.state}" if applied.state != "active" else "no run is to come"
    else:
        comes = "at once" if applied.next_run_at <= now else _at(applied.next_run_at)
    _line(f"    next run: {comes}")


def print_rendered(made: Rendered) -> None:
    """Print one message as text."""
    _line(f"To: {made.to or '(no address)'}")
    if made.subject:
        _line(f"Subject: {made.subject}")
    _line("")
    _line(made.text)
    for name in made.attachments:
        _line(f"[attached: {name}]")
    if made.parts:
        _line(f"[{made.parts} SMS part(s)]")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {channel}" for channel, count in counts.items())


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _line(text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
