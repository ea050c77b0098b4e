"""Links in messages: which are allowed, what UTM parameters they get, and the signed links people see instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import idna

from kernel.errors import ConfigError
from kernel.signing import LinkNumbers, Signer

_BASE_URL = re.compile(r"https://[^\s<>\"']+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^\s<>\"']*)?")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_UNTRACKED_SCHEMES = ("mailto", "tel", "sms")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff<>\"\\]")
_URL_SAFE = "!#$%&'()*+,/:;=?@[]~-._"


class Links(Protocol):
    """Gives each target its lasting id."""

    def link_id(self, url: str) -> int:
        """Return the id of the target, registering it where it is new."""
        ...


class PreviewLinks:
    """For previews: registers nothing; every link has the id 0, which leads nowhere."""

    def link_id(self, url: str) -> int:
        """Return 0."""
        return 0


class BadLink(ValueError):
    """A link no message may carry; says why."""


def is_web_link(url: str) -> bool:
    """Return whether the link is http or https and so tracked; mailto, tel, sms and #anchors are not.

    Raises:
        BadLink: any other scheme, no scheme, no host, or characters no URL has.
    """
    if url.startswith("#"):
        return False
    found = _SCHEME.match(url)
    if not found:
        raise BadLink(f"the link {url!r} has no https:// in front" if url else "the link is empty")
    scheme = found[1].lower()
    if scheme in _UNTRACKED_SCHEMES:
        if _FORBIDDEN.search(url):
            raise BadLink(f"the link {url!r} holds a character no link may hold")
        return False
    if scheme not in ("http", "https"):
        raise BadLink(f"a link may not begin with {scheme}:")
    return True


def target_of(url: str, utm: Mapping[str, str]) -> str:
    """Return the http(s) link as a click leads to it: ASCII only, with the UTM parameters it does not have yet.

    The query and the #fragment stay as they are; an utm_* parameter already there is kept.

    Args:
        url: The link as written; international names and letters are encoded.
        utm: Values by name without prefix, as {"source": "carillon"}.

    Raises:
        BadLink: no host, or characters no URL has.
    """
    if _FORBIDDEN.search(url):
        raise BadLink(f"the link {url!r} holds a space or another character no link may hold")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadLink(f"the link {url!r} is not a URL: {error}") from error
    if not host:
        raise BadLink(f"the link {url!r} has no host")
    netloc = parts.netloc
    if not netloc.isascii():
        netloc = _ascii_host(host) + (f":{port}" if port else "")
    query = quote(parts.query, safe=_URL_SAFE)
    known = {name for name, _ in parse_qsl(query, keep_blank_values=True)} if utm else set()
    added = urlencode([(f"utm_{name}", value) for name, value in utm.items() if value and f"utm_{name}" not in known])
    query = "&".join(part for part in (query, added) if part)
    path, fragment = quote(parts.path, safe=_URL_SAFE), quote(parts.fragment, safe=_URL_SAFE)
    return urlunsplit((parts.scheme.lower(), netloc, path, query, fragment))


def _ascii_host(host: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise BadLink(f"{host!r} is not a domain: {error}") from error


class Prefixes(NamedTuple):
    """What stands before the tokens of the four doors."""

    opened: bytes
    unsubscribe: bytes
    preferences: bytes
    click: bytes


PIXEL_SUFFIX = b".gif"


class Tracking:
    """The signed links of one message."""

    __slots__ = ("_clicks", "_step", "fixed", "links", "own", "tokens", "tokens_of_own")

    def __init__(self, step: TrackingStep, message_id: int, links: Links) -> None:
        self.links = links
        self.tokens = tokens = step.signer.of(message_id)
        self.tokens_of_own = own = tokens.own()
        self._step = step
        self._clicks: dict[str, str] = {}
        self.fixed: list[bytes] | None = None
        """Tokens of the step's fixed links, once they are made: both bodies share them."""
        self.own = ((step.prefixes.unsubscribe + own[1]).decode(), (step.prefixes.preferences + own[2]).decode())
        """The unsubscribe and the preferences link."""

    def click(self, url: str) -> str:
        """Return the signed link that leads to the http(s) link. Raises BadLink like `target_of`."""
        known = self._clicks.get(url)
        if known is None:
            (token,) = self.tokens.clicks(LinkNumbers([self.links.link_id(self._step.target(url))]))
            known = self._clicks[url] = (self._step.prefixes.click + token).decode()
        return known

    def anything(self, url: str) -> str:
        """Return what stands in the message for any link: tracked where it is a web link, else itself.

        Raises:
            BadLink: the link is of a kind no message may carry.
        """
        stripped = url.strip()
        if self._step.is_own(stripped) or not is_web_link(stripped):
            return stripped
        return self.click(stripped)

    def opened(self) -> str:
        """Return the URL of the open pixel."""
        return (self._step.prefixes.opened + self.tokens_of_own.opened + PIXEL_SUFFIX).decode()

    def in_text(self, text: str) -> str:
        """Return the text with every bare http(s) link replaced by its signed link."""
        return self._step.bare.sub(self._bare, text)

    def _bare(self, found: re.Match[str]) -> str:
        whole = found[0]
        url = without_punctuation(whole)
        try:
            return self.click(url) + whole[len(url) :]
        except BadLink:
            return whole


class TrackingStep:
    """What the links of all messages of a step share; remembers the targets of links that recur."""

    def __init__(self, *, signer: Signer, base_url: str, utm: Mapping[str, str]) -> None:
        """Take what signed links begin with: https, or http on this very machine.

        Raises:
            ConfigError: another base URL, or one longer than 200 characters.
        """
        plain = base_url.isascii() and base_url.isprintable() and len(base_url) <= 200
        if not plain or not _BASE_URL.fullmatch(base_url):
            hint = "write https://… (http:// only for this machine)"
            raise ConfigError(f"web.public_url {base_url!r} cannot stand in messages; {hint}")
        self.signer = signer
        self.base_url = base_url.rstrip("/")
        self._utm = dict(utm)
        self._own = tuple(f"{self.base_url}/{door}/" for door in "cupo")
        self.prefixes = Prefixes(*(f"{self.base_url}/{door}/".encode() for door in "oupc"))
        self._targets: dict[str, str] = {}
        own = f"(?!{re.escape(self.base_url.partition('://')[2])}/[cupo]/)"
        self.bare = re.compile(rf"https?://{own}[^\s<>\"'`]+")
        """Finds http(s) links that stand in a text, Carillon's own left out."""

    def target(self, url: str) -> str:
        """Return what a click on the link leads to; see `target_of`."""
        known = self._targets.get(url)
        if known is None:
            known = target_of(url, self._utm)
            if len(self._targets) < 10_000:
                self._targets[url] = known
        return known

    def is_own(self, url: str) -> bool:
        """Return whether the link is one of Carillon's own, which are never wrapped again."""
        return url.startswith(self._own)


def without_punctuation(url: str) -> str:
    """Return the URL without what follows it in a sentence: full stops, a closing bracket it did not open."""
    while url and (url[-1] in ".,;:!?…»”’*" or (url[-1] in ")]}" and url.count(url[-1]) > url.count(_OPEN[url[-1]]))):
        url = url[:-1]
    return url


_OPEN = {")": "(", "]": "[", "}": "{"}
