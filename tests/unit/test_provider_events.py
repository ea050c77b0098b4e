"""Events of e-mail providers: signatures made as the providers make them, payloads as they document them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.webhooks import MailgunWebhook, PostmarkWebhook, SendgridWebhook, SesWebhook
from workers.inbound import mailgun, postmark, sendgrid, ses, sns
from workers.inbound.callbacks import CallbackError
from workers.inbound.provider_events import Delivery

NOW = datetime(2026, 3, 2, 9, 10, tzinfo=UTC)
TOKEN = "jyvabaqndlxgdh5d3aj3p4veyuygxqq"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail-events"
CERTIFICATE_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-abc.pem"


def call(body: Any, headers: dict[str, str] | None = None, at: datetime = NOW) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(headers=headers or {}, body=raw, received_at=at)


# --- SendGrid ------------------------------------------------------------------------------------------------


class Sendgrid:
    """Signs as SendGrid does."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        der = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.webhook = SendgridWebhook(type="sendgrid", token="t", key=base64.b64encode(der).decode())

    def call(self, events: Any) -> Delivery:
        raw, stamp = json.dumps(events).encode(), "1600112502"
        signature = self.key.sign(stamp.encode() + raw, ec.ECDSA(SHA256()))
        return call(
            raw,
            {
                "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
                "x-twilio-email-event-webhook-timestamp": stamp,
            },
        )


SENDGRID = Sendgrid()


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"event": "processed"}, "notice"),
        ({"event": "delivered", "response": "250 OK"}, "delivered"),
        ({"event": "deferred", "response": "400 try again later"}, "delayed"),
        ({"event": "open"}, "notice"),
        ({"event": "spamreport"}, "complaint"),
        ({"event": "group_unsubscribe"}, "unsubscribed"),
        ({"event": "bounce", "status": "5.1.1", "reason": "550 5.1.1 no such user", "type": "bounce"}, "hard"),
        ({"event": "bounce", "reason": "550 unknown", "bounce_classification": "Invalid Address"}, "hard"),
        ({"event": "bounce", "status": "5.0.0", "reason": "500 x", "bounce_classification": "Technical"}, "soft"),
        ({"event": "bounce", "status": "5.2.2", "reason": "over quota"}, "full"),
        ({"event": "bounce", "status": "5.7.1", "bounce_classification": "Invalid Address"}, "blocked"),
        ({"event": "bounce", "status": "5.1.1", "type": "blocked"}, "blocked"),
        ({"event": "dropped", "reason": "Bounced Address"}, "hard"),
        ({"event": "dropped", "reason": "Unsubscribed Address"}, "unsubscribed"),
        ({"event": "dropped", "reason": "a new reason"}, "unclassified"),
        ({"event": "a new event"}, "unclassified"),
        ({}, "unclassified"),
        ("no object", "unclassified"),
    ],
)
def test_sendgrids_words_become_ours(event: Any, kind: str) -> None:
    [report] = sendgrid.read_events(SENDGRID.webhook, SENDGRID.call([event]))
    assert report.kind == kind


def test_a_sendgrid_event_names_message_person_and_time() -> None:
    event = {
        "email": "Jo@Customer.example",
        "timestamp": 1772442000,
        "smtp-id": "<m42.0123456789ab@acme.example>",
        "event": "delivered",
        "carillon": TOKEN,
    }
    [report] = sendgrid.read_events(SENDGRID.webhook, SENDGRID.call([event]))
    assert (report.recipient, report.at) == ("jo@customer.example", datetime(2026, 3, 2, 9, 0, tzinfo=UTC))
    assert (report.clues.envelope_id, report.clues.message_ids) == (TOKEN, ((42, "0123456789ab"),))


def test_sendgrids_signature_covers_every_byte_and_the_time() -> None:
    good = SENDGRID.call([{"event": "spamreport"}])
    for body, headers in (
        (good.body + b" ", dict(good.headers)),
        (good.body, {**good.headers, "x-twilio-email-event-webhook-timestamp": "1600112503"}),
        (good.body, {}),
        (good.body, {**good.headers, "x-twilio-email-event-webhook-signature": "no base64"}),
    ):
        with pytest.raises(CallbackError, match="signature"):
            sendgrid.read_events(SENDGRID.webhook, call(body, headers))
    with pytest.raises(CallbackError, match="signature"):
        sendgrid.read_events(Sendgrid().webhook, good)
    with pytest.raises(CallbackError, match="no public key"):
        sendgrid.read_events(SendgridWebhook(type="sendgrid", token="t", key="AAAA"), good)


# --- Mailgun -------------------------------------------------------------------------------------------------

MAILGUN = MailgunWebhook(type="mailgun", token="t", key="signing-key")


def mailgun_call(event: Any, *, signed_at: datetime = NOW, key: str = "signing-key") -> Delivery:
    stamp, token = str(int(signed_at.timestamp())), "a" * 50
    signature = hmac.new(key.encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()
    return call({"signature": {"timestamp": stamp, "token": token, "signature": signature}, "event-data": event})


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"event": "accepted"}, "notice"),
        ({"event": "delivered"}, "delivered"),
        ({"event": "clicked"}, "notice"),
        ({"event": "complained"}, "complaint"),
        ({"event": "unsubscribed"}, "unsubscribed"),
        ({"event": "failed", "severity": "temporary", "reason": "generic"}, "delayed"),
        ({"event": "failed", "severity": "permanent", "reason": "suppress-bounce"}, "hard"),
        ({"event": "failed", "severity": "permanent", "reason": "old"}, "soft"),
        ({"event": "failed", "severity": "permanent", "reason": "a new reason"}, "unclassified"),
        (
            {
                "event": "failed",
                "severity": "permanent",
                "reason": "bounce",
                "delivery-status": {"code": 550, "enhanced-code": "5.1.1", "message": "5.1.1 no such user"},
            },
            "hard",
        ),
        (
            {
                "event": "failed",
                "severity": "permanent",
                "reason": "bounce",
                "delivery-status": {"code": 550, "message": "550 5.7.26 unauthenticated"},
            },
            "blocked",
        ),
        ({"event": "a new event"}, "unclassified"),
        (None, "unclassified"),
    ],
)
def test_mailguns_words_become_ours(event: Any, kind: str) -> None:
    [report] = mailgun.read_events(MAILGUN, mailgun_call(event))
    assert report.kind == kind


def test_a_mailgun_event_names_message_person_and_time() -> None:
    event = {
        "event": "delivered",
        "timestamp": 1772442000.25,
        "recipient": "jo@customer.example",
        "user-variables": {"carillon": TOKEN},
        "envelope": {"sender": f"bounce+{TOKEN}@acme.example"},
        "message": {"headers": {"message-id": "m42.0123456789ab@acme.example"}},
    }
    [report] = mailgun.read_events(MAILGUN, mailgun_call(event))
    assert (report.recipient, report.at) == ("jo@customer.example", datetime(2026, 3, 2, 9, 0, 0, 250_000, tzinfo=UTC))
    assert report.clues.envelope_id == TOKEN
    assert report.clues.address_tokens == (TOKEN,)
    assert report.clues.message_ids == ((42, "0123456789ab"),)


@pytest.mark.parametrize(
    "wrong",
    [
        mailgun_call({"event": "complained"}, key="another"),
        mailgun_call({"event": "complained"}, signed_at=NOW - timedelta(hours=13)),
        mailgun_call({"event": "complained"}, signed_at=NOW + timedelta(hours=13)),
        call({"event-data": {"event": "complained"}}),
        call({"signature": {"timestamp": "1e999", "token": "", "signature": ""}}),
        call(b"\xff"),
        call([]),
    ],
)
def test_mailgun_without_a_fresh_signature_is_not_believed(wrong: Delivery) -> None:
    with pytest.raises(CallbackError):
        mailgun.read_events(MAILGUN, wrong)


# --- Postmark ------------------------------------------------------------------------------------------------

POSTMARK = PostmarkWebhook(type="postmark", token="t")


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"RecordType": "Delivery"}, "delivered"),
        ({"RecordType": "SpamComplaint"}, "complaint"),
        ({"RecordType": "Open"}, "notice"),
        ({"RecordType": "Bounce", "Type": "HardBounce"}, "hard"),
        ({"RecordType": "Bounce", "Type": "HardBounce", "Details": "smtp;550 5.7.1 policy"}, "blocked"),
        ({"RecordType": "Bounce", "Type": "SoftBounce", "Details": "smtp;552 5.2.2 full"}, "full"),
        ({"RecordType": "Bounce", "Type": "SoftBounce"}, "soft"),
        ({"RecordType": "Bounce", "Type": "Transient"}, "delayed"),
        ({"RecordType": "Bounce", "Type": "AutoResponder"}, "auto_reply"),
        ({"RecordType": "Bounce", "Type": "SpamNotification"}, "blocked"),
        ({"RecordType": "Bounce", "Type": "A new type"}, "unclassified"),
        (
            {"RecordType": "SubscriptionChange", "SuppressSending": True, "SuppressionReason": "ManualSuppression"},
            "unsubscribed",
        ),
        ({"RecordType": "SubscriptionChange", "SuppressSending": False}, "notice"),
        ({"RecordType": "A new record"}, "unclassified"),
    ],
)
def test_postmarks_words_become_ours(record: Any, kind: str) -> None:
    [report] = postmark.read_events(POSTMARK, call(record))
    assert report.kind == kind


def test_a_postmark_record_names_message_person_and_time() -> None:
    record = {
        "RecordType": "Bounce",
        "Type": "HardBounce",
        "Email": "jo@customer.example",
        "BouncedAt": "2026-03-02T09:00:00.1234567Z",
        "Metadata": {"carillon": TOKEN},
    }
    [report] = postmark.read_events(POSTMARK, call(record))
    assert (report.recipient, report.clues.envelope_id) == ("jo@customer.example", TOKEN)
    assert report.at is not None
    assert report.at.replace(microsecond=0) == datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


# --- SES by SNS ----------------------------------------------------------------------------------------------


class Amazon:
    """Signs as SNS does, and serves the certificate."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=365))
            .sign(self.key, SHA256())
        )
        self.pem = certificate.public_bytes(Encoding.PEM)
        self.asked: list[str] = []

    def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        return self.pem

    def message(self, type_: str = "Notification", *, version: str = "2", **fields: Any) -> dict[str, Any]:
        whole = {
            "Type": type_,
            "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
            "TopicArn": TOPIC,
            "Message": "{}",
            "Timestamp": "2026-03-02T09:00:00.000Z",
            "SignatureVersion": version,
            "SigningCertURL": CERTIFICATE_URL,
            **fields,
        }
        names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        signed = "".join(f"{name}\n{whole[name]}\n" for name in names if name in whole)
        digest = SHA256() if version == "2" else SHA1()
        whole["Signature"] = base64.b64encode(self.key.sign(signed.encode(), padding.PKCS1v15(), digest)).decode()
        return whole


AMAZON = Amazon()
SES = SesWebhook(type="ses", token="t", topic=TOPIC)


def ses_reports(event: Any, **fields: Any) -> Any:
    return ses.read_events(SES, call(AMAZON.message(Message=json.dumps(event), **fields)), AMAZON.fetch)


def ses_bounce(type_: str, subtype: str, **person: str) -> dict[str, Any]:
    return {
        "eventType": "Bounce",
        "bounce": {
            "bounceType": type_,
            "bounceSubType": subtype,
            "bouncedRecipients": [{"emailAddress": "jo@customer.example", **person}],
            "timestamp": "2026-03-02T09:00:00.000Z",
        },
        "mail": {"source": f"bounce+{TOKEN}@acme.example", "destination": ["jo@customer.example"]},
    }


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (ses_bounce("Permanent", "General"), "hard"),
        (ses_bounce("Permanent", "General", status="5.7.1", diagnosticCode="smtp; 550 5.7.1 policy"), "blocked"),
        (ses_bounce("Permanent", "OnAccountSuppressionList"), "hard"),
        (ses_bounce("Transient", "General"), "soft"),
        (ses_bounce("Transient", "MailboxFull"), "full"),
        (ses_bounce("Transient", "ContentRejected"), "blocked"),
        (ses_bounce("Transient", "A new subtype"), "unclassified"),
        ({"eventType": "Delivery", "delivery": {"smtpResponse": "250 ok"}}, "delivered"),
        ({"notificationType": "Delivery", "delivery": {}}, "delivered"),
        ({"eventType": "DeliveryDelay", "deliveryDelay": {"delayType": "MailboxFull"}}, "delayed"),
        ({"eventType": "Complaint", "complaint": {"complaintFeedbackType": "abuse"}}, "complaint"),
        ({"eventType": "Complaint", "complaint": {"complaintFeedbackType": "not-spam"}}, "notice"),
        ({"eventType": "Send"}, "notice"),
        ({"eventType": "Open"}, "notice"),
        (
            {"eventType": "Subscription", "subscription": {"newTopicPreferences": {"unsubscribeAll": True}}},
            "unsubscribed",
        ),
        ({"eventType": "A new event"}, "unclassified"),
    ],
)
def test_ses_words_become_ours(event: Any, kind: str, version: str) -> None:
    [report] = ses_reports(event, version=version)
    assert report.kind == kind


def test_an_ses_event_names_message_person_and_time() -> None:
    event = ses_bounce("Permanent", "NoEmail", status="5.1.1", diagnosticCode="smtp; 550 5.1.1 unknown")
    event["mail"]["tags"] = {"carillon": [TOKEN], "ses:source-ip": ["203.0.113.7"]}
    event["mail"]["headers"] = [{"name": "Message-ID", "value": "<m42.0123456789ab@acme.example>"}]
    [report] = ses_reports(event)
    assert (report.recipient, report.status, report.at) == (
        "jo@customer.example",
        "5.1.1",
        datetime(2026, 3, 2, 9, 0, tzinfo=UTC),
    )
    assert (report.clues.envelope_id, report.clues.address_tokens) == (TOKEN, (TOKEN,))
    assert report.clues.message_ids == ((42, "0123456789ab"),)


def test_a_subscription_is_confirmed_at_amazon_and_nowhere_else() -> None:
    link = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=x"
    AMAZON.asked.clear()
    asked = AMAZON.message("SubscriptionConfirmation", SubscribeURL=link, Token="x")
    assert ses.read_events(SES, call(asked), AMAZON.fetch) == []
    assert AMAZON.asked == [CERTIFICATE_URL, link]
    elsewhere = AMAZON.message("SubscriptionConfirmation", SubscribeURL="https://evil.example/", Token="x")
    with pytest.raises(CallbackError, match="not Amazon's"):
        ses.read_events(SES, call(elsewhere), AMAZON.fetch)
    assert AMAZON.asked == [CERTIFICATE_URL, link, CERTIFICATE_URL]


@pytest.mark.parametrize(
    "changed",
    [
        {"Message": "{} "},
        {"Timestamp": "2026-03-02T09:00:00.001Z"},
        {"Subject": "inserted"},
        {"Signature": "AAAA"},
        {"Signature": "no base64"},
        {"SignatureVersion": "1"},
        {"Type": "UnsubscribeConfirmation"},
        {"Type": "Other"},
        {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:mail-events"},
        {"SigningCertURL": "https://evil.example/x.pem"},
    ],
)
def test_what_sns_did_not_sign_is_not_believed(changed: dict[str, str]) -> None:
    with pytest.raises(CallbackError):
        ses.read_events(SES, call({**AMAZON.message(), **changed}), AMAZON.fetch)


@pytest.mark.parametrize(
    ("url", "pinned"),
    [
        (CERTIFICATE_URL, True),
        ("https://sns.cn-north-1.amazonaws.com.cn/x.pem", True),
        ("http://sns.eu-west-1.amazonaws.com/x.pem", False),
        ("https://sns.eu-west-1.amazonaws.com.evil.example/x.pem", False),
        ("https://evil.example/sns.eu-west-1.amazonaws.com/x.pem", False),
        ("https://sns.eu-west-1.amazonaws.com@evil.example/x.pem", False),
        ("https://x@sns.eu-west-1.amazonaws.com/x.pem", False),
        ("https://sns.eu-west-1.amazonaws.com:8443/x.pem", False),
        ("https://sns.eu-west-1.amazonaws.com:port/x.pem", False),
        ("https://s3.eu-west-1.amazonaws.com/x.pem", False),
        ("", False),
    ],
)
def test_certificates_come_from_amazon_alone(url: str, pinned: bool) -> None:
    assert sns.amazons(url) is pinned


# --- anything ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["event", "email", "timestamp", "reason", "status", "event-data", "mail", "bounce", "eventType",
             "RecordType", "Type", "Details", "Metadata", "BouncedAt", "tags", "headers", "bouncedRecipients",
             "delivery-status"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_no_payload_makes_a_reader_fail(payload: Any) -> None:
    for report in (
        *sendgrid.read_events(SENDGRID.webhook, SENDGRID.call([payload])),
        *mailgun.read_events(MAILGUN, mailgun_call(payload)),
        *postmark.read_events(POSTMARK, call(payload)),
        *ses_reports(payload),
    ):
        assert report.kind
