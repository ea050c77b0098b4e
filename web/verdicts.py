"""Telling people from machines among opens and clicks. Pure: facts in, a verdict with named reasons out.

Every hit is stored as it came; the verdict beside it may be revised when later hits show what it was part of.
A rule either speaks or is silent. One that says `machine` settles it; else one that says `unknown`; a hit no rule
speaks against is a person's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from kernel.vocabulary import TouchKind, Verdict
from store import feedback
from store.feedback import TOO_SOON_WITHIN


class Rule(StrEnum):
    """Names as they stand in `touches.reasons`; docs/tracking.md explains each."""

    HEAD_REQUEST = "head_request"
    NO_AGENT = "no_agent"
    ROBOT_AGENT = "robot_agent"
    PREFETCH_AGENT = "prefetch_agent"
    APPLE_PRIVACY = "apple_privacy"
    BARE_AGENT = "bare_agent"
    IMAGE_PROXY = "image_proxy"
    TOO_SOON = feedback.TOO_SOON
    ACCEPTANCE_UNKNOWN = feedback.ACCEPTANCE_UNKNOWN
    BURST = "burst"
    LINKS_AND_UNSUBSCRIBE = "links_and_unsubscribe"
    KNOWN_SCANNER = "known_scanner"
    MANY_RECIPIENTS = "many_recipients"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The numbers in the rules."""

    soon: timedelta = TOO_SOON_WITHIN
    """A click sooner than this after acceptance by the relay is a machine's."""

    burst_links: int = 3
    burst_within: timedelta = timedelta(seconds=10)
    """Scanners follow all links of a message at once (practitioners: "all links within 10 s"); two links may be a
    person's wrong press and its correction."""

    unsubscribe_within: timedelta = timedelta(seconds=3)
    """A person may read and then leave, but not within this."""

    scanner_memory: timedelta = timedelta(hours=1)
    """How long the address and agent of a burst are remembered for that message."""

    recipients: int = 10
    recipients_within: timedelta = timedelta(seconds=10)
    """So many people of one office do not press a link with the same browser in the same seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One request about one message. `link_id` is None for opens and pages; `ip` is "" where it is not known."""

    message_id: int
    kind: TouchKind
    link_id: int | None
    at: datetime
    method: str
    ip: str
    user_agent: str


class EarlierHit(Protocol):
    """A stored hit, of the same message or from the same network address."""

    @property
    def id(self) -> int: ...
    @property
    def message_id(self) -> int: ...
    @property
    def kind(self) -> TouchKind: ...
    @property
    def link_id(self) -> int | None: ...
    @property
    def at(self) -> datetime: ...
    @property
    def ip(self) -> str: ...
    @property
    def user_agent(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def reasons(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict, the rules that spoke, and the earlier hits now seen to be a machine's, by rule."""

    verdict: Verdict
    reasons: tuple[Rule, ...]
    revised: tuple[tuple[Rule, tuple[int, ...]], ...] = ()


_ROBOTS = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|scan|preview|monitor|link-?check|url-?check|headless|phantomjs|puppeteer|playwright"
    r"|selenium|proofpoint|mimecast|barracuda|safelinks|symantec|messagelabs|forcepoint|trend ?micro|fireeye|trellix"
    r"|sophos|ironport|cisco|fortinet|fortigate|checkpoint|zscaler|netcraft|virustotal|cloudmark|vadesecure"
    r"|facebookexternalhit|^whatsapp/|skypeuri|embedly|iframely"
    r"|python|curl/|wget|libwww|httpclient|http-client|okhttp|go-http|java/|ruby|perl/|php/|node-fetch|axios|aiohttp|scrapy"
    r"|powershell|postman|apachebench|google-read-aloud|mediapartners|feedfetcher",
    re.IGNORECASE,
)
"""Words of agents that are programs. Browsers inside apps (LinkedIn, Slack) are people; CUBOT is a telephone."""

_PREFETCHERS = (
    # Gmail's prefetcher, as Keila and others have it: a browser of 2015 with a second "Mozilla/5.0" at the end.
    re.compile(r"Chrome/42\.0\.2311\.135 Safari/537\.36 Edge/12\.246 Mozilla/5\.0$"),
    # Yahoo's and Outlook's own preloading.
    re.compile(r"YahooCacheSystem|Microsoft Office Existence Discovery", re.IGNORECASE),
)
_IMAGE_PROXIES = re.compile(r"GoogleImageProxy|YahooMailProxy", re.IGNORECASE)
"""They load a picture because a person opened the mail: a person's open, seen through the proxy."""

_APPLE_BARE = "Mozilla/5.0"
"""What Apple's Mail Privacy Protection sends; it loads every picture, opened or not."""


def judge(
    hit: Hit,
    *,
    sent_at: datetime | None,
    same_message: Sequence[EarlierHit],
    same_address: Sequence[EarlierHit],
    limits: Limits = Limits(),
) -> Judgement:
    """Return who made a hit, and which earlier hits it shows in a new light.

    Args:
        hit: The hit to judge.
        sent_at: When the gateway took the message over; None where that is not known (yet).
        same_message: Earlier hits of the message, within `limits.scanner_memory`.
        same_address: Earlier hits from the same network address, within `limits.recipients_within`.
        limits: The numbers in the rules.
    """
    machine = [*_by_agent(hit), *_by_time(hit, sent_at, limits)]
    revised = []
    for rule, earlier in (
        *_bursts(hit, same_message, limits),
        *_recipients(hit, same_address, limits),
    ):
        machine.append(rule)
        ids = tuple(other.id for other in earlier if other.verdict is not Verdict.MACHINE)
        if ids:
            revised.append((rule, ids))
    if not machine and _is_known_scanner(hit, same_message, limits):
        machine.append(Rule.KNOWN_SCANNER)
    if machine:
        return Judgement(verdict=Verdict.MACHINE, reasons=tuple(machine), revised=tuple(revised))
    if sent_at is None:
        return Judgement(verdict=Verdict.UNKNOWN, reasons=(Rule.ACCEPTANCE_UNKNOWN,))
    proxied = hit.kind is TouchKind.OPEN and _IMAGE_PROXIES.search(hit.user_agent)
    return Judgement(verdict=Verdict.HUMAN, reasons=(Rule.IMAGE_PROXY,) if proxied else ())


def _by_agent(hit: Hit) -> Iterator[Rule]:
    agent = hit.user_agent.strip()
    if hit.method not in ("GET", "POST"):
        yield Rule.HEAD_REQUEST
    if not agent:
        yield Rule.NO_AGENT
    elif agent == _APPLE_BARE:
        yield Rule.APPLE_PRIVACY if hit.kind is TouchKind.OPEN else Rule.BARE_AGENT
    elif any(pattern.search(agent) for pattern in _PREFETCHERS):
        yield Rule.PREFETCH_AGENT
    elif _ROBOTS.search(agent) and not (hit.kind is TouchKind.OPEN and _IMAGE_PROXIES.search(agent)):
        yield Rule.ROBOT_AGENT


def _by_time(hit: Hit, sent_at: datetime | None, limits: Limits) -> Iterator[Rule]:
    if sent_at is not None and hit.at < sent_at + limits.soon:
        yield Rule.TOO_SOON


def _bursts(
    hit: Hit, same_message: Sequence[EarlierHit], limits: Limits
) -> Iterator[tuple[Rule, tuple[EarlierHit, ...]]]:
    if not hit.ip:
        return
    near = tuple(other for other in same_message if other.ip == hit.ip and other.at >= hit.at - limits.burst_within)
    places = [(hit.kind, hit.link_id), *((other.kind, other.link_id) for other in near)]
    pressed = {place for place in places if place[0] is not TouchKind.OPEN}
    if len(pressed) >= limits.burst_links:
        yield Rule.BURST, near
        return
    nearer = tuple(other for other in near if other.at >= hit.at - limits.unsubscribe_within)
    kinds = {hit.kind, *(other.kind for other in nearer)}
    if TouchKind.PAGE in kinds and TouchKind.CLICK in kinds:
        yield Rule.LINKS_AND_UNSUBSCRIBE, nearer


def _is_known_scanner(hit: Hit, same_message: Sequence[EarlierHit], limits: Limits) -> bool:
    """Tell whether the address and agent are those of a burst: another address or agent is a person again."""
    telling = {Rule.BURST, Rule.LINKS_AND_UNSUBSCRIBE}
    return any(
        other.ip == hit.ip
        and other.user_agent == hit.user_agent
        and telling.intersection(other.reasons)
        and other.at >= hit.at - limits.scanner_memory
        for other in same_message
    )


def _recipients(
    hit: Hit, same_address: Sequence[EarlierHit], limits: Limits
) -> Iterator[tuple[Rule, tuple[EarlierHit, ...]]]:
    """Look for one address that presses links of many people's messages; opens come through shared proxies."""
    if not hit.ip or hit.kind is TouchKind.OPEN:
        return
    near = tuple(
        other
        for other in same_address
        if other.kind is not TouchKind.OPEN
        and other.user_agent == hit.user_agent
        and other.at >= hit.at - limits.recipients_within
    )
    if len({hit.message_id, *(other.message_id for other in near)}) >= limits.recipients:
        yield Rule.MANY_RECIPIENTS, near
