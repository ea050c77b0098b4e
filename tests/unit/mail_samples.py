"""A small e-mail, its sender and its reader, for the tests of templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from kernel.regions import Region
from kernel.settings import Brand, Sender
from kernel.signing import Purpose, Signer
from templates.dkim import DkimKey
from templates.files import email_template
from templates.links import Links
from templates.mail import ComposedMail, MailStep

SIGNER = Signer([b"k" * 40])
BASE_URL = "https://go.acme.example"
BRAND = Brand(name="Acme & Sons", postal_address="1 Dock Road\nLeeds LS1 1AA, UK", website="https://acme.example")
SENDER = Sender(
    name="Acme Wholesale", email="hello@acme.example", reply_to="help@acme.example", feedback_id="acme12345"
)
SENT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
SUBJECT = "{{ contact.first_name }}, we miss you"
HTML = '<p>Hello {{ contact.first_name }}, see <a href="https://shop.example/new">what is new</a>.</p>'


def person(**contact: Any) -> dict[str, Any]:
    """Return the context of a contact; keywords replace the contact's values."""
    return {
        "contact": {"id": 5, "first_name": "Jane", "last_name": "Doe", "attributes": {"tier": "gold"}, **contact},
        "account": {"id": 9, "name": "Corner Shop", "attributes": {}},
        "rfm": {"segment": "at_risk", "recency_days": 63, "monetary": 1234.5},
        "last_order": {"date": date(2026, 9, 18), "days_ago": 63, "amount": 70.5, "currency": "GBP"},
        "currency": "GBP",
    }


class RecordedLinks:
    """Gives each URL a number in the order they come, and keeps them."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def link_id(self, url: str) -> int:
        if url not in self.urls:
            self.urls.append(url)
        return self.urls.index(url) + 1

    def target(self, click: str) -> str:
        """Return where a signed link of a message leads."""
        signed = SIGNER.verify(Purpose.CLICK, click.removeprefix(f"{BASE_URL}/c/"))
        assert signed is not None, f"{click} is not a signed link"
        return self.urls[signed.number - 1]


def files(html: str = HTML, *, subject: str = SUBJECT, text: str | None = None) -> dict[str, str]:
    """Return the files of a template `winback`."""
    made = {"winback/subject.txt": subject, "winback/body.html": html}
    if text is not None:
        made["winback/body.txt"] = text
    return made


def step(
    made: Mapping[str, str] | None = None,
    *,
    language: str = "en",
    sender: Sender = SENDER,
    brand: Brand = BRAND,
    utm: Mapping[str, str] | None = None,
    transactional: bool = False,
    dkim: Sequence[DkimKey] = (),
    regions: Sequence[Region] = (),
) -> MailStep:
    return MailStep(
        template=email_template(files() if made is None else made, "winback", language),
        brand=brand,
        sender=sender,
        signer=SIGNER,
        base_url=BASE_URL,
        list_id="winback.acme.example",
        campaign="winback",
        utm={} if utm is None else utm,
        installation="0123456789ab",
        transactional=transactional,
        dkim=dkim,
        regions=regions,
    )


def composed(
    made: Mapping[str, str] | MailStep | None = None,
    context: dict[str, Any] | None = None,
    links: Links | None = None,
    *,
    address: str = "jane@shop.example",
    message_id: int = 7,
) -> ComposedMail:
    """Return message 7 to Jane."""
    return (made if isinstance(made, MailStep) else step(made)).compose(
        message_id=message_id,
        address=address,
        context=person() if context is None else context,
        date=SENT,
        links=RecordedLinks() if links is None else links,
    )


def parsed(mail: ComposedMail) -> EmailMessage:
    """Return the message as the standard library's parser reads it."""
    message = message_from_bytes(mail.data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def bodies(mail: ComposedMail) -> tuple[str, str]:
    """Return text and HTML."""
    text, html = parsed(mail).iter_parts()
    return text.get_content().replace("\r\n", "\n"), html.get_content().replace("\r\n", "\n")
