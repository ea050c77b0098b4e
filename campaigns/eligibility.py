"""The last look before a message leaves: consent, suppression, duplicates, caps, windows, conditions.

Asked when messages are claimed, because people unsubscribe, buy and bounce between planning and sending. The number
of queries is fixed, however many messages are asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, and_, case, or_, select

from campaigns.evidence import gather
from campaigns.judging import Case, Go, Skip, Verdict, Wait, judge
from campaigns.schema import CampaignSpec
from campaigns.versions import load_specs
from kernel.vocabulary import CampaignState, Channel, RunState
from store.message_facts import comparable_address
from store.sql import in_slices
from store.tables import accounts, campaigns, consents, contacts, messages, runs

__all__ = ["Case", "Go", "Skip", "Verdict", "Wait", "case_of", "case_rows", "check"]

CHUNK = 1_000


def check(connection: Connection, message_ids: Sequence[int], *, now: datetime) -> dict[int, Verdict]:
    """Return for each message whether it may leave now.

    Of messages that exclude each other (one address, or one contact's cap) the lowest id goes and the others wait
    for what becomes of it. Call this after the claim is committed: that is what makes two workers see each other.

    Args:
        connection: Reads only.
        message_ids: Claimed messages, up to a few thousand.
        now: The present instant, best on the database's clock.

    Returns:
        A verdict for each id that exists.
    """
    verdicts: dict[int, Verdict] = {}
    for ids in in_slices(sorted(message_ids), CHUNK):
        cases = list(_claimed(connection, ids))
        evidence = gather(connection, cases, now=now)
        for one in cases:
            verdict = judge(one, evidence, now)
            verdicts[one.message_id] = verdict
            if isinstance(verdict, Go):
                evidence.note(one, now, in_flight=True)
    return verdicts


def _claimed(connection: Connection, ids: Sequence[int]) -> list[Case]:
    source = (
        select(
            messages.c.id,
            messages.c.run_id,
            messages.c.step,
            messages.c.contact_id,
            messages.c.channel,
            messages.c.planned_for,
            runs.c.version_id,
            or_(campaigns.c.state == CampaignState.CANCELLED, runs.c.state == RunState.CANCELLED).label("cancelled"),
        )
        .join(runs, runs.c.id == messages.c.run_id)
        .join(campaigns, campaigns.c.id == runs.c.campaign_id)
        .where(messages.c.id.in_(ids))
        .subquery("source")
    )
    rows = connection.execute(case_rows(source)).all()
    specs = load_specs(connection, {row.version_id for row in rows})
    return [case_of(row, specs[row.version_id]) for row in rows]


def case_rows(source: FromClause) -> Select[Any]:
    """Return what is known of the recipients of a source of messages, in the order of ids.

    The source has id, run_id, step, contact_id, channel, planned_for, version_id, cancelled.
    """
    address: ColumnElement[Any] = case(
        (source.c.channel == Channel.EMAIL.value, contacts.c.email), else_=contacts.c.phone
    )
    return (
        select(
            source,
            contacts.c.id.label("known_contact"),
            address.label("address"),
            contacts.c.timezone.label("contact_zone"),
            accounts.c.timezone.label("account_zone"),
            consents.c.status.label("consent"),
        )
        .join(contacts, contacts.c.id == source.c.contact_id, isouter=True)
        .join(accounts, accounts.c.id == contacts.c.account_id, isouter=True)
        .join(
            consents,
            and_(consents.c.contact_id == source.c.contact_id, consents.c.channel == source.c.channel),
            isouter=True,
        )
        .order_by(source.c.id)
    )


def case_of(row: Any, spec: CampaignSpec) -> Case:
    """Return the case of a row of `case_rows`."""
    return Case(
        message_id=row.id,
        run_id=row.run_id,
        step=row.step,
        contact_id=row.contact_id,
        channel=Channel(row.channel),
        planned_for=row.planned_for,
        address=row.address,
        key=comparable_address(row.channel, row.address or ""),
        contact_exists=row.known_contact is not None,
        consent=row.consent,
        zone=row.contact_zone or row.account_zone,
        cancelled=bool(row.cancelled),
        spec=spec,
    )
