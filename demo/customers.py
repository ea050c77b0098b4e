"""Simulated customers: they do what the behaviour model says, through the real doors.

Opens, clicks and one-click unsubscribes are HTTP requests to the links found in the kept messages; bounces are
reports sent by SMTP; receipts and STOP come from the SMS gateway; orders go through the API with its token. Each
person has a network address and a browser of its own, told to the web server by X-Forwarded-For, as a proxy would.
"""

from __future__ import annotations

import heapq
import itertools
import re
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import partial
from html import unescape

import requests

from demo.behaviour import Behaviour, MailReaction, Person
from demo.delivery_reports import delivery_report
from demo.mailbox import Mailbox, Received
from demo.sms_gateway import Sms, SmsGateway, send_receipt, send_reply

WORKERS = 6
_TICK_S = 0.05
_PIXEL = re.compile(r'src="([^"]+/o/[^"]+)"')
_LINK = re.compile(r'href="([^"]+/c/[^"]+)"')
_TEXT_LINK = re.compile(r"https?://\S+/c/\S+")
_LIST_UNSUBSCRIBE = re.compile(r"<(https?://[^>]+)>")

BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_6) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)
PRIVACY_PROXY = "Mozilla/5.0"
SCANNERS = ("Mozilla/5.0 (compatible; Proofpoint URL Defense)", BROWSERS[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where customers' doings arrive; `stop_url` takes incoming SMS."""

    base_url: str
    api_token: str
    bounce_port: int
    stop_url: str


class Customers:
    """Watches the mailbox and the SMS gateway and reacts. Use as a context manager; everything runs in threads."""

    def __init__(
        self,
        *,
        behaviour: Behaviour,
        people: Mapping[str, Person],
        mailbox: Mailbox,
        gateway: SmsGateway,
        doors: Doors,
    ) -> None:
        """Take whom to play and where to act.

        Args:
            behaviour: Decides what happens.
            people: By e-mail address and by telephone number; messages to others are left alone.
            mailbox: Whose messages are read.
            gateway: Whose messages are read, and which gives out receipts.
            doors: Where they act.
        """
        self._behaviour = behaviour
        self._people = people
        self._mailbox = mailbox
        self._gateway = gateway
        self._doors = doors
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._plans: list[tuple[float, int, str, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._open = 0
        self._asked: set[str] = set()
        self._asleep: list[tuple[float, str, Callable[[], None]]] | None = []
        self._seen_mail = 0
        self._seen_sms = 0
        self._stopping = threading.Event()
        self._sessions = threading.local()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="customer")
        self._watcher = threading.Thread(target=self._watch, name="customers", daemon=True)

    def __enter__(self) -> Customers:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._watcher.join(30)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def idle(self) -> bool:
        """Tell whether every message was looked at and nothing is left to do."""
        with self._lock:
            seen = self._seen_mail == len(self._mailbox.messages()) and self._seen_sms == len(self._gateway.messages())
            return seen and not self._plans and not self._open and not self._asleep

    def wake(self) -> None:
        """Let people begin to read. Until then only machines act, at once, on what has arrived."""
        with self._lock:
            waiting, self._asleep = self._asleep or [], None
        for after_s, name, action in waiting:
            self._plan(name, after_s, action)

    def order_anyway(self, accounts: Collection[str]) -> None:
        """Let accounts order that would have done so without any message; each account is asked once."""
        for person in self._people.values():
            if person.account_code not in accounts or person.account_code in self._asked:
                continue
            self._asked.add(person.account_code)
            value = self._behaviour.orders_anyway(person)
            if value is not None:
                self._plan("order", 0.0, partial(self._order, person, value, "X"))

    def _watch(self) -> None:
        while not self._stopping.wait(_TICK_S):
            for received in self._mailbox.messages(self._seen_mail):
                self._meet_mail(received)
                self._seen_mail += 1
            for sms in self._gateway.messages(self._seen_sms):
                self._meet_sms(sms)
                self._seen_sms += 1
            self._start_due()

    def _start_due(self) -> None:
        with self._lock:
            now = time.monotonic()
            while self._plans and self._plans[0][0] <= now:
                _, _, name, action = heapq.heappop(self._plans)
                self._open += 1
                self._pool.submit(self._act, name, action)

    def _plan(self, name: str, after_s: float, action: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._plans, (time.monotonic() + after_s, next(self._numbers), name, action))

    def _plan_person(self, name: str, after_s: float, action: Callable[[], None]) -> None:
        with self._lock:
            if self._asleep is not None:
                self._asleep.append((after_s, name, action))
                return
        self._plan(name, after_s, action)

    def _act(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
            with self._lock:
                self.done[name] += 1
        except (requests.RequestException, OSError, smtplib.SMTPException, _Refused) as error:
            with self._lock:
                self.failed[f"{name}: {error}"[:160]] += 1
        finally:
            with self._lock:
                self._open -= 1

    # --- e-mail ------------------------------------------------------------------------------------------------

    def _meet_mail(self, received: Received) -> None:
        person = self._people.get(received.rcpt_to)
        if person is None:
            return
        reaction = self._behaviour.to_mail(person, received.subject)
        if reaction.bounce:
            status = reaction.bounce
            self._plan("bounce", 1.0, lambda: self._bounce(received, status))
            return
        links = links_in(self._mailbox.read(received))
        self._plan_machines(person, reaction, links)
        browser = self._browser_of(person)
        if reaction.opens_after_s is not None and links.pixel:
            self._plan_person("open", reaction.opens_after_s, lambda: self._get(links.pixel, person, browser))
        if reaction.clicks_after_s is not None and links.targets:
            self._plan_person("click", reaction.clicks_after_s, lambda: self._get(links.targets[0], person, browser))
        if reaction.unsubscribes_after_s is not None and links.unsubscribe:
            self._plan(
                "unsubscribe", reaction.unsubscribes_after_s, lambda: self._unsubscribe(links.unsubscribe, person)
            )
        if reaction.orders_after_s is not None:
            value = reaction.order_value
            self._plan_person(
                "order", reaction.orders_after_s, lambda: self._order(person, value, f"M{received.number}")
            )

    def _plan_machines(self, person: Person, reaction: MailReaction, links: Links) -> None:
        if reaction.scanned_after_s is not None:
            self._plan("scanner", reaction.scanned_after_s, lambda: self._scan(links.targets, person))
        if reaction.proxy_opens_after_s is not None and links.pixel:
            self._plan(
                "proxy open", reaction.proxy_opens_after_s, lambda: self._get(links.pixel, person, PRIVACY_PROXY)
            )

    def _scan(self, targets: Sequence[str], person: Person) -> None:
        agent = SCANNERS[len(person.address) % len(SCANNERS)]
        method = "HEAD" if len(person.address) % 3 == 0 else "GET"
        for target in targets:
            self._request(method, target, f"scanner of {person.address}", agent)

    def _bounce(self, received: Received, status: str) -> None:
        report = delivery_report(
            self._mailbox.raw(received),
            to=received.mail_from,
            recipient=received.rcpt_to,
            status=status,
            at=datetime.now(UTC),
        )
        with smtplib.SMTP("127.0.0.1", self._doors.bounce_port, timeout=20) as door:
            door.sendmail("", [received.mail_from], report)

    def _unsubscribe(self, url: str, person: Person) -> None:
        """Press the mail program's own button (RFC 8058)."""
        self._request("POST", url, person.address, self._browser_of(person), data={"List-Unsubscribe": "One-Click"})

    # --- SMS ---------------------------------------------------------------------------------------------------

    def _meet_sms(self, sms: Sms) -> None:
        person = self._people.get(sms.to)
        if person is None:
            return
        reaction = self._behaviour.to_sms(person, sms.text)
        self._plan("receipt", 0.5, lambda: _expect_ok(send_receipt(self._session(), sms, reaction.receipt)))
        if reaction.stops_after_s is not None:
            stop = self._doors.stop_url
            self._plan(
                "stop", reaction.stops_after_s, lambda: _expect_ok(send_reply(self._session(), sms, "STOP", stop))
            )
        link = _TEXT_LINK.search(sms.text)
        if reaction.clicks_after_s is not None and link:
            self._plan_person("click", reaction.clicks_after_s, lambda: self._get(link[0], person, BROWSERS[-1]))
        if reaction.orders_after_s is not None:
            value = reaction.order_value
            self._plan_person("order", reaction.orders_after_s, lambda: self._order(person, value, sms.id.upper()))

    # --- the doors ---------------------------------------------------------------------------------------------

    def _order(self, person: Person, value: float, because: str) -> None:
        order = {
            "order": f"WEB-{person.contact_code}-{because}",
            "account": person.account_code,
            "contact": person.contact_code,
            "ordered_at": datetime.now(UTC).isoformat(),
            "amount": f"{value:.2f}",
        }
        answer = self._session().post(
            f"{self._doors.base_url}/v1/orders",
            json=order,
            headers={"Authorization": f"Bearer {self._doors.api_token}"},
            timeout=20,
        )
        _expect_ok(answer.status_code, answer.text)

    def _get(self, url: str, person: Person, agent: str) -> None:
        self._request("GET", url, person.address, agent)

    def _request(self, method: str, url: str, who: str, agent: str, data: dict[str, str] | None = None) -> None:
        headers = {"User-Agent": agent, "X-Forwarded-For": self._behaviour.network_address(who)}
        answer = self._session().request(method, url, headers=headers, data=data, allow_redirects=False, timeout=20)
        _expect_ok(answer.status_code, f"{method} {url.split('/')[3]}")

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False
            self._sessions.session = session
        return session

    def _browser_of(self, person: Person) -> str:
        return BROWSERS[sum(person.address.encode()) % len(BROWSERS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What can be pressed or fetched in an e-mail; "" where there is none."""

    pixel: str
    targets: tuple[str, ...]
    unsubscribe: str


def links_in(message: EmailMessage) -> Links:
    """Return the tracked links of a message in their order, its pixel, and its List-Unsubscribe address."""
    body = message.get_body(preferencelist=("html",))
    html = body.get_content() if body is not None else ""
    pixel = _PIXEL.search(html)
    unsubscribe = _LIST_UNSUBSCRIBE.search(str(message.get("List-Unsubscribe", "")))
    return Links(
        pixel=unescape(pixel[1]) if pixel else "",
        targets=tuple(dict.fromkeys(unescape(found) for found in _LINK.findall(html))),
        unsubscribe=unsubscribe[1] if unsubscribe else "",
    )


class _Refused(Exception):
    """A door answered with an error."""


def _expect_ok(status: int, about: str = "") -> None:
    if status >= 400:
        raise _Refused(f"{status} {about}"[:160])
