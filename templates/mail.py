"""E-mails as bytes: prepared once for a step and a language, then filled in for each message.

The parts of the head that are the same for all messages, the compiled templates and the targets of fixed links are made
once; a message pays for its values, its signatures and the encoding of its two bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from markupsafe import escape

from kernel.errors import ConfigError, InputError, Problem
from kernel.ids import digest, message_id_header
from kernel.settings import Brand, Sender
from kernel.signing import Signer
from templates import markup
from templates.addresses import wire_address
from templates.bodies import encoded, wire_text
from templates.budget import MAX_OUTPUT, Rendering
from templates.context import EMAIL_SHAPE
from templates.files import EmailTemplate
from templates.footer import brand_values, footer_of
from templates.headers import mailbox_field, raw_field, text_field
from templates.links import Links, Tracking, TrackingStep
from templates.plaintext import text_from_html
from templates.prepared import Renderer, Workshop
from templates.problems import TemplateProblem, refused
from templates.sources import Piece

MAX_SUBJECT = 500
_LIST_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
_GAPS = re.compile(r"\n{3,}")
_DEFINITIONS = ("import", "from", "macro", "call")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedMail:
    """One e-mail, ready for the wire.

    `data` ends its lines with CRLF and is not dot-stuffed. `needs_smtputf8` marks a recipient whose local part is not
    ASCII: a server that does not offer SMTPUTF8 can never take it (RFC 6531 section 3.5).
    """

    envelope_from: str
    envelope_to: str
    message_id_header: str
    subject: str
    data: bytes
    needs_smtputf8: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEmail:
    """The compiled parts of an e-mail template, and the fixed links of its HTML by the variable of each."""

    subject: Renderer
    html: Renderer
    text: Renderer
    links: Mapping[str, str]
    derived: bool
    """Whether the text was derived from the HTML: then empty lines that statements leave are drawn together."""


def prepare_email(template: EmailTemplate) -> PreparedEmail:
    """Compile an e-mail template and check all that can be checked without a message.

    Raises:
        InputError: syntax, names no message has, links no message may carry, MJML or styles that do not parse.
    """
    workshop = Workshop(template.files, EMAIL_SHAPE)
    problems: list[Problem] = []
    with _gathering(problems):
        subject = _plain(workshop, template.subject)
    with _gathering(problems):
        pieces = workshop.pieces(template.body)
        document = markup.document(pieces, path=template.body, language=template.language)
        html = workshop.markup(template.body, markup.with_constructs(document))
        if template.text is None:
            text = _derived(workshop, template.body, pieces, document)
    if template.text is not None:
        with _gathering(problems):
            text = _plain(workshop, template.text)
    if problems:
        raise InputError(problems)
    links = {name: url for url, name in document.aside.links.items()}
    return PreparedEmail(subject=subject, html=html, text=text, links=links, derived=template.text is None)


@contextmanager
def _gathering(problems: list[Problem]) -> Iterator[None]:
    """Keep what is wrong with one file for later, so that the others are looked at too."""
    try:
        yield
    except InputError as error:
        problems.extend(error.problems)


def _plain(workshop: Workshop, path: str) -> Renderer:
    return workshop.text(path, markup.plain(workshop.pieces(path)))


def _derived(workshop: Workshop, body: str, pieces: list[Piece], document: markup.Document) -> Renderer:
    _check_derivable(pieces, body)
    text = markup.Document(text=text_from_html(document.text, document.aside), aside=document.aside)
    return workshop.text(body, markup.with_constructs(text), known_as=f"{body} (as text)")


def _check_derivable(pieces: list[Piece], body: str) -> None:
    macro = next((piece for piece in pieces if piece.keyword in _DEFINITIONS), None)
    if macro is not None:
        raise refused(macro.place, "no text can be derived from a body with macros", f"write a body.txt beside {body}")


class MailStep:
    """Composes the e-mails of one step of a campaign in one language."""

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

        Raises:
            InputError: something is wrong with the template.
            ConfigError: the sender, the base URL or the list's id cannot stand in a message.
        """
        self._email = prepare_email(template)
        self._tracking = TrackingStep(signer=signer, base_url=base_url, utm=utm)
        self._footer = footer_of(brand, template.language)
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
            self._head = _step_head(sender, campaign, list_id, transactional=transactional)
        except (ValueError, TemplateProblem) as error:
            raise ConfigError(f"sender {sender.email!r}: {error}") from error
        boundary = b"=_" + digest(installation, list_id, template.name)[:24].encode()
        self._head += b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary="' + boundary + b'"\r\n\r\n'
        self._part = b"--" + boundary + b"\r\nContent-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: "
        self._end = b"--" + boundary + b"--\r\n"
        self._text_part, self._html_part = self._part % b"plain", self._part % b"html"
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
        recipient = wire_address(address)
        tracking = Tracking(self._tracking, message_id, links)
        subject, text, html = self._rendered(tracking, context)
        header_id = message_id_header(message_id, self._installation, self._domain)
        text_coding, text_lines = encoded(wire_text(text, "text"))
        html_coding, html_lines = encoded(wire_text(html, "HTML"))
        data = (
            self._date_field(date),
            f"Message-ID: {header_id}\r\nTo: {recipient.text}\r\n".encode(),
            text_field("Subject", subject),
            self._unsubscribe_fields(tracking),
            self._head,
            *(self._text_part, text_coding, b"\r\n\r\n", text_lines),
            *(b"\r\n", self._html_part, html_coding, b"\r\n\r\n", html_lines),
            b"\r\n",
            self._end,
        )
        return ComposedMail(
            envelope_from=f"bounce+{self._signer.address_token(message_id)}@{self._bounce_domain}",
            envelope_to=recipient.text,
            message_id_header=header_id,
            subject=subject,
            data=b"".join(data),
            needs_smtputf8=recipient.needs_smtputf8,
        )

    def _rendered(self, tracking: Tracking, context: Mapping[str, Any]) -> tuple[str, str, str]:
        unsubscribe, preferences = tracking.own
        variables = {**context, **self._static, "unsubscribe_url": unsubscribe, "preferences_url": preferences}
        variables["footer"] = ""
        subject = Rendering(variables, tracking.anything, limit=MAX_SUBJECT * 10, one_line=True)
        variables["subject"] = subject_line = _one_line(self._email.subject.render(subject))
        variables |= {name: tracking.click(url) for name, url in self._email.links.items()}
        variables["footer"] = html_footer = self._footer.html(unsubscribe, preferences)
        html = self._email.html.render(Rendering(variables, tracking.anything))
        variables["footer"] = text_footer = self._footer.text(unsubscribe, preferences)
        text = tracking.in_text(self._email.text.render(Rendering(variables, tracking.anything))).strip("\n")
        if self._email.derived and "\n\n\n" in text:
            text = _GAPS.sub("\n\n", text)
        if max(len(html), len(text)) > MAX_OUTPUT:
            raise TemplateProblem(f"the body is larger than {MAX_OUTPUT:,} characters")
        if not text.strip():
            raise TemplateProblem("the text part is empty")
        wanted = () if self._transactional else (unsubscribe, preferences)
        if not all(link in text for link in wanted) or (wanted and self._postal[1] not in text):
            text = f"{text}\n\n{text_footer}"
        tail = f'<img src="{tracking.opened()}" width="1" height="1" alt="">'
        if not all(link in html for link in wanted) or (wanted and self._postal[0] not in html):
            tail = f"{html_footer}{tail}"
        return subject_line, text, _before_end(html, tail)

    def _date_field(self, date: datetime) -> bytes:
        known, field = self._dated
        if date is not known:
            field = f"Date: {format_datetime(date)}\r\n".encode()
            self._dated = (date, field)
        return field

    def _unsubscribe_fields(self, tracking: Tracking) -> bytes:
        if self._transactional:
            return b""
        link = raw_field("List-Unsubscribe", f"<{tracking.own[0]}>")
        return link + b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


def _step_head(sender: Sender, campaign: str, list_id: str, *, transactional: bool) -> bytes:
    """Return the fields every message of the step shares."""
    fields = [mailbox_field("From", sender.name, wire_address(sender.email).text)]
    if sender.reply_to:
        fields.append(mailbox_field("Reply-To", "", wire_address(sender.reply_to).text))
    if transactional:
        fields.append(raw_field("Auto-Submitted", "auto-generated"))
    else:
        name = list_id.strip("<>")
        if not _LIST_ID.fullmatch(name):
            raise ValueError(f"{list_id!r} cannot be a List-Id; it looks like a domain name")
        fields += [raw_field("List-Id", f"<{name}>"), raw_field("Precedence", "bulk")]
    if sender.feedback_id:
        kind = "transactional" if transactional else "marketing"
        fields.append(raw_field("Feedback-ID", f"{campaign}::{kind}:{sender.feedback_id}"))
    fields.append(raw_field("X-Auto-Response-Suppress", "OOF, AutoReply"))
    return b"".join(fields)


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
