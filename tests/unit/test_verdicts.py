"""Telling people from machines, on traces as people and scanners leave them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from kernel.vocabulary import TouchKind, Verdict
from web.verdicts import Hit, Judgement, Limits, Rule, judge

SENT_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
)


@dataclass
class Stored:
    id: int
    message_id: int
    kind: TouchKind
    link_id: int | None
    at: datetime
    ip: str
    user_agent: str
    verdict: Verdict
    reasons: tuple[str, ...]


@dataclass
class Trace:
    """Judges hit after hit and keeps verdicts as the database would."""

    sent_at: datetime | None = SENT_AT
    stored: list[Stored] = field(default_factory=list)

    def hit(
        self,
        seconds: float,
        *,
        kind: str = "click",
        link: int | None = None,
        ip: str = "203.0.113.7",
        agent: str = FIREFOX,
        method: str = "GET",
        message: int = 1,
    ) -> Judgement:
        hit = Hit(
            message_id=message,
            kind=TouchKind(kind),
            link_id=link,
            at=SENT_AT + timedelta(seconds=seconds),
            method=method,
            ip=ip,
            user_agent=agent,
        )
        judgement = judge(
            hit,
            sent_at=self.sent_at,
            same_message=[one for one in self.stored if one.message_id == message],
            same_address=[one for one in self.stored if one.ip == ip],
        )
        for rule, ids in judgement.revised:
            for one in self.stored:
                if one.id in ids:
                    one.verdict, one.reasons = Verdict.MACHINE, (*one.reasons, rule)
        self.stored.append(
            Stored(len(self.stored), message, hit.kind, link, hit.at, ip, agent, judgement.verdict, judgement.reasons)
        )
        return judgement

    @property
    def verdicts(self) -> list[str]:
        return [one.verdict.value for one in self.stored]


def test_a_person_opens_and_clicks() -> None:
    trace = Trace()
    trace.hit(300, kind="open")
    trace.hit(310, link=1)
    trace.hit(340, link=2)
    assert trace.verdicts == ["human"] * 3


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_whoever_only_asks_for_headers_is_a_machine(method: str) -> None:
    assert Trace().hit(300, link=1, method=method).reasons == (Rule.HEAD_REQUEST,)


@pytest.mark.parametrize(
    "agent",
    [
        "python-requests/2.32.3",
        "curl/8.5.0",
        "Wget/1.21",
        "Go-http-client/2.0",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 (compatible; bingbot/2.0)",
        "Mozilla/5.0 (Windows NT 10.0) BarracudaCentral Link Protection",
        "Mozilla/5.0 HeadlessChrome/120.0",
        "facebookexternalhit/1.1",
        "WhatsApp/2.24.1 A",
        "Slackbot-LinkExpanding 1.0",
        "SkypeUriPreview Preview/0.5",
        "Mimecast URL Protection",
    ],
)
def test_programs_are_known_by_their_agents(agent: str) -> None:
    assert Trace().hit(300, link=1, agent=agent).reasons == (Rule.ROBOT_AGENT,)


@pytest.mark.parametrize(
    "agent",
    [
        EDGE,
        "Mozilla/5.0 (Linux; Android 9; CUBOT NOTE) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1) AppleWebKit/605.1.15 Mobile/15E148 [LinkedInApp]/9.30",
        "Mozilla/5.0 (Linux; Android 14) MicroMessenger/8.0.50 WeChat/arm64",
        "Microsoft Outlook 16.0.17928",
        "Mozilla/5.0 (Windows NT 10.0) Thunderbird/128.4.3",
    ],
)
def test_browsers_and_mail_programs_are_people(agent: str) -> None:
    assert Trace().hit(300, link=1, agent=agent).verdict is Verdict.HUMAN


def test_gmails_proxy_is_a_person_and_gmails_prefetcher_is_not() -> None:
    trace = Trace()
    assert trace.hit(300, kind="open", agent=GMAIL).reasons == (Rule.IMAGE_PROXY,)
    assert trace.hit(301, kind="open", agent=GMAIL_PREFETCH).reasons == (Rule.PREFETCH_AGENT,)
    assert trace.verdicts == ["human", "machine"]


def test_apples_mail_privacy_opens_everything_and_proves_nothing() -> None:
    assert Trace().hit(300, kind="open", agent="Mozilla/5.0").reasons == (Rule.APPLE_PRIVACY,)
    assert Trace().hit(300, link=1, agent="Mozilla/5.0").reasons == (Rule.BARE_AGENT,)
    assert Trace().hit(300, link=1, agent="").reasons == (Rule.NO_AGENT,)


@pytest.mark.parametrize(("seconds", "verdict"), [(-2, "machine"), (1.4, "machine"), (1.5, "human"), (3, "human")])
def test_nobody_reads_and_presses_in_a_second(seconds: float, verdict: str) -> None:
    assert Trace().hit(seconds, link=1).verdict == verdict


def test_without_a_known_acceptance_nothing_is_claimed() -> None:
    judgement = Trace(sent_at=None).hit(300, link=1)
    assert (judgement.verdict, judgement.reasons) == (Verdict.UNKNOWN, (Rule.ACCEPTANCE_UNKNOWN,))


def test_a_burst_over_all_links_is_seen_through_backwards() -> None:
    trace = Trace()
    trace.hit(20, kind="open", agent=EDGE)
    for number in range(5):
        trace.hit(20 + number, link=number, agent=EDGE)
    assert trace.verdicts == ["machine"] * 6
    assert trace.stored[0].reasons == (Rule.BURST,)


def test_two_links_and_one_link_thrice_are_a_persons() -> None:
    trace = Trace()
    for link in (1, 2, 1, 1, 1):
        trace.hit(300, link=link)
    assert trace.verdicts == ["human"] * 5


def test_slow_reading_of_many_links_is_a_persons() -> None:
    trace = Trace()
    for number in range(6):
        trace.hit(300 + 12 * number, link=number)
    assert trace.verdicts == ["human"] * 6


def test_after_a_burst_the_person_is_a_person_again_but_the_scanner_is_not() -> None:
    trace = Trace()
    for number in range(4):
        trace.hit(20, link=number, ip="198.51.100.9", agent=EDGE)
    assert trace.hit(900, link=1, ip="198.51.100.9", agent=EDGE).reasons == (Rule.KNOWN_SCANNER,)
    assert trace.hit(900, link=1, ip="198.51.100.9", agent=FIREFOX).verdict is Verdict.HUMAN
    assert trace.hit(901, link=2, ip="203.0.113.7", agent=EDGE).verdict is Verdict.HUMAN
    assert trace.hit(20 + 3601, link=3, ip="198.51.100.9", agent=EDGE).verdict is Verdict.HUMAN


def test_content_and_unsubscribe_at_once_is_a_machines() -> None:
    trace = Trace()
    trace.hit(300, link=1)
    assert trace.hit(301, kind="page").reasons == (Rule.LINKS_AND_UNSUBSCRIBE,)
    assert trace.verdicts == ["machine", "machine"]
    slow = Trace()
    slow.hit(300, link=1)
    slow.hit(305, kind="page")
    assert slow.verdicts == ["human", "human"]


def test_one_address_at_many_peoples_links_is_a_gateway() -> None:
    trace = Trace()
    for number in range(12):
        trace.hit(100 + number / 2, link=1, ip="198.51.100.9", agent=EDGE, message=number)
    assert trace.verdicts == ["machine"] * 12


def test_an_offices_shared_address_is_no_gateway() -> None:
    trace = Trace()
    for number in range(12):
        trace.hit(100 + 30 * number, link=1, message=number)
    for number in range(12):  # Opens come through shared proxies.
        trace.hit(1000, kind="open", agent=GMAIL, ip="66.249.0.1", message=100 + number)
    assert trace.verdicts == ["human"] * 24


def test_hits_without_a_known_address_are_never_lumped_together() -> None:
    trace = Trace()
    for number in range(12):
        trace.hit(100, link=number, ip="")
    assert trace.verdicts == ["human"] * 12


def test_the_numbers_are_arguments() -> None:
    hit = Hit(
        message_id=1, kind=TouchKind.CLICK, link_id=1, at=SENT_AT, method="GET", ip="203.0.113.7", user_agent=FIREFOX
    )
    strict = judge(hit, sent_at=SENT_AT, same_message=(), same_address=())
    lax = judge(hit, sent_at=SENT_AT, same_message=(), same_address=(), limits=replace(Limits(), soon=timedelta(0)))
    assert (strict.verdict, lax.verdict) == (Verdict.MACHINE, Verdict.HUMAN)
