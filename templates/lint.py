"""Advice about an e-mail that may be sent as it is, but will fare badly: warnings, never errors."""

from __future__ import annotations

import copy
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

from kernel.settings import Brand, Sender
from kernel.signing import Purpose, Signer
from templates.files import EmailTemplate
from templates.mail import ComposedMail, MailStep
from templates.problems import SHOWN_UNDER, Place, TemplateProblem
from templates.sources import Piece, resolved, shipped_files

GMAIL_CLIPS_AT = 102_000
"""Bytes of HTML beyond which Gmail hides the rest, footer and pixel with it."""
HEAVY = 1_000_000
"""Octets of a whole message from which on sending it to many costs more than a link would."""
SHORT_TEXT = 1_200
"""Characters below which an HTML with an image counts as image-only (SpamAssassin: HTML_IMAGE_ONLY_12)."""
LONG_SUBJECT = 78
_LIKE = 0.5
"""Share of the HTML's words that a text of its own should have (SpamAssassin: MPART_ALT_DIFF)."""
_UNQUOTED = re.compile(r"<[a-zA-Z][^<>]*\s[a-zA-Z-]+=(?![\"'\s])[^<>]*\{\{")
_NO_ALT = re.compile(r"<(?:img|mj-image)\b(?![^>]*\balt\s*=)[^>]*>", re.IGNORECASE)
_BARE_DOMAIN = re.compile(r"(?<![\w/@.-])www\.[\w-]+\.[\w.-]*\w(?![\w-]|\.\w|\s*</a>)", re.IGNORECASE)
_SOURCELESS = re.compile(r"<(script|form|iframe|object|embed|video|audio)\b", re.IGNORECASE)
_UNDEFINED = re.compile(r"'([A-Za-z_][\w.]*)' is undefined")
_MOST_NAMES = 30
_WORD = re.compile(r"\w{4,}")
_DOMAIN = re.compile(r"(?:https?://)?((?:[\w-]+\.)+[a-z]{2,})(?:[/?#]\S*)?", re.IGNORECASE)
_SOURCES = (
    (_NO_ALT, 'an image without alt text; write alt="" where it only decorates'),
    (_UNQUOTED, "a value in an attribute without quotes; a space in it would start another attribute"),
    (_BARE_DOMAIN, "an address without https:// is neither a link nor counted"),
    (_SOURCELESS, "mail programs remove this element"),
)


@dataclass(frozen=True, slots=True, order=True)
class Advice:
    """One thing worth mending; `line` is 0 where it is about a whole file."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{SHOWN_UNDER}{place}: {self.message}"


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
    signer, links = Signer([b"preview" * 8]), NotedLinks()
    step = MailStep(
        template=template,
        brand=brand,
        sender=sender,
        signer=signer,
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
        links=links,
    )
    found = [
        *source_advice(template),
        *message_advice(template, mail, links.targets("https://preview.invalid", signer)),
    ]
    return [str(advice) for advice in found]


def undefined_beside(
    compose: Callable[[dict[str, Any]], object], context: Mapping[str, Any], problem: TemplateProblem
) -> Iterator[str]:
    """Yield the further undefined names of a message that failed for one: each is made up, and the message tried again.

    Args:
        compose: Makes the message of a person's data, or raises TemplateProblem.
        context: The person's.
        problem: What it failed for first; where that is no undefined name nothing is yielded.
    """
    filled = copy.deepcopy(dict(context))
    seen = {str(problem)}
    while (name := _UNDEFINED.search(str(problem))) is not None and len(seen) < _MOST_NAMES:
        further = _failing_without(compose, filled, name[1].split("."))
        if further is None or str(further) in seen or not _UNDEFINED.search(str(further)):
            return
        yield str(further)
        seen.add(str(further))
        problem = further


def _failing_without(
    compose: Callable[[dict[str, Any]], object], filled: dict[str, Any], way: Sequence[str]
) -> TemplateProblem | None:
    """Return what a message fails for when a name is there, as a word or, where no word will do, as a number."""
    owner: Any = filled
    for step in way[:-1]:
        inner = owner.get(step) if isinstance(owner, dict) else owner[int(step)] if isinstance(owner, list) else None
        owner = inner
    if not isinstance(owner, dict):
        return None
    failed: TemplateProblem | None = None
    for made_up in ("word", 1):
        owner[way[-1]] = made_up
        try:
            compose(filled)
        except TemplateProblem as error:
            failed = error
            if _UNDEFINED.search(str(error)):
                break
        else:
            return None
    return failed


class NotedLinks:
    """Numbers the targets of a message's links, and keeps them."""

    def __init__(self) -> None:
        self._urls: dict[str, int] = {}

    def link_id(self, url: str) -> int:
        """Return the number of the target."""
        return self._urls.setdefault(url, len(self._urls) + 1)

    def targets(self, base_url: str, signer: Signer) -> Targets:
        """Return what tells where the links of messages lead that were made with these numbers."""
        return Targets(base_url, signer, {number: url for url, number in self._urls.items()})


@dataclass(frozen=True, slots=True)
class Targets:
    """Tells where links lead."""

    base_url: str
    signer: Signer
    urls: Mapping[int, str]

    def of(self, url: str) -> str | None:
        """Return the target of a tracked link, "" for the other own links, None for a link that is not tracked."""
        rest = url.removeprefix(self.base_url)
        if rest == url or rest[:1] != "/" or rest[1:2] not in tuple("cupo"):
            return None
        signed = self.signer.verify(Purpose.CLICK, rest[3:]) if rest.startswith("/c/") else None
        return self.urls.get(signed.number, "") if signed else ""


# --- what stands in the files ------------------------------------------------------------------------------


def source_advice(template: EmailTemplate) -> list[Advice]:
    """Return what can be seen in the HTML as it was written, and in what it includes and extends."""
    pieces = [piece for piece in resolved(template.files, template.body) if piece.place.path not in shipped_files()]
    starts: list[tuple[int, Place]] = []
    length = 0
    for piece in pieces:
        starts.append((length, piece.place))
        length += len(piece.text)
    text = "".join(piece.text for piece in pieces)
    found = {(match.start(), message) for rule, message in _SOURCES for match in rule.finditer(text)}
    advice = [_advice(text, starts, at, message) for at, message in sorted(found)]
    return [*advice, *_unused(template, pieces)]


def _advice(text: str, starts: Sequence[tuple[int, Place]], at: int, message: str) -> Advice:
    start, place = next(item for item in reversed(starts) if item[0] <= at)
    return Advice(place.path, place.line + text.count("\n", start, at), message)


def _unused(template: EmailTemplate, pieces: Sequence[Piece]) -> Iterator[Advice]:
    whole = "".join(piece.text for piece in pieces) + "".join(
        text for path, text in template.files.items() if path.endswith(".html")
    )
    for name in template.images:
        if f"images/{name}" not in whole:
            yield Advice(template.body, 0, f"the image images/{name} is not shown, and so not sent")


# --- what a message became ---------------------------------------------------------------------------------


def message_advice(template: EmailTemplate, mail: ComposedMail, targets: Targets) -> list[Advice]:
    """Return what can be seen in a message as it would leave.

    Args:
        template: Its files.
        mail: The message.
        targets: Of its links.
    """
    text, html = bodies(mail)
    return sorted(
        {
            *_sizes(template, mail, text, html),
            *(Advice(template.body, 0, message) for message in _links(html, targets)),
            *_likeness(template, text, html),
        }
    )


def bodies(mail: ComposedMail) -> tuple[str, str]:
    """Return text and HTML of a message."""
    message = message_from_bytes(mail.data, policy=policy.default)
    found = {"plain": "", "html": ""}
    for part in message.walk():
        attached = part.get_content_disposition() == "attachment"
        if isinstance(part, EmailMessage) and part.get_content_maintype() == "text" and not attached:
            found[part.get_content_subtype()] = part.get_content()
    return found["plain"], found["html"]


def _sizes(template: EmailTemplate, mail: ComposedMail, text: str, html: str) -> Iterator[Advice]:
    size = len(html.encode())
    if size > GMAIL_CLIPS_AT:
        message = f"the HTML has {size:,} bytes; Gmail hides what lies beyond {GMAIL_CLIPS_AT:,}"
        yield Advice(template.body, 0, message)
    if len(text) < SHORT_TEXT:
        short = f"only {len(text):,} characters of text"
        message = f"{short}; filters distrust fewer than {SHORT_TEXT:,} with an image, and the open pixel is one"
        yield Advice(template.body, 0, message)
    if len(mail.data) > HEAVY:
        message = f"each message has {len(mail.data):,} octets; link to what can be linked to"
        yield Advice(template.body, 0, message)
    if len(mail.subject) > LONG_SUBJECT:
        message = f"the subject has {len(mail.subject)} characters; most programs show 40 to 60"
        yield Advice(template.subject, 0, message)


def _links(html: str, targets: Targets) -> Iterator[str]:
    parser = _Anchors()
    parser.feed(html)
    parser.close()
    for href, label in parser.anchors:
        target = targets.of(href)
        if target is None and href.startswith(("http:", "https:")):
            yield f"the link {href} is not tracked"
        yield from _about_target(target if target is not None else href, label.strip())


def _about_target(url: str, label: str) -> Iterator[str]:
    if not url.startswith(("http:", "https:")):
        return
    parts = urlsplit(url)
    host = parts.hostname or ""
    url = f"{parts.scheme}://{parts.netloc}{parts.path}"
    if parts.scheme == "http" and host not in ("localhost", "127.0.0.1"):
        yield f"the link {url} is not encrypted; write https://"
    if "@" in parts.netloc:
        yield f"the link {url} has an @ before its host, as phishing has"
    if _is_number(host):
        yield f"the link {url} leads to a bare IP address, as phishing does"
    shown = _DOMAIN.fullmatch(label)
    if shown and not _same_site(shown[1].lower(), host):
        yield f"the link that reads {label} leads to {host}, as phishing does"


def _is_number(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _same_site(shown: str, host: str) -> bool:
    shown, host = shown.removeprefix("www."), host.removeprefix("www.")
    return shown == host or host.endswith(f".{shown}") or shown.endswith(f".{host}")


class _Anchors(HTMLParser):
    """Collects where links lead and what they read."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.anchors: list[tuple[str, str]] = []
        self._open: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self._open = (href, [])
        elif tag == "area" and href:
            self.anchors.append((href, ""))

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open[1].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._open is not None:
            self.anchors.append((self._open[0], "".join(self._open[1])))
            self._open = None


def _likeness(template: EmailTemplate, text: str, html: str) -> Iterator[Advice]:
    """Compare a text of its own with the HTML: filters count it against a mail whose parts say different things."""
    if template.text is None:
        return
    parser = _Words()
    parser.feed(html)
    parser.close()
    wanted = set(_WORD.findall(" ".join(parser.words).lower()))
    missing = wanted - set(_WORD.findall(text.lower()))
    if len(wanted) >= 20 and len(missing) > len(wanted) * (1 - _LIKE):
        message = (
            f"{len(missing)} of {len(wanted)} words of the HTML are not in the text; filters expect one message twice"
        )
        yield Advice(template.text, 0, message)


class _Words(HTMLParser):
    """Collects what is read of a document."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("head", "style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("head", "style", "script")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)
