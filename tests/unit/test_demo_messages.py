"""What simulated customers find in a message, and the reports their mail servers send back."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

from demo.customers import links_in
from demo.delivery_reports import delivery_report


def mail() -> EmailMessage:
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = "hello@northgate.example"
    message["Message-ID"] = "<m5.abc@northgate.example>"
    message["List-Unsubscribe"] = "<https://t.example/u/leave>, <mailto:leave@northgate.example>"
    message.set_content("text")
    message.add_alternative(
        '<a href="https://t.example/c/one&amp;x">1</a><a href="https://t.example/c/two">2</a>'
        '<a href="https://t.example/c/two">2</a><a href="https://t.example/p/prefs">p</a>'
        '<img src="https://t.example/o/open.gif" alt="">',
        subtype="html",
    )
    return message


def test_links_are_found_once_each_and_in_order() -> None:
    links = links_in(mail())
    assert links.targets == ("https://t.example/c/one&x", "https://t.example/c/two")
    assert links.pixel == "https://t.example/o/open.gif"
    assert links.unsubscribe == "https://t.example/u/leave"


def test_a_message_without_html_has_no_links() -> None:
    message = EmailMessage()
    message.set_content("only text")
    assert links_in(message) == links_in(message)
    assert (links_in(message).pixel, links_in(message).targets, links_in(message).unsubscribe) == ("", (), "")


def test_a_delivery_report_names_recipient_status_and_the_original() -> None:
    original = mail().as_bytes()
    raw = delivery_report(
        original,
        to="bounce+t@bounces.example",
        recipient="gone@oak.example",
        status="5.1.1",
        at=datetime(2026, 11, 21, 9, 0, tzinfo=UTC),
    )
    assert b"\n" not in raw.replace(b"\r\n", b"")
    report = message_from_bytes(raw, policy=policy.default)
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    text, status, headers = report.get_payload()  # type: ignore[misc]  # a multipart's payload is its parts
    about_recipient = status.get_payload()[1]  # type: ignore[union-attr]  # so is a delivery status's
    assert about_recipient["Final-Recipient"] == "rfc822; gone@oak.example"
    assert (about_recipient["Action"], about_recipient["Status"]) == ("failed", "5.1.1")
    assert "<m5.abc@northgate.example>" in headers.get_payload()  # type: ignore[union-attr]
    assert "gone@oak.example" in text.get_payload()  # type: ignore[union-attr]
