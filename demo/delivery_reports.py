"""The report a mail server sends back when it could not deliver after all (RFC 3464 in RFC 6522's envelope)."""

from __future__ import annotations

from datetime import datetime
from email import message_from_bytes, policy
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.utils import format_datetime, make_msgid

REPORTING_MTA = "mx.customers.example"

_WORDS = {
    "5.1.1": ("550", "User unknown in virtual mailbox table"),
    "4.2.2": ("452", "Mailbox full; tried for five days"),
}


def delivery_report(original: bytes, *, to: str, recipient: str, status: str, at: datetime) -> bytes:
    """Return the bytes of a non-delivery report.

    Args:
        original: The message that could not be delivered; its headers go back with the report.
        to: The envelope sender of the original, to whom the report goes.
        recipient: Who could not be reached.
        status: Enhanced status code, 5.1.1 or 4.2.2. Both have failed for good: the second after days of trying.
        at: Time of the report.
    """
    code, words = _WORDS[status]
    headers = original.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    message_id = str(message_from_bytes(headers, policy=policy.default).get("Message-ID", ""))
    report = MIMEMultipart("report", report_type="delivery-status", policy=policy.SMTP)
    report["From"] = f"Mail Delivery System <mailer-daemon@{REPORTING_MTA}>"
    report["To"] = to
    report["Subject"] = "Undelivered Mail Returned to Sender"
    report["Date"] = format_datetime(at)
    report["Message-ID"] = make_msgid(domain=REPORTING_MTA)
    report["Auto-Submitted"] = "auto-replied"
    if message_id:
        report["In-Reply-To"] = message_id
    report.attach(_part("text/plain", f"Your message could not be delivered to <{recipient}>: {words}.\r\n".encode()))
    report.attach(_delivery_status(recipient, status, f"smtp; {code} {status} {words}", at))
    report.attach(_part("text/rfc822-headers", headers))
    return report.as_bytes()


def _part(content_type: str, body: bytes) -> Message:
    part = Message(policy=policy.SMTP)
    part["Content-Type"] = content_type
    part.set_payload(body.decode("ascii", "replace"))
    return part


def _delivery_status(recipient: str, status: str, diagnostic: str, at: datetime) -> Message:
    about_message = Message(policy=policy.SMTP)
    about_message["Reporting-MTA"] = f"dns; {REPORTING_MTA}"
    about_message["Arrival-Date"] = format_datetime(at)
    about_recipient = Message(policy=policy.SMTP)
    about_recipient["Final-Recipient"] = f"rfc822; {recipient}"
    about_recipient["Action"] = "failed"
    about_recipient["Status"] = status
    about_recipient["Remote-MTA"] = "dns; mailstore.customers.example"
    about_recipient["Diagnostic-Code"] = diagnostic
    part = Message(policy=policy.SMTP)
    part["Content-Type"] = "message/delivery-status"
    part.set_payload([about_message, about_recipient])
    return part
