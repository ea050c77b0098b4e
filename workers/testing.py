"""`carillon test-send`: one step of a campaign file, rendered for one contact, to an address of your own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, select

from campaigns.loading import LoadedCampaign
from campaigns.rendering import prepare_step
from campaigns.versions import pin
from kernel.errors import ConfigError
from kernel.settings import Workspace
from store.engine import reading
from store.schema import installation
from store.tables import contacts
from templates.context import load_contexts
from templates.links import PreviewLinks
from templates.mail import MailStep
from workers.channels.port import Receipt
from workers.single import first_gateway, send_one


def send_test(
    workspace: Workspace,
    engine: Engine,
    campaign: LoadedCampaign,
    step: int,
    address: str,
    contact: str | None,
    *,
    now: datetime,
) -> Receipt:
    """Send a step to `address`, rendered with a contact's data; outside the ledger, without tracking.

    Args:
        workspace: The workspace.
        engine: Its database.
        campaign: The file as it stands, applied or not.
        step: Position of the step, from 1.
        address: Where to send it.
        contact: External id of the contact whose data fills the template; None takes the first.
        now: The present instant.

    Raises:
        ConfigError: no such step or contact.
        DeliveryError: it was not accepted.
    """
    pinned = pin(campaign, workspace.settings)
    if not 1 <= step <= len(pinned.spec.steps):
        raise ConfigError(f"campaign {campaign.name} has {len(pinned.spec.steps)} step(s), not a step {step}")
    context, name = _context(engine, workspace, contact, now)
    language = context["contact"].get("language") or workspace.settings.language
    lane = pinned.spec.steps[step - 1].gateway or first_gateway(workspace, pinned.spec.steps[step - 1].channel)
    if lane in workspace.settings.routes:
        lane = next(iter(workspace.settings.routes[lane].gateways))
    prepared = prepare_step(workspace, pinned, step, language, workspace.signer(), name)
    if isinstance(prepared, MailStep):
        content: Any = prepared.compose(message_id=0, address=address, context=context, date=now, links=PreviewLinks())
        content = replace(
            content, data=content.data.replace(b"\r\nSubject: ", b"\r\nX-Carillon-Test: yes\r\nSubject: ", 1)
        )
    else:
        content = prepared.compose(message_id=0, address=address, context=context, links=PreviewLinks())
    return send_one(workspace, lane, content)


def _context(engine: Engine, workspace: Workspace, contact: str | None, now: datetime) -> tuple[dict[str, Any], str]:
    with reading(engine) as connection:
        query = select(contacts.c.id).order_by(contacts.c.id).limit(1)
        if contact is not None:
            query = query.where(contacts.c.external_id == contact)
        contact_id = connection.execute(query).scalar_one_or_none()
        if contact_id is None:
            raise ConfigError(
                f"there is no contact {contact!r}" if contact else "there is no contact yet; import some first"
            )
        settings = workspace.settings
        contexts = load_contexts(
            connection, [contact_id], now=now, currency=settings.currency, zone=ZoneInfo(settings.timezone)
        )
        return contexts[contact_id], installation(connection)
