"""Steps as their recipients would see them: for previews, plans and workers."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from campaigns.versions import PinnedCampaign
from kernel.errors import ConfigError
from kernel.settings import Workspace
from kernel.signing import Signer
from kernel.vocabulary import Channel
from store.schema import installation
from store.tables import contacts
from templates.context import load_contexts
from templates.dkim import keys_of
from templates.files import email_template, sms_template
from templates.links import PreviewLinks
from templates.mail import MailStep
from templates.problems import TemplateProblem
from templates.sms import ComposedSms, SmsStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One message as its recipient would see it. `subject` and `html` are "" and `parts` 0 where a channel has none.

    Images that come with the message stand in its `html`; `attachments` are file names.
    """

    channel: Channel
    contact: str
    to: str
    subject: str = ""
    text: str = ""
    html: str = ""
    parts: int = 0
    attachments: tuple[str, ...] = ()


def prepare_step(
    workspace: Workspace, pinned: PinnedCampaign, position: int, language: str, signer: Signer, installation_name: str
) -> MailStep | SmsStep:
    """Return a step of a pinned campaign, compiled for one language; `position` counts from 1.

    Raises:
        ConfigError: the sender is no longer in carillon.yaml, or cannot stand in a message.
        InputError: something is wrong with the template.
    """
    step = pinned.spec.steps[position - 1]
    settings = workspace.settings
    base_url = settings.web.public_url.rstrip("/")
    utm = pinned.spec.utm_for(position, pinned.name)
    if step.channel is Channel.SMS:
        template = sms_template(pinned.files, step.template, language)
        return SmsStep(
            template=template,
            signer=signer,
            base_url=base_url,
            utm=utm,
            campaign=pinned.name,
            brand=settings.brand,
            terms=settings.sms_terms(step.gateway),
        )
    sender = settings.senders.get(step.sender or "")
    if sender is None:
        raise ConfigError(f"carillon.yaml no longer has the sender {step.sender!r} of campaign {pinned.name}")
    return MailStep(
        template=email_template(pinned.files, step.template, language),
        brand=settings.brand,
        sender=sender,
        signer=signer,
        base_url=base_url,
        list_id=f"{pinned.name}.{sender.email.rpartition('@')[2]}",
        campaign=pinned.name,
        utm=utm,
        installation=installation_name,
        regions=settings.regions.values(),
        dkim=keys_of(sender, workspace.root),
    )


class Renderer:
    """Renders messages of one campaign for people in the database; writes nothing, registers no links."""

    def __init__(self, connection: Connection, workspace: Workspace, pinned: PinnedCampaign, *, now: datetime) -> None:
        self._connection = connection
        self._workspace = workspace
        self._pinned = pinned
        self._now = now
        self._signer = workspace.signer()
        self._steps: dict[tuple[int, str], MailStep | SmsStep] = {}

    def render(self, position: int, contact_id: int) -> Rendered:
        """Return a step as a contact would see it.

        Raises:
            InputError: something is wrong with the template.
            TemplateProblem: it cannot be rendered for this contact.
        """
        settings = self._workspace.settings
        context = load_contexts(
            self._connection,
            [contact_id],
            now=self._now,
            currency=settings.currency,
            zone=ZoneInfo(settings.timezone),
        )[contact_id]
        step = self._step(position, context["contact"].get("language") or settings.language)
        name = self._connection.execute(select(contacts.c.external_id).where(contacts.c.id == contact_id)).scalar_one()
        if isinstance(step, SmsStep):
            # A preview shows the text also for who has no number yet.
            to = context["contact"]["phone"] or ""
            sms = step.compose(message_id=0, address=to or "+10000000000", context=context, links=PreviewLinks())
            return Rendered(channel=Channel.SMS, contact=name, to=to, text=sms.text, parts=sms.parts)
        to = context["contact"]["email"] or ""
        address = to or "nobody@example.invalid"
        mail = step.compose(message_id=0, address=address, context=context, date=self._now, links=PreviewLinks())
        return Rendered(channel=Channel.EMAIL, contact=name, to=to, subject=mail.subject, **_bodies(mail.data))

    def texts(self, position: int, contact_ids: Sequence[int]) -> Iterator[ComposedSms]:
        """Yield an SMS step as these contacts would see it; whom it cannot be rendered for is left out.

        Raises:
            InputError: something is wrong with the template.
        """
        settings = self._workspace.settings
        contexts = load_contexts(
            self._connection,
            sorted(contact_ids),
            now=self._now,
            currency=settings.currency,
            zone=ZoneInfo(settings.timezone),
        )
        links = PreviewLinks()
        for context in contexts.values():
            step = self._step(position, context["contact"].get("language") or settings.language)
            if isinstance(step, SmsStep):
                with suppress(TemplateProblem):
                    yield step.compose(
                        message_id=0, address=context["contact"]["phone"] or "", context=context, links=links
                    )

    def _step(self, position: int, language: str) -> MailStep | SmsStep:
        key = (position, language)
        if key not in self._steps:
            name = installation(self._connection)
            self._steps[key] = prepare_step(self._workspace, self._pinned, position, language, self._signer, name)
        return self._steps[key]


def _bodies(data: bytes) -> dict[str, Any]:
    """Return text, HTML with the images in it that come with it, and the names of attachments."""
    message = message_from_bytes(data, policy=policy.default)
    bodies: dict[str, Any] = {"text": "", "html": ""}
    images: dict[str, str] = {}
    attached: list[str] = []
    for part in message.walk():
        if not isinstance(part, EmailMessage) or part.is_multipart():
            continue
        if part.get_content_disposition() == "attachment":
            attached.append(str(part.get_filename()))
        elif part["Content-ID"]:
            content = base64.b64encode(part.get_content()).decode("ascii")
            images[f"cid:{part['Content-ID'].strip('<>')}"] = f"data:{part.get_content_type()};base64,{content}"
        else:
            kind = "html" if part.get_content_subtype() == "html" else "text"
            bodies[kind] = part.get_content().replace("\r\n", "\n")
    for source, shown in images.items():
        bodies["html"] = bodies["html"].replace(source, shown)
    return {**bodies, "attachments": tuple(attached)}
