"""Microseconds of processor time to compose one e-mail of about 4 kB with eight tracked links, and where they go.

Beside it: the same bodies made the plain way (rendered as text, then searched, checked and encoded, as a body is whose
values leave the fast way in doubt), and what most programs do: Jinja2 and `EmailMessage`, nothing signed, nothing
checked.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import jinja2

from benchmarks.send import FILES, HTML, TEXT
from kernel.settings import Brand, Sender
from kernel.signing import Signer
from templates.dkim import DkimKey
from templates.dkim_keys import load_key, new_key
from templates.files import email_template
from templates.links import Tracking
from templates.mail import MailStep

MESSAGES = 2_000
ROUNDS = 7
SENT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
SENDER = Sender(name="Acme", email="hello@acme.example", reply_to="help@acme.example", feedback_id="acme12345")


class NumberedLinks:
    """Gives each target a lasting number, as the registry of a worker does from its memory."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def link_id(self, url: str) -> int:
        return self._known.setdefault(url, len(self._known) + 1)


def measure() -> dict[str, Any]:
    """Time all ways in turn, print the tables, return the figures."""
    links, people = NumberedLinks(), [_person(number) for number in range(500)]
    fast, plain = _step(), _step(fast=False)
    double = _step(dkim=[load_key("acme.example", name, new_key(name)) for name in ("rsa", "ed25519")])
    stages = _stages(fast, people, links)
    ways: dict[str, Callable[[int], Any]] = {
        "Carillon": lambda number: _composed(fast, number, people, links),
        "Carillon, the plain way": lambda number: _composed(plain, number, people, links),
        "Carillon, signed by RSA-2048 and Ed25519": lambda number: _composed(double, number, people, links),
        "Jinja2 and EmailMessage": _email_message(people),
    }
    times = _medians({**ways, **stages})
    size = len(_composed(fast, 1, people, links).data)
    print(f"{size:,} octets a message; medians of {ROUNDS} rounds of {MESSAGES:,} messages\n")
    for name in ways:
        print(f"{name:44}{times[name]:8.1f} µs {times['Jinja2 and EmailMessage'] / times[name]:6.1f} x")
    print("\nof Carillon's:")
    rest = times["Carillon"] - sum(times[name] for name in stages)
    for name, spent in [*((name, times[name]) for name in stages), ("head, addresses, putting together", rest)]:
        print(f"  {name:42}{spent:8.1f} µs")
    return {"octets": size, "messages": MESSAGES, "rounds": ROUNDS, "microseconds": times, "rest": rest}


def _stages(step: MailStep, people: list[dict[str, Any]], links: NumberedLinks) -> dict[str, Callable[[int], Any]]:
    """Return what can be timed by itself; each prepares what it needs beforehand, and leaves the rest out."""
    trackings = [Tracking(step._tracking, 10_000_000 + number, links) for number in range(MESSAGES)]
    for tracking in trackings:
        tracking.fixed = tracking.tokens.clicks(step._wire._link_numbers(links))
    variables = [
        {
            **people[number % 500],
            **step._static,
            "unsubscribe_url": "",
            "preferences_url": "",
            "subject": "",
            "footer": "",
        }
        for number in range(MESSAGES)
    ]

    def signatures(number: int) -> None:
        tracking = Tracking(step._tracking, 10_000_000 + number, links)
        tracking.fixed = tracking.tokens.clicks(step._wire._link_numbers(links))

    return {
        "signing 12 tokens and their links": signatures,
        "subject": lambda number: step._subject(variables[number], trackings[number]),
        "HTML": lambda number: step._wire.html(variables[number], trackings[number], step._laws.common),
        "text": lambda number: step._wire.text(variables[number], trackings[number], step._laws.common),
    }


def _medians(ways: dict[str, Callable[[int], Any]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.process_time()
            for number in range(MESSAGES):
                way(number)
            times[name].append((time.process_time() - started) / MESSAGES * 1e6)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def _person(number: int) -> dict[str, Any]:
    return {
        "contact": {"id": number, "first_name": f"Ann {number}", "last_name": "Doe", "attributes": {}},
        "account": {"id": number, "name": f"Corner Shop {number}", "attributes": {}},
        "rfm": None,
        "last_order": None,
        "currency": "EUR",
    }


def _step(*, fast: bool = True, dkim: Sequence[DkimKey] = ()) -> MailStep:
    return MailStep(
        template=email_template(FILES, "hello", "en"),
        brand=Brand(name="Acme", postal_address="1 Dock Road, Leeds"),
        sender=SENDER,
        signer=Signer([b"k" * 40]),
        base_url="https://go.acme.example",
        list_id="hello.acme.example",
        campaign="hello",
        utm={"source": "carillon"},
        installation="0123456789ab",
        dkim=dkim,
        fast=fast,
    )


def _composed(step: MailStep, number: int, people: list[dict[str, Any]], links: NumberedLinks) -> Any:
    return step.compose(
        message_id=10_000_000 + number,
        address=f"user{number}@customer.example",
        context=people[number % 500],
        date=SENT,
        links=links,
    )


def _email_message(people: list[dict[str, Any]]) -> Callable[[int], bytes]:
    html, text = jinja2.Environment(autoescape=True).from_string(HTML), jinja2.Environment().from_string(TEXT)

    def made(number: int) -> bytes:
        context = people[number % 500]
        message = EmailMessage()
        message["From"] = "Acme <hello@acme.example>"
        message["To"] = f"user{number}@customer.example"
        message["Subject"] = f"Hello Ann {number}"
        message["Date"] = "Fri, 20 Nov 2026 09:30:00 +0000"
        message["Message-ID"] = f"<m{number}.0123456789ab@acme.example>"
        message.set_content(text.render(context))
        message.add_alternative(html.render(context), subtype="html")
        return message.as_bytes()

    return made
