"""Promises 4 and 5: nothing after a no, nothing outside its window or over its caps and rates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, exists, func, select, type_coerce

from campaigns.calendar import Window, zone_named
from campaigns.schema import CampaignSpec
from campaigns.versions import load_specs
from kernel.clock import from_ms
from kernel.quantities import parse_duration, parse_rate
from kernel.settings import Workspace
from kernel.vocabulary import ACCEPTED_STATES, MessageState
from store.tables import accounts, campaigns, contacts, inbox, messages, runs, suppressions
from workers.audit.findings import Finding, breach

IN_FLIGHT = timedelta(minutes=11)
"""What had left the checks when a window closed or a no was written may be accepted so much later: the final dot is
waited for ten minutes (RFC 5321 4.5.3.2.6), and a chunk takes some seconds before it."""
_MINUTE_MS = 60_000
_GONE = (*ACCEPTED_STATES, MessageState.IN_DOUBT)


def nothing_after_a_no(connection: Connection, _workspace: Workspace) -> Iterator[Finding]:
    """No acceptance after an unsubscribe, bounce or complaint was written down, beyond the chunk in flight.

    Looked at are suppressions that a message led to and that still stand: words from a file have instants of their own.
    """
    sent_ms, said_ms = _ms(messages.c.sent_at), _ms(suppressions.c.at)
    in_flight_ms = round(IN_FLIGHT.total_seconds() * 1000)
    # What came in while nobody read the inbox was written down later than it was said.
    unread = exists().where(
        _ms(inbox.c.received_at) <= said_ms + 1000, _ms(inbox.c.processed_at) >= sent_ms - in_flight_ms
    )
    late = (
        select(messages.c.id)
        .join(
            suppressions,
            and_(
                suppressions.c.channel == messages.c.channel,
                suppressions.c.address == func.lower(messages.c.address),
            ),
        )
        .where(
            messages.c.state.in_(ACCEPTED_STATES),
            suppressions.c.message_id.is_not(None),
            suppressions.c.message_id != messages.c.id,
            sent_ms > said_ms + in_flight_ms,
            (suppressions.c.expires_at.is_(None)) | (_ms(suppressions.c.expires_at) > sent_ms),
            ~unread,
        )
        .order_by(messages.c.id)
    )
    yield from breach(
        dict.fromkeys(connection.execute(late).scalars()),
        "{n} were accepted after their address had been suppressed",
        "`carillon ledger show` tells when what was said; if no clock was wrong, tell Carillon's makers",
    )


def nothing_out_of_hours(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    """No acceptance outside the window on the recipient's clock, over a frequency cap, or over a campaign's rate."""
    specs = load_specs(connection, set(connection.execute(select(runs.c.version_id).distinct()).scalars()))
    yield from _outside_windows(connection, workspace, specs)
    yield from _over_caps(connection, specs)
    yield from _over_rates(connection, specs)


def _outside_windows(connection: Connection, workspace: Workspace, specs: dict[int, CampaignSpec]) -> Iterator[Finding]:
    """Ask by minute and zone, not by message: a million messages share a few thousand of those."""
    windows = {
        (version, step): Window.of(spec.window_of(step))
        for version, spec in specs.items()
        for step in range(1, len(spec.steps) + 1)
    }
    limited = {version for (version, _), window in windows.items() if not window.always}
    if not limited:
        return
    minute = (_ms(messages.c.sent_at) // _MINUTE_MS).label("minute")
    query = (
        select(
            runs.c.version_id,
            messages.c.step,
            func.coalesce(contacts.c.timezone, accounts.c.timezone).label("zone"),
            minute,
            func.count().label("n"),
            func.min(messages.c.id).label("first"),
        )
        .join(runs, runs.c.id == messages.c.run_id)
        .join(contacts, contacts.c.id == messages.c.contact_id)
        .join(accounts, accounts.c.id == contacts.c.account_id, isouter=True)
        .where(messages.c.state.in_(ACCEPTED_STATES), runs.c.version_id.in_(limited), messages.c.sent_at.is_not(None))
        .group_by(runs.c.version_id, messages.c.step, "zone", "minute")
    )
    outside, firsts = 0, []
    for version, step, zone, at_minute, count, first in connection.execute(query):
        default = specs[version].schedule.default_zone or workspace.settings.timezone
        at = from_ms(int(at_minute) * _MINUTE_MS).astimezone(zone_named(zone, default))
        window = windows.get((version, step))
        if window is not None and not window.holds(at) and not window.holds(at - IN_FLIGHT):
            outside += count
            firsts.append(first)
    yield from breach(
        firsts,
        f"{outside:,} were accepted outside their window (ids are of the first of each minute)",
        "was a contact's time zone changed since? `carillon ledger show` tells the window and the clock",
    )


def _over_caps(connection: Connection, specs: dict[int, CampaignSpec]) -> Iterator[Finding]:
    caps: dict[tuple[str, int, str], set[int]] = {}
    for version, spec in specs.items():
        for cap in spec.limits.caps if spec.limits else []:
            caps.setdefault((cap.channel, cap.messages, cap.within), set()).add(version)
    for (channel, most, within), versions in sorted(caps.items()):
        sent_ms = _ms(messages.c.sent_at)
        earlier = func.lag(sent_ms, most).over(
            partition_by=messages.c.contact_id, order_by=(messages.c.sent_at, messages.c.id)
        )
        sent = (
            select(messages.c.id, messages.c.run_id, sent_ms.label("sent_ms"), earlier.label("earlier_ms"))
            .where(messages.c.channel == channel, messages.c.state.in_(_GONE), messages.c.sent_at.is_not(None))
            .subquery()
        )
        within_ms = round(parse_duration(within).total_seconds() * 1000)
        over = (
            select(sent.c.id)
            .join(runs, runs.c.id == sent.c.run_id)
            .where(sent.c.earlier_ms > sent.c.sent_ms - within_ms, runs.c.version_id.in_(versions))
            .order_by(sent.c.id)
        )
        yield from breach(
            connection.execute(over).scalars(),
            f"{{n}} went over the cap of {most} {channel} within {within}",
            "`carillon ledger show` of the person's address lists what they got and when",
        )


def _over_rates(connection: Connection, specs: dict[int, CampaignSpec]) -> Iterator[Finding]:
    """Ask whether any stretch as long as a rate's unit saw more than two such stretches allow.

    The allowance is taken when a chunk is prepared and the answers come later, so what one minute allowed may be
    accepted in the next: twice the rate is the most that can meet in one.
    """
    rates: dict[int, tuple[int, int]] = {}
    for version, spec in specs.items():
        if spec.rate:
            rate = parse_rate(spec.rate)
            rates[version] = (rate.count, round(rate.per.total_seconds() * 1000))
    for per_ms in sorted({per for _, per in rates.values()}):
        stretch = (_ms(messages.c.sent_at) // per_ms).label("stretch")
        query = (
            select(campaigns.c.name, func.max(runs.c.version_id), func.count().label("n"), func.min(messages.c.id))
            .join(runs, runs.c.id == messages.c.run_id)
            .join(campaigns, campaigns.c.id == runs.c.campaign_id)
            .where(
                runs.c.version_id.in_([version for version, (_, per) in rates.items() if per == per_ms]),
                messages.c.state.in_(ACCEPTED_STATES),
            )
            .group_by(campaigns.c.name, stretch)
        )
        busiest: dict[str, tuple[int, int, int]] = {}
        for name, version, count, first in connection.execute(query):
            if count > 2 * rates[version][0] and count > busiest.get(name, (0, 0, 0))[0]:
                busiest[name] = (count, first, version)
        for name, (count, first, version) in sorted(busiest.items()):
            yield from breach(
                [first],
                f"{name}: {count:,} were accepted in one stretch of its rate {specs[version].rate}",
                "was the rate changed while it ran? (the id is of the first of that stretch)",
            )


def _ms(column: ColumnElement[object]) -> ColumnElement[int]:
    return type_coerce(column, BigInteger)
