"""E-mails as bytes: prepared once for a step and a language, then filled in for each message.

The parts of the head that are the same for all messages, the templates compiled to pieces of the body and the targets
of fixed links are made once; a message pays for its values, its signatures and putting the pieces together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from markupsafe import escape

from kernel.errors import ConfigError
from kernel.fields import duration
from kernel.ids import message_id_header
from kernel.regions import Region
from kernel.settings import Brand, Sender
from kernel.signing import Signer
from templates.addresses import is_plain, wire_address
from templates.bodies import encoded, wire_text
from templates.budget import MAX_OUTPUT, Rendering
from templates.dkim import DkimKey, DkimStep
from templates.files import EmailTemplate
from templates.footer import Footer, Laws, brand_values
from templates.headers import text_field
from templates.heading import step_fields
from templates.links import Links, Tracking, TrackingStep
from templates.preparation import prepare_email
from templates.prepared import FAILURES
from templates.problems import TemplateProblem
from templates.structure import structure
from templates.wire_bodies import WireBodies
from templates.wire_line import line_of
from templates.wire_values import GaveUp

MAX_SUBJECT = 500
_UNSUBSCRIBE_FIELDS = b"List-Unsubscribe: <%b>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
_FIELD = re.compile(rb".*\r\n(?:[ \t].*\r\n)*")
_GAPS = re.compile(r"\n{3,}")


@dataclass(slots=True, kw_only=True)
class ComposedMail:
    """One e-mail, ready for the wire. Nobody changes one; a frozen one would take three times as long to make.

    `data` ends its lines with CRLF. `dotless` promises that none of them begins with a full stop, so that there is
    nothing to stuff (RFC 5321 section 4.5.2); without it SMTP looks for itself, which is a fifth of its work.
    `needs_smtputf8` marks a recipient whose local part is not ASCII: a server that does not offer SMTPUTF8 can never
    take it (RFC 6531 section 3.5). `ref` is our signed reference of the message, as it stands in the return path;
    "" where there is none.
    """

    envelope_from: str
    envelope_to: str
    message_id_header: str
    subject: str
    data: bytes
    ref: str = ""
    needs_smtputf8: bool = False
    dotless: bool = False


class MailStep:
    """Composes the e-mails of one step of a campaign in one language.

    Threads may share it: what it remembers (the date's field, the ids of fixed links) is replaced whole.
    """

    def __init__(
        self,
        *,
        template: EmailTemplate,
        brand: Brand,
        sender: Sender,
        signer: Signer,
        base_url: str,
        list_id: str,
        campaign: str,
        utm: Mapping[str, str],
        installation: str,
        transactional: bool = False,
        regions: Iterable[Region] = (),
        dkim: Sequence[DkimKey] = (),
        fast: bool = True,
    ) -> None:
        """Prepare the step.

        Args:
            template: The pinned files.
            brand: Name and postal address of the footer.
            sender: From, Reply-To and bounce domain.
            signer: Signs every link.
            base_url: What links begin with; https, or http on this very machine.
            list_id: The List-Id without brackets, as "winback.acme.example".
            campaign: The campaign's name, for Feedback-ID and templates.
            utm: Values of UTM parameters by name without prefix.
            installation: This database's own name, which stands in every Message-ID.
            transactional: No unsubscribe links, no footer, no list headers.
            regions: What the law wants in messages to people of certain countries.
            dkim: Keys that sign every message.
            fast: False makes every body the plain way, which the fast one is compared with.

        Raises:
            InputError: something is wrong with the template.
            ConfigError: the sender, the base URL or the list's id cannot stand in a message.
        """
        self._tracking = TrackingStep(signer=signer, base_url=base_url, utm=utm)
        self._laws = Laws(brand, template.language, () if transactional else regions)
        postal_address = brand_values(brand)["postal_address"]
        self._postal = (str(escape(postal_address)), postal_address)
        self._transactional = transactional
        self._installation = installation
        self._signer = signer
        self._static = {
            "brand": brand_values(brand),
            "sender": {"name": sender.name, "email": sender.email},
            "campaign": campaign,
        }
        try:
            self._domain = wire_address(sender.email).domain
            self._bounce_domain = wire_address(f"x@{sender.bounce_domain or self._domain}").domain
            fixed = step_fields(sender, campaign, list_id, transactional=transactional)
        except (ValueError, TemplateProblem) as error:
            raise ConfigError(f"sender {sender.email!r}: {error}") from error
        self._email = prepare_email(template, self._domain)
        self._line = line_of(self._email.subject) if fast else None
        self._wire = WireBodies(
            self._email, self._tracking, self._laws, self._postal, self._static, bulk=not transactional, fast=fast
        )
        self._structure = structure(self._email.images, self._email.attachments, installation, list_id, template.name)
        fixed += [b"MIME-Version: 1.0\r\n", self._structure.content_type]
        expires_s = int(duration(sender.dkim_expires).total_seconds()) if sender.dkim_expires else None
        self._dkim = DkimStep(dkim, fixed, expires_s=expires_s) if dkim else None
        self._head = b"".join(fixed) + b"\r\n"
        self._dated: tuple[datetime | None, bytes] = (None, b"")

    def compose(
        self, *, message_id: int, address: str, context: Mapping[str, Any], date: datetime, links: Links
    ) -> ComposedMail:
        """Return one message.

        Args:
            message_id: The message's row.
            address: The recipient's e-mail address.
            context: What `templates.context.load_contexts` gives for the contact.
            date: For the Date header; aware.
            links: Gives each target its id.

        Raises:
            TemplateProblem: this message cannot be composed: an undefined name, a bad value, a bad address.
        """
        to, needs_smtputf8 = address, False
        if not is_plain(address):
            to, _, needs_smtputf8 = wire_address(address)
        tracking = Tracking(self._tracking, message_id, links)
        unsubscribe, preferences = tracking.own
        variables = {
            **context,
            **self._static,
            "unsubscribe_url": unsubscribe,
            "preferences_url": preferences,
            "footer": "",
        }
        law = self._laws.of(context)
        line = self._line.filled(variables) if self._line is not None else None
        subject = _one_line(line) if line is not None else self._subject(variables, tracking)
        variables["subject"] = subject = law.subject(subject) if law.subject_prefix else subject
        wire = self._wire
        try:
            html = wire.html(variables, tracking, law)
        except (GaveUp, *FAILURES):
            html = encoded(wire_text(self._html(variables, tracking, law.footer), "HTML"))
        try:
            text = wire.text(variables, tracking, law)
        except (GaveUp, *FAILURES):
            text = encoded(wire_text(self._text(variables, tracking, law.footer), "text"))
        header_id = message_id_header(message_id, self._installation, self._domain)
        known, dated = self._dated
        head: tuple[bytes, ...] = (
            dated if known is date else self._date_field(date),
            f"Message-ID: {header_id}\r\nTo: {to}\r\n".encode(),
            text_field("Subject", subject),
            # On one line and never encoded; a base URL and a token hold nothing that could not stand in a field.
            b"" if self._transactional else _UNSUBSCRIBE_FIELDS % unsubscribe.encode("ascii"),
        )
        body = self._structure.body(text, html)
        if self._dkim is not None:
            head = (self._dkim.signatures(_fields(head), b"".join(body), at=int(date.timestamp())), *head)
        ref = tracking.tokens_of_own.bounce
        return ComposedMail(
            envelope_from=f"bounce+{ref}@{self._bounce_domain}",
            envelope_to=to,
            message_id_header=header_id,
            subject=subject,
            data=b"".join((*head, self._head, *body)),
            ref=ref,
            needs_smtputf8=needs_smtputf8,
            dotless=True,
        )

    def _subject(self, variables: dict[str, Any], tracking: Tracking) -> str:
        rendering = Rendering.limited(variables, tracking.anything, MAX_SUBJECT * 10, one_line=True)
        return _one_line(self._email.subject.render(rendering))

    def _html(self, variables: dict[str, Any], tracking: Tracking, owed: Footer) -> str:
        variables |= {name: tracking.click(url) for name, url in self._email.links.items()}
        unsubscribe, preferences = tracking.own
        variables["footer"] = footer = owed.html(unsubscribe, preferences)
        html = self._email.html.render(Rendering(variables, tracking.anything))
        _check_size(html)
        tail = f'<img src="{tracking.opened()}" width="1" height="1" alt="">'
        wanted = () if self._transactional else (unsubscribe, preferences, self._postal[0], str(escape(owed.more)))
        return _before_end(html, tail if all(part in html for part in wanted) else f"{footer}{tail}")

    def _text(self, variables: dict[str, Any], tracking: Tracking, owed: Footer) -> str:
        variables |= {name: tracking.click(url) for name, url in self._email.links.items()}
        unsubscribe, preferences = tracking.own
        variables["footer"] = footer = owed.text(unsubscribe, preferences)
        text = tracking.in_text(self._email.text.render(Rendering(variables, tracking.anything))).strip("\n")
        if self._email.derived and "\n\n\n" in text:
            text = _GAPS.sub("\n\n", text)
        _check_size(text)
        if not text.strip():
            raise TemplateProblem("the text part is empty")
        wanted = () if self._transactional else (unsubscribe, preferences, self._postal[1], owed.more)
        return text if all(part in text for part in wanted) else f"{text}\n\n{footer}"

    def _date_field(self, date: datetime) -> bytes:
        field = f"Date: {format_datetime(date)}\r\n".encode()
        self._dated = (date, field)
        return field


def _fields(head: Iterable[bytes]) -> list[bytes]:
    """Return the fields one by one; a line that begins with a space goes on with the one before."""
    return [found[0] for found in _FIELD.finditer(b"".join(head))]


def _check_size(body: str) -> None:
    if len(body) > MAX_OUTPUT:
        raise TemplateProblem(f"the body is larger than {MAX_OUTPUT:,} characters")


def _one_line(subject: str) -> str:
    """Return the subject on one line; line breaks here are the template's own, those of values were refused."""
    line = " ".join(subject.split())
    if not line:
        raise TemplateProblem("the subject is empty")
    if len(line) > MAX_SUBJECT:
        raise TemplateProblem(f"the subject is longer than {MAX_SUBJECT} characters")
    if not line.isprintable():
        bad = next(letter for letter in line if not letter.isprintable())
        if ord(bad) < 32 or 0x7F <= ord(bad) <= 0x9F or 0xD800 <= ord(bad) <= 0xDFFF:
            raise TemplateProblem(f"the subject holds the control character U+{ord(bad):04X}")
    return line


def _before_end(html: str, tail: str) -> str:
    """Return the document with something put at the end of its body."""
    end = html.rfind("</body>")
    return f"{html[:end]}{tail}{html[end:]}" if end >= 0 else html + tail
