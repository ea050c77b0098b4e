"""HTML and text of one message put together from pieces; see `templates.wire`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kernel.signing import LinkNumbers
from templates.budget import Rendering
from templates.footer import Footer, Law, Laws
from templates.links import PIXEL_SUFFIX, Links, Prefixes, Tracking, TrackingStep
from templates.preparation import PreparedEmail
from templates.wire import WirePart, compiled
from templates.wire_values import GaveUp

_PLAIN_BASE = re.compile(r"[A-Za-z0-9:/._-]+")
"""A base URL with nothing in it that HTML or quoted-printable would write otherwise."""
_PIXEL = ('<img src="', '" width="1" height="1" alt="">')


class WireBodies:
    """Both bodies of a step compiled for the wire, as far as they can be."""

    def __init__(
        self,
        email: PreparedEmail,
        tracking: TrackingStep,
        laws: Laws,
        postal: tuple[str, str],
        constants: Mapping[str, Any],
        *,
        bulk: bool,
        fast: bool,
    ) -> None:
        """Compile the bodies.

        Args:
            email: The checked template.
            tracking: Of the step.
            laws: Their footers.
            postal: The postal address as it stands in HTML, and in text.
            constants: Variables that are the same in all messages.
            bulk: Whether every message must show the footer or what it says.
            fast: False compiles nothing, so that every body is made the other way.
        """
        self._tracking = tracking
        self._urls = list(email.links.values())
        self._numbers: tuple[Links | None, LinkNumbers] = (None, LinkNumbers(()))
        self._html: _Html | None = None
        self._text: _Text | None = None
        if not fast or not _PLAIN_BASE.fullmatch(tracking.base_url):
            return
        footers = [law.footer for law in laws.all]
        shared: dict[str, Any] = {"constants": constants, "urls": self._urls, "tracking": tracking}
        html = compiled(email.html, html=True, **shared)
        if html is not None:
            self._html = _Html(html, footers, tracking.prefixes, postal[0], bulk=bulk)
        # A link in a footer's own words would be tracked wherever a text shows it.
        if any("://" in footer.address + footer.more for footer in footers):
            return
        text = compiled(email.text, html=False, **shared)
        if text is not None:
            self._text = _Text(text, footers, tracking.prefixes, postal[1], bulk=bulk, derived=email.derived)

    def html(self, variables: dict[str, Any], tracking: Tracking, law: Law) -> tuple[bytes, bytes]:
        """Return encoding and lines of the HTML.

        Raises:
            GaveUp: the other way is to make it.
            Exception: whatever a template can raise; then too.
        """
        if self._html is None:
            raise GaveUp
        return self._html.made(variables, tracking, law, tracking.fixed or self._fixed(tracking))

    def text(self, variables: dict[str, Any], tracking: Tracking, law: Law) -> tuple[bytes, bytes]:
        """Return encoding and lines of the text. Raises as `html`."""
        if self._text is None:
            raise GaveUp
        return self._text.made(variables, tracking, law, tracking.fixed or self._fixed(tracking))

    def _fixed(self, tracking: Tracking) -> list[bytes]:
        tracking.fixed = made = tracking.tokens.clicks(self._link_numbers(tracking.links))
        return made

    def _link_numbers(self, links: Links) -> LinkNumbers:
        known, numbers = self._numbers
        if known is not links:
            numbers = LinkNumbers([links.link_id(self._tracking.target(url)) for url in self._urls])
            self._numbers = (links, numbers)
        return numbers


class _Around(NamedTuple):
    """What stands before, between and after the tokens of the two own links in a footer."""

    before: bytes
    between: bytes
    after: bytes


class _Body:
    """One of the two, with what stands around the own links in its footers."""

    def __init__(
        self, part: WirePart, arounds: Sequence[Sequence[str]], prefixes: Prefixes, postal: str, *, bulk: bool
    ) -> None:
        self.part = part
        self.coding = coding = part.coding
        self._filled = part.filled
        self._bears = part.bears
        self._asks = bulk and not (part.always_shows_footer or part.never_shows_own)
        """Whether each message is looked through for what the law wants."""
        self._owes = bulk and not part.always_shows_footer
        """Whether a message that is not looked through gets the footer."""
        left, after_left = coding.around(prefixes.unsubscribe, b"")
        right, after_right = coding.around(prefixes.preferences, b"")
        pieces = [[coding.fixed(text.encode()) for text in around] for around in arounds]
        self._around = [_Around(one + left, after_left + two + right, after_right + end) for one, two, end in pieces]
        self._postal = coding.value(postal)
        self.variables = tuple(part.fixed_links().items())

    def made(
        self, variables: dict[str, Any], tracking: Tracking, law: Law, links: Sequence[bytes]
    ) -> tuple[bytes, bytes]:
        """Return encoding and lines."""
        if self.variables:
            variables |= {name: tracking.click(self.part.urls[index]) for name, index in self.variables}
        opened, unsubscribe, preferences, _ = tracking.tokens_of_own
        before, between, after = self._around[law.index]
        footer = b"".join((before, unsubscribe, between, preferences, after))
        own = (unsubscribe, preferences, footer, self._postal)
        rendering = Rendering(variables, tracking.anything)
        rendering.bare = tracking.in_text
        body = self._filled(rendering, links, own)
        if self._asks:
            if self.part.shows_all(body, own, footer_only=bool(law.footer.more)):
                footer = b""
        elif not self._owes:
            footer = b""
        coding = self.coding
        finished = coding.finished(self._ended(body, footer, opened), rendering.wide > self._bears)
        if finished is None:
            raise GaveUp
        return coding.name, finished

    def _ended(self, body: bytes, footer: bytes, opened: bytes) -> bytes:
        """Return the joined pieces with what stands at the end."""
        raise NotImplementedError


class _Html(_Body):
    def __init__(
        self, part: WirePart, footers: Sequence[Footer], prefixes: Prefixes, postal: str, *, bulk: bool
    ) -> None:
        super().__init__(part, [footer.around_html for footer in footers], prefixes, postal, bulk=bulk)
        before, after = (part.coding.fixed(text.encode()) for text in _PIXEL)
        left, right = part.coding.around(prefixes.opened, PIXEL_SUFFIX)
        self._pixel = before + left, right + after + part.end

    def _ended(self, body: bytes, footer: bytes, opened: bytes) -> bytes:
        before, after = self._pixel
        return b"".join((body, footer, before, opened, after))


class _Text(_Body):
    def __init__(
        self,
        part: WirePart,
        footers: Sequence[Footer],
        prefixes: Prefixes,
        postal: str,
        *,
        bulk: bool,
        derived: bool,
    ) -> None:
        super().__init__(part, [footer.around_text for footer in footers], prefixes, postal, bulk=bulk)
        self._derived = derived

    def _ended(self, body: bytes, footer: bytes, opened: bytes) -> bytes:
        coding = self.coding
        body = coding.stripped(body)
        if self._derived and b"\r\n\r\n\r\n" in body:
            body = coding.gaps.sub(b"\r\n\r\n", body)
        if not coding.has_text(body):
            raise GaveUp
        return body + b"\r\n\r\n" + footer if footer else body
