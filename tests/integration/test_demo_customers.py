"""Simulated customers at work: real mail and SMS in, real HTTP and SMTP out."""

from __future__ import annotations

import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from demo.behaviour import Behaviour, MailReaction, Person, SmsReaction
from demo.customers import Customers, Doors
from demo.mailbox import Mailbox, running_mailbox
from demo.sms_gateway import SmsGateway, running_sms_gateway


@dataclass
class Site:
    """A web server that remembers what it was asked."""

    port: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def site() -> Iterator[Site]:
    known = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            known.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            known.asked.append((self.command, self.path, self.headers.get("X-Forwarded-For", "")))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_HEAD = _answer  # noqa: N815 - the standard library's names

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    known.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield known
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Stage:
    mailbox: Mailbox
    gateway: SmsGateway
    bounces: Mailbox
    site: Site

    def customers(self, people: list[Person], pace_s: float = 0.0) -> Customers:
        doors = Doors(
            base_url=self.site.url,
            api_token="secret-token",
            bounce_port=self.bounces.port,
            stop_url=f"{self.site.url}/stop",
        )
        return Customers(
            behaviour=Behaviour(7, pace_s=pace_s),
            people={person.address: person for person in people},
            mailbox=self.mailbox,
            gateway=self.gateway,
            doors=doors,
        )

    def send(self, person: Person) -> None:
        message = EmailMessage(policy=policy.SMTP)
        message["From"] = "hello@northgate.example"
        message["To"] = person.address
        message["Subject"] = "Hello"
        message["Message-ID"] = f"<m1.{person.contact_code}@northgate.example>"
        message["List-Unsubscribe"] = f"<{self.site.url}/u/{person.contact_code}>"
        message.set_content("text")
        links = "".join(f'<a href="{self.site.url}/c/{person.contact_code}-{n}">x</a>' for n in range(3))
        pixel = f'<img src="{self.site.url}/o/{person.contact_code}.gif" alt="">'
        message.add_alternative(links + pixel, subtype="html")
        with smtplib.SMTP("127.0.0.1", self.mailbox.port) as client:
            client.sendmail(f"bounce+{person.contact_code}@b.example", [person.address], message.as_bytes())

    def text(self, person: Person) -> None:
        fields = {"to": person.address, "from": "Northgate", "text": f"Hi {self.site.url}/c/sms", "client_ref": "r1"}
        requests.post(self.gateway.url, json={**fields, "callback": f"{self.site.url}/receipt"}, timeout=10)


@pytest.fixture
def stage(tmp_path: Path, site: Site) -> Iterator[Stage]:
    with (
        running_mailbox(tmp_path / "mail") as mailbox,
        running_sms_gateway(tmp_path / "sms") as gateway,
        running_mailbox(tmp_path / "bounces") as bounces,
    ):
        yield Stage(mailbox=mailbox, gateway=gateway, bounces=bounces, site=site)


def wait_until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)


def person(number: int, address: str = "") -> Person:
    return Person(
        address=address or f"p{number}@oak.example",
        account_code=f"A{number}",
        contact_code=f"C{number}",
        group="champions",
        usual_order=300.0,
    )


def mail_person(wanted: Callable[[MailReaction], bool]) -> Person:
    """Return somebody who, by the model, reacts as wanted."""
    model = Behaviour(7, pace_s=0.0)
    return next(one for one in map(person, range(100_000)) if wanted(model.to_mail(one, "Hello")))


def sms_person(wanted: Callable[[SmsReaction], bool], text: str) -> Person:
    model = Behaviour(7, pace_s=0.0)
    crowd = (person(number, f"+1201555{number:04d}") for number in range(100, 9_999))
    return next(one for one in crowd if wanted(model.to_sms(one, text)))


def test_people_wait_until_they_wake_then_open_click_and_order(stage: Stage) -> None:
    buyer = mail_person(
        lambda r: r.orders_after_s is not None and r.scanned_after_s is None and r.proxy_opens_after_s is None
    )
    with stage.customers([buyer]) as customers:
        stage.send(buyer)
        wait_until(lambda: bool(customers._asleep))
        assert not customers.idle()
        assert stage.site.asked == []
        customers.wake()
        wait_until(customers.idle)
    code = buyer.contact_code
    assert [(method, path) for method, path, _ in stage.site.asked] == [
        ("GET", f"/o/{code}.gif"),
        ("GET", f"/c/{code}-0"),
        ("POST", "/v1/orders"),
    ]
    opened_from, clicked_from = (origin for _, _, origin in stage.site.asked[:2])
    assert opened_from == clicked_from == Behaviour(7).network_address(buyer.address)
    assert f'"account": "{buyer.account_code}"'.encode() in stage.site.bodies[-1]
    assert customers.done == {"open": 1, "click": 1, "order": 1}
    assert not customers.failed


def test_scanners_press_every_link_before_anybody_is_awake(stage: Stage) -> None:
    scanned = mail_person(lambda r: r.scanned_after_s is not None)
    with stage.customers([scanned]) as customers:
        stage.send(scanned)
        wait_until(lambda: customers.done["scanner"] == 1)
    pressed = [path for _, path, _ in stage.site.asked if path.startswith("/c/")]
    assert pressed == [f"/c/{scanned.contact_code}-{number}" for number in range(3)]


def test_who_leaves_presses_the_one_click_button(stage: Stage) -> None:
    leaver = mail_person(lambda r: r.unsubscribes_after_s is not None)
    with stage.customers([leaver]) as customers:
        customers.wake()
        stage.send(leaver)
        wait_until(lambda: customers.done["unsubscribe"] == 1)
    at = [(method, path) for method, path, _ in stage.site.asked].index(("POST", f"/u/{leaver.contact_code}"))
    assert stage.site.bodies[at] == b"List-Unsubscribe=One-Click"


def test_a_bounce_comes_back_to_the_envelope_sender_from_nobody(stage: Stage) -> None:
    gone = mail_person(lambda r: r.bounce == "5.1.1")
    with stage.customers([gone]) as customers:
        stage.send(gone)
        wait_until(lambda: customers.done["bounce"] == 1)
    (report,) = stage.bounces.messages()
    assert (report.mail_from, report.rcpt_to) == ("", f"bounce+{gone.contact_code}@b.example")
    assert stage.bounces.read(report).get_content_type() == "multipart/report"
    assert stage.site.asked == []


def test_an_sms_gets_its_receipt_and_stop_goes_to_the_door_for_replies(stage: Stage) -> None:
    text = f"Hi {stage.site.url}/c/sms"
    stopper = sms_person(lambda r: r.stops_after_s is not None, text)
    with stage.customers([stopper]) as customers:
        customers.wake()
        stage.text(stopper)
        wait_until(lambda: customers.done["stop"] == 1 and customers.done["receipt"] == 1)
    assert {path for _, path, _ in stage.site.asked} == {"/receipt", "/stop"}
    assert any(b'"status": "delivered"' in body for body in stage.site.bodies)
    assert any(b'"text": "STOP"' in body for body in stage.site.bodies)


def test_mail_to_strangers_is_left_alone(stage: Stage) -> None:
    with stage.customers([]) as customers:
        customers.wake()
        stage.send(person(1))
        assert stage.mailbox.wait_for(1, 10)
        wait_until(customers.idle)
    assert stage.site.asked == []


def test_a_closed_door_is_told(stage: Stage) -> None:
    gone = mail_person(lambda r: r.bounce == "5.1.1")
    stage.bounces.port = 9  # discard: nothing listens there
    with stage.customers([gone]) as customers:
        stage.send(gone)
        wait_until(lambda: sum(customers.failed.values()) == 1)
    assert next(iter(customers.failed)).startswith("bounce: ")
