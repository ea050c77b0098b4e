"""Sending the conversion report. Unlike campaign messages it goes out at least once: the same Message-ID each time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import BigInteger, Engine, bindparam, or_, select, type_coerce, update

from kernel.clock import to_ms
from kernel.errors import CarillonError, DeliveryError, GatewayDown, PermanentError
from kernel.ids import digest
from kernel.settings import Workspace
from kernel.vocabulary import Channel
from reports.mail import compose_report
from store.engine import reading, writing
from store.schema import installation
from store.tables import campaigns, reports
from store.types import database_now
from templates.mail import ComposedMail
from workers.single import first_gateway, send_one

log = structlog.get_logger(__name__)

_LEASE = timedelta(minutes=15)
_RETRY = timedelta(minutes=1)
_ATTEMPTS = 20


def send_report(
    workspace: Workspace,
    engine: Engine,
    campaign: str,
    recipients: Sequence[str],
    now: datetime,
    *,
    key: str = "",
    label: str = "",
) -> None:
    """Compose a campaign's report as of now and send it to each recipient.

    `key` names the report where it may be tried again, so that every try bears the same Message-ID; `label` is shown
    on top of it.

    Raises:
        DeliveryError: a recipient's copy was not accepted.
        GatewayDown: the gateway for reports refuses as a whole.
    """
    settings = workspace.settings
    lane = settings.report_gateway or first_gateway(workspace, Channel.EMAIL)
    sender = next(iter(settings.senders.values()))
    domain = sender.email.rpartition("@")[2]
    for recipient in recipients:
        with reading(engine) as connection:
            name = installation(connection)
            # The same report to the same person bears the same Message-ID however often it is tried.
            left = digest(name, campaign, key or str(to_ms(now)), recipient)[:24]
            header = f"<report.{left}.{name}@{domain}>"
            data = compose_report(
                connection, workspace, campaign, now=now, recipients=[recipient], message_id_header=header, label=label
            )
        subject = f"report {campaign}"
        send_one(
            workspace,
            lane,
            ComposedMail(
                envelope_from=sender.email,
                envelope_to=recipient,
                message_id_header=header,
                subject=subject,
                data=data,
            ),
        )
        log.info("report_sent", campaign=campaign, to=recipient)


def send_due_reports(engine: Engine, workspace: Workspace, *, now: datetime) -> int:
    """Send every planned report whose time has come; return how many went out."""
    sent = 0
    while (taken := _take(engine)) is not None:
        report_id, campaign, recipients, due_at, attempts = taken
        try:
            send_report(
                workspace, engine, campaign, recipients, now, key=str(to_ms(due_at)), label=workspace.settings.label
            )
        except GatewayDown as error:
            _settle(engine, report_id, "planned", str(error), retry=True)
            log.error("report_waits", campaign=campaign, error=str(error))
        except DeliveryError as error:
            last = isinstance(error, PermanentError) or attempts + 1 >= _ATTEMPTS
            _settle(engine, report_id, "failed" if last else "planned", str(error), retry=not last)
            log.error("report_not_sent", campaign=campaign, error=str(error))
        except CarillonError as error:
            _settle(engine, report_id, "failed", str(error), retry=False)
            log.error("report_failed", campaign=campaign, error=str(error))
        else:
            _settle(engine, report_id, "sent", "", retry=False)
            sent += 1
    return sent


def _take(engine: Engine) -> tuple[int, str, list[str], datetime, int] | None:
    """Claim one due report; a worker that died with one in hand loses it when its lease runs out."""
    now = database_now()
    lease = type_coerce(reports.c.lease_until, BigInteger)
    with writing(engine) as connection:
        row = connection.execute(
            select(reports.c.id, campaigns.c.name, reports.c.recipients, reports.c.due_at, reports.c.attempts)
            .join(campaigns, campaigns.c.id == reports.c.campaign_id)
            .where(
                reports.c.state.in_(("planned", "sending")),
                type_coerce(reports.c.due_at, BigInteger) <= now,
                or_(reports.c.lease_until.is_(None), lease <= now),
            )
            .order_by(reports.c.due_at)
            .limit(1)
            .with_for_update(of=reports, skip_locked=True)
        ).one_or_none()
        if row is None:
            return None
        connection.execute(
            update(reports)
            .where(reports.c.id == row.id)
            .values(
                state="sending", lease_until=now + round(_LEASE.total_seconds() * 1000), attempts=reports.c.attempts + 1
            )
        )
    return row.id, row.name, list(row.recipients), row.due_at, row.attempts


def _settle(engine: Engine, report_id: int, state: str, note: str, *, retry: bool) -> None:
    with writing(engine) as connection:
        connection.execute(
            update(reports)
            .where(reports.c.id == bindparam("b_id"))
            .values(
                state=state,
                note=note[:500],
                lease_until=database_now() + round(_RETRY.total_seconds() * 1000) if retry else None,
                sent_at=database_now() if state == "sent" else None,
            ),
            {"b_id": report_id},
        )
