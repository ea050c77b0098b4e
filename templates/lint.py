"""Advice about an e-mail that may be sent as it is, but will fare badly: warnings, never errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

from kernel.settings import Brand, Sender
from kernel.signing import Signer
from templates.files import EmailTemplate
from templates.links import PreviewLinks
from templates.mail import MailStep
from templates.problems import SHOWN_UNDER

GMAIL_CLIPS_AT = 102_000
"""Bytes of HTML beyond which Gmail hides the rest, footer and pixel with it."""
SHORT_TEXT = 1_200
"""Characters below which an HTML with an image counts as image-only (SpamAssassin: HTML_IMAGE_ONLY_12)."""
LONG_SUBJECT = 78
_UNQUOTED = re.compile(r"<[a-zA-Z][^<>]*\s[a-zA-Z-]+=(?![\"'\s])[^<>]*\{\{")
_NO_ALT = re.compile(r"<(?:img|mj-image)\b(?![^>]*\balt\s*=)[^>]*>", re.IGNORECASE)
_BARE_DOMAIN = re.compile(r"(?<![\w/@.-])www\.[\w-]+\.[\w.-]*\w")
_SOURCELESS = re.compile(r"<(script|form|iframe|object|embed|video|audio)\b", re.IGNORECASE)


def lint(template: EmailTemplate, context: Mapping[str, Any], *, brand: Brand, sender: Sender) -> list[str]:
    """Return what is worth mending in an e-mail, each as a sentence that begins with the file.

    Args:
        template: The files.
        context: A sample person's data, as `templates.context.load_contexts` gives it.
        brand: As of the workspace; the footer takes part.
        sender: As of the workspace.

    Raises:
        InputError: the template is wrong, not merely unwise.
        TemplateProblem: it does not fit the sample.
    """
    body = template.files[template.body]
    path = SHOWN_UNDER + template.body
    found = [f"{path}:{_line(body, at)}: {message}" for at, message in _source_advice(body)]
    step = MailStep(
        template=template,
        brand=brand,
        sender=sender,
        signer=Signer([b"preview" * 8]),
        base_url="https://preview.invalid",
        list_id="preview.invalid",
        campaign="preview",
        utm={},
        installation="preview",
    )
    mail = step.compose(
        message_id=0,
        address="sample@preview.invalid",
        context=context,
        date=datetime(2000, 1, 1, tzinfo=UTC),
        links=PreviewLinks(),
    )
    message = message_from_bytes(mail.data, policy=policy.default)
    parts = {part.get_content_type(): part.get_content() for part in message.iter_parts()}
    text, html = parts["text/plain"], parts["text/html"]
    size = len(html.encode())
    if size > GMAIL_CLIPS_AT:
        found.append(f"{path}: the HTML has {size:,} bytes; Gmail hides what lies beyond {GMAIL_CLIPS_AT:,}")
    if len(text) < SHORT_TEXT:
        found.append(f"{path}: only {len(text):,} characters of text; spam filters distrust short mails with images")
    if len(mail.subject) > LONG_SUBJECT:
        where = SHOWN_UNDER + template.subject
        found.append(f"{where}: the subject has {len(mail.subject)} characters; most programs show 40 to 60")
    return found


def _source_advice(body: str) -> list[tuple[int, str]]:
    rules = (
        (_NO_ALT, 'an image without alt text; write alt="" where it only decorates'),
        (_UNQUOTED, "a value in an attribute without quotes; a space in it would start another attribute"),
        (_BARE_DOMAIN, "an address without https:// is neither a link nor counted"),
        (_SOURCELESS, "mail programs remove this element"),
    )
    found = [(match.start(), message) for rule, message in rules for match in rule.finditer(body)]
    return sorted(found)


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
