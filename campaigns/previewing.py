"""One message of a campaign file as a person would see it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine, select

from campaigns import audience
from campaigns.loading import load_campaigns
from campaigns.planning import expanded
from campaigns.rendering import Rendered, Renderer
from campaigns.versions import PinnedCampaign, pin
from kernel.errors import CarillonError
from kernel.settings import Workspace
from store.engine import reading
from store.tables import contacts


def preview(
    engine: Engine, workspace: Workspace, name: str, *, step: int, contact: str | None, now: datetime
) -> Rendered:
    """Return a step of a campaign file, applied or not, rendered for a contact. Writes nothing.

    Args:
        engine: The database.
        workspace: The files.
        name: The campaign.
        step: Position of the step, from 1.
        contact: External id; None takes the first person of the audience who would be sent to, else anybody.
        now: The present instant.

    Raises:
        InputError: something is wrong with the files.
        CarillonError: no such step or contact.
        TemplateProblem: the template cannot be rendered for this contact.
    """
    pinned = pin(load_campaigns(workspace, [name])[name], workspace.settings)
    if not 1 <= step <= len(pinned.spec.steps):
        raise CarillonError(f"campaign {name} has {len(pinned.spec.steps)} step(s), no step {step}")
    with reading(engine) as connection:
        contact_id = _named(connection, contact) if contact else _anybody(connection, workspace, pinned, now)
        return Renderer(connection, workspace, pinned, now=now).render(step, contact_id)


def _named(connection: Connection, contact: str) -> int:
    found = connection.execute(select(contacts.c.id).where(contacts.c.external_id == contact)).scalar_one_or_none()
    if found is None:
        raise CarillonError(f"there is no contact {contact!r}; --contact takes the id your source gives it")
    return int(found)


def _anybody(connection: Connection, workspace: Workspace, pinned: PinnedCampaign, now: datetime) -> int:
    table = audience.audience
    with expanded(connection, workspace, pinned, now, now):
        query = select(table.c.contact_id).order_by(table.c.skip_reason.is_not(None), table.c.contact_id).limit(1)
        found = connection.execute(query).scalar_one_or_none()
    if found is None:
        found = connection.execute(select(contacts.c.id).order_by(contacts.c.id).limit(1)).scalar_one_or_none()
    if found is None:
        raise CarillonError("there are no contacts yet to render a preview for; import some with `carillon import`")
    return int(found)
