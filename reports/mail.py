"""The report as one e-mail: HTML with its charts inside, the same figures as text, and CSV attachments."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP
from email.utils import format_datetime

from sqlalchemy import Connection

from kernel.ids import digest
from kernel.settings import Workspace
from reports.attachments import attachments
from reports.charts import png
from reports.content import Report, gather
from reports.rendering import html_page, subject_line, text_page
from templates.addresses import wire_address
from templates.dkim import DkimStep, keys_of
from templates.headers import mailbox_field, raw_field, text_field

_BODY = SMTP.clone(max_line_length=76)
"""76 and not the default 78: quoted-printable lines come out as long as the policy says, and RFC 2045 allows 76."""


def compose_report(
    connection: Connection,
    workspace: Workspace,
    campaign_name: str,
    *,
    now: datetime,
    recipients: Sequence[str],
    message_id_header: str,
    label: str = "",
) -> bytes:
    """Return a campaign's report as wire bytes: CRLF line ends, no line over 76 octets in bodies, not dot-stuffed.

    The same rows, instant and Message-ID give the same bytes.

    Args:
        connection: A reading transaction, so that all figures are of one moment.
        workspace: Its first sender is whom the report is from.
        campaign_name: An applied campaign.
        now: Stands in Date and as the report's time.
        recipients: Addresses for the To field, at least one.
        message_id_header: With its angle brackets.
        label: Shown on top and in the subject, as "simulated" where the data are.

    Raises:
        UnknownCampaign: the campaign was never applied.
        TemplateProblem: an address is none.
    """
    return compose(
        gather(connection, workspace, campaign_name, now=now, label=label), workspace, recipients, message_id_header
    )


def compose(report: Report, workspace: Workspace, recipients: Sequence[str], message_id_header: str) -> bytes:
    """Return a gathered report as wire bytes, signed with its sender's keys; see `compose_report`."""
    sender = next(iter(workspace.settings.senders.values()))
    domain = wire_address(sender.email).domain
    left = digest(message_id_header)[:16]
    pictures = {
        name: (f"{name}.{left}@{domain}", png(chart, color=report.color)) for name, chart in report.charts().items()
    }
    body = _body(report, pictures)
    _fix_boundaries(body, left)
    head, _, lines = body.as_bytes(policy=_BODY).partition(b"\r\n\r\n")
    fields = [
        mailbox_field("From", sender.name, wire_address(sender.email).text),
        raw_field("To", ", ".join(wire_address(address).text for address in recipients)),
        text_field("Subject", subject_line(report)),
        raw_field("Date", format_datetime(report.now)),
        raw_field("Message-ID", message_id_header),
        raw_field("Auto-Submitted", "auto-generated"),
        *(field + b"\r\n" for field in re.split(rb"\r\n(?![ \t])", head)),
    ]
    keys = keys_of(sender, workspace.root)
    if keys:
        fields.insert(0, DkimStep(keys, []).signatures(fields, lines, at=int(report.now.timestamp())))
    return b"".join((*fields, b"\r\n", lines))


def _body(report: Report, pictures: Mapping[str, tuple[str, bytes]]) -> EmailMessage:
    """Return mixed(alternative(text, related(HTML, charts)), CSV files)."""
    body = EmailMessage(policy=_BODY)
    body.set_content(_crlf(text_page(report)), cte="quoted-printable")
    sources = {name: f"cid:{content_id}" for name, (content_id, _) in pictures.items()}
    body.add_alternative(_crlf(html_page(report, sources)), subtype="html", cte="quoted-printable")
    html_part = list(body.iter_parts())[1]
    for name, (content_id, data) in pictures.items():
        html_part.add_related(data, "image", "png", cid=f"<{content_id}>", disposition="inline", filename=f"{name}.png")
    for file_name, content in attachments(report).items():
        body.add_attachment(content, "text", "csv", filename=file_name, params={"charset": "utf-8"})
    return body


def _crlf(text: str) -> str:
    # Lone surrogates, as from a broken import, must not keep a report from leaving.
    return text.encode("utf-8", "replace").decode("utf-8")


def _fix_boundaries(body: MIMEPart, left: str) -> None:
    """Give each multipart a boundary that follows from the Message-ID and cannot stand in any encoded body."""
    number = 0
    for part in body.walk():
        if part.is_multipart():
            # "=_" never occurs in quoted-printable or base64 (RFC 2045 section 6.7, note).
            part.set_boundary(f"=_{binascii.hexlify(bytes([number])).decode()}{left}")
            number += 1
