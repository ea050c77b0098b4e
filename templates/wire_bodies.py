"""HTML and text of one message put together from pieces; see `templates.wire`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from templates.bodies import RAW, Coding
from templates.budget import Rendering
from templates.footer import Footer, Law, Laws
from templates.links import Links, Tracking, TrackingStep
from templates.preparation import PreparedEmail
from templates.quoting import MOST, SOFT
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
        self._ids: tuple[Links | None, tuple[int, ...]] = (None, ())
        self._html: _Html | None = None
        self._text: _Text | None = None
        if not fast or not _PLAIN_BASE.fullmatch(tracking.base_url):
            return
        footers = [law.footer for law in laws.all]
        shared: dict[str, Any] = {"constants": constants, "urls": self._urls, "base_url": tracking.base_url}
        html = compiled(email.html, bare=None, **shared)
        if html is not None:
            self._html = _Html(html, footers, postal[0], bulk=bulk)
        # A link in a footer's own words would be tracked wherever a text shows it.
        if any("://" in footer.address + footer.more for footer in footers):
            return
        text = compiled(email.text, bare=tracking.bare, **shared)
        if text is not None:
            self._text = _Text(text, footers, postal[1], bulk=bulk, derived=email.derived)

    def html(self, variables: dict[str, Any], tracking: Tracking, law: Law) -> tuple[bytes, bytes]:
        """Return encoding and lines of the HTML.

        Raises:
            GaveUp: the other way is to make it.
            Exception: whatever a template can raise; then too.
        """
        return self._made(self._html, variables, tracking, law)

    def text(self, variables: dict[str, Any], tracking: Tracking, law: Law) -> tuple[bytes, bytes]:
        """Return encoding and lines of the text. Raises as `html`."""
        return self._made(self._text, variables, tracking, law)

    def _made(self, body: _Body | None, variables: dict[str, Any], tracking: Tracking, law: Law) -> tuple[bytes, bytes]:
        if body is None:
            raise GaveUp
        coding = body.part.coding
        for name, index in body.variables.items():
            variables[name] = tracking.click(self._urls[index])
        rendering = Rendering(variables, tracking.anything, bare=tracking.in_text)
        lines = body.lines(rendering, tracking, law, self._links(coding, tracking))
        finished = coding.finished(lines, rendering.wide)
        if finished is None:
            raise GaveUp
        return coding.name, finished

    def _links(self, coding: Coding, tracking: Tracking) -> list[bytes]:
        """Return the piece of each fixed link; both bodies of a message share them where they share the encoding."""
        known = tracking.pieces.get(coding.name)
        if known is None:
            tokens = tracking.tokens.clicks(self._link_ids(tracking.links))
            prefix = self._tracking.base_url.encode() + b"/c/"
            if coding is RAW:
                known = [prefix + token for token in tokens]
            elif len(prefix) + max(map(len, tokens), default=0) <= MOST:
                known = [prefix + token + SOFT for token in tokens]
            else:
                known = [coding.fixed(prefix + token) for token in tokens]
            tracking.pieces[coding.name] = known
        return known

    def _link_ids(self, links: Links) -> tuple[int, ...]:
        known, ids = self._ids
        if known is not links:
            ids = tuple(links.link_id(self._tracking.target(url)) for url in self._urls)
            self._ids = (links, ids)
        return ids


class _Body:
    """One of the two, with what stands around the own links in its footers."""

    def __init__(self, part: WirePart, arounds: Sequence[Sequence[str]], postal: str, *, bulk: bool) -> None:
        self.part = part
        self._bulk = bulk
        self._around = [[part.coding.fixed(text.encode()) for text in around] for around in arounds]
        self._postal = part.coding.value(postal)
        self.variables = part.fixed_links()

    def lines(self, rendering: Rendering, tracking: Tracking, law: Law, links: Sequence[bytes]) -> bytes:
        raise NotImplementedError

    def _filled(
        self, rendering: Rendering, tracking: Tracking, law: Law, links: Sequence[bytes]
    ) -> tuple[bytes, bytes]:
        """Return the joined pieces, and the footer where it is still to be added."""
        coding = self.part.coding
        links_of_own = tracking.own_pieces.get(coding.name)
        if links_of_own is None:
            links_of_own = coding.value(tracking.own[0]), coding.value(tracking.own[1])
            tracking.own_pieces[coding.name] = links_of_own
        unsubscribe, preferences = links_of_own
        before, between, after = self._around[law.index]
        footer = before + unsubscribe + between + preferences + after
        own = (unsubscribe, preferences, footer, self._postal)
        made = self.part.filled(rendering, links, own)
        if not self._bulk:
            return made, b""
        return made, b"" if self.part.shows_all(made, own, footer_only=bool(law.footer.more)) else footer


class _Html(_Body):
    def __init__(self, part: WirePart, footers: Sequence[Footer], postal: str, *, bulk: bool) -> None:
        super().__init__(part, [footer.around_html for footer in footers], postal, bulk=bulk)
        self._pixel = tuple(part.coding.fixed(text.encode()) for text in _PIXEL)

    def lines(self, rendering: Rendering, tracking: Tracking, law: Law, links: Sequence[bytes]) -> bytes:
        made, footer = self._filled(rendering, tracking, law, links)
        before, after = self._pixel
        return b"".join((made, footer, before, self.part.coding.value(tracking.opened()), after, self.part.end))


class _Text(_Body):
    def __init__(self, part: WirePart, footers: Sequence[Footer], postal: str, *, bulk: bool, derived: bool) -> None:
        super().__init__(part, [footer.around_text for footer in footers], postal, bulk=bulk)
        self._derived = derived

    def lines(self, rendering: Rendering, tracking: Tracking, law: Law, links: Sequence[bytes]) -> bytes:
        made, footer = self._filled(rendering, tracking, law, links)
        coding = self.part.coding
        made = coding.stripped(made)
        if self._derived and b"\r\n\r\n\r\n" in made:
            made = coding.gaps.sub(b"\r\n\r\n", made)
        if not coding.has_text(made):
            raise GaveUp
        return made + b"\r\n\r\n" + footer if footer else made
