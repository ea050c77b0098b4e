"""Reading returned mail: a corpus of reports as mail systems write them, and mail nobody should write."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.inbound.bounces import parse
from workers.inbound.statuses import BounceKind, classify

CORPUS = Path(__file__).parent.parent / "contract" / "bounce_corpus"
EXPECTED = json.loads((CORPUS / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(EXPECTED["files"]))
def test_a_report_is_read_as_its_mail_system_meant_it(name: str) -> None:
    reports = parse((CORPUS / f"{name}.eml").read_bytes())
    assert [[report.kind.value, report.recipient, report.status] for report in reports] == EXPECTED["files"][name]


def test_every_mail_of_the_corpus_is_expected() -> None:
    assert {path.stem for path in CORPUS.glob("*.eml")} == set(EXPECTED["files"])


def test_clues_are_found_wherever_a_report_carries_them() -> None:
    [report] = parse((CORPUS / "postfix_unknown_user.eml").read_bytes())
    assert report.clues.address_tokens == (EXPECTED["token"],)
    assert report.clues.unsubscribe_tokens == (EXPECTED["unsubscribe"],)
    assert report.clues.message_ids == ((42, "0123456789ab"),)
    [report] = parse((CORPUS / "envelope_id_only.eml").read_bytes())
    assert report.clues.envelope_id == EXPECTED["token"]


def test_a_redacted_complaint_still_names_our_message() -> None:
    [report] = parse((CORPUS / "arf_redacted.eml").read_bytes())
    assert report.kind is BounceKind.COMPLAINT
    assert report.clues.unsubscribe_tokens == (EXPECTED["unsubscribe"],)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        ("5.1.1", "", "hard"),
        ("5.1.2", "", "hard"),
        ("5.1.3", "", "hard"),
        ("5.1.6", "", "hard"),
        ("5.1.10", "", "hard"),
        ("5.2.1", "", "hard"),
        ("5.1.0", "Address rejected", "hard"),
        ("5.1.0", "<news@acme.example>: Sender address rejected", "soft"),
        ("4.1.1", "", "soft"),
        ("5.2.2", "", "full"),
        ("4.2.2", "", "full"),
        ("5.4.4", "", "soft"),
        ("5.4.1", "Recipient address rejected: Access denied", "soft"),
        ("5.3.4", "", "blocked"),
        ("5.2.3", "", "blocked"),
        ("5.6.7", "", "blocked"),
        ("5.1.8", "", "blocked"),
        ("4.7.1", "greylisted", "blocked"),
        *((f"5.7.{n}", "user unknown", "blocked") for n in (1, 26, 27, 30, 32, 40, 509, 515)),
        ("5.0.0", "550 5.1.1 no such user", "hard"),
        ("5.0.0", "550 User unknown", "hard"),
        ("5.0.0", "550 rejected as spam: user unknown", "blocked"),
        ("5.0.0", "no idea", "soft"),
        ("", "", "soft"),
        ("", "552 mailbox is full", "full"),
        ("", "您的邮件因频率限制被拒绝接收", "blocked"),
    ],
)
def test_only_what_clearly_names_a_dead_address_is_hard(status: str, words: str, kind: str) -> None:
    assert classify(status, words) == kind


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_no_bytes_make_the_reader_fail(raw: bytes) -> None:
    assert parse(raw)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(EXPECTED["files"])),
    cut=st.integers(0, 6000),
    place=st.integers(0, 6000),
    noise=st.binary(max_size=20),
)
def test_no_damage_to_a_report_makes_the_reader_fail(name: str, cut: int, place: int, noise: bytes) -> None:
    raw = (CORPUS / f"{name}.eml").read_bytes()
    damaged = raw[:place] + noise + raw[place:cut] if cut > place else raw[:place] + noise
    assert all(report.kind in BounceKind for report in parse(damaged))


def _nested(depth: int) -> bytes:
    head = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(depth)
    )
    return b"From: mailer-daemon@x.example\r\nSubject: Undeliverable\r\n" + head + b"Content-Type: text/plain\r\n\r\nx"


def _zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("original.eml", b"550 5.1.1 user unknown\n" * 2_000_000)
    return base64.encodebytes(packed.getvalue())


_STATUS = b"From: mailer-daemon@x.example\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n"
HOSTILE = {
    "empty": b"",
    "only a NUL": b"\x00",
    "deeply nested": _nested(3000),
    "nested a hundred deep": _nested(100),
    "huge": b"Subject: Undeliverable\r\n\r\n" + b"a" * 20_000_000,
    "huge line of no address": b"Subject: failure notice\r\n\r\n" + b"a" * 60_000 + b" @ " + b"@" * 60_000,
    "open brackets": b"From: postmaster@x\r\nContent-Type: text/html\r\n\r\n" + b"<" * 60_000,
    "many parts": b"Content-Type: multipart/report; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 50_000,
    "many recipients": _STATUS
    + b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns;x\r\n\r\n"
    + b"Final-Recipient: rfc822;a@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n" * 5_000,
    "a charset that is no text": b"From: postmaster@x\r\nContent-Type: text/plain; charset=zlib\r\n\r\nuser unknown",
    "a slow charset": b"From: postmaster@x\r\nContent-Type: text/plain; charset=punycode\r\n\r\n" + b"a-" * 60_000,
    "broken encoded words": b"From: =?utf-8?b?====?= postmaster@x\r\nSubject: =?x?q?=FF=ZZ?=\r\n\r\nx",
    "broken base64": _STATUS
    + b"Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\nA\r\n--b--",
    "a zip bomb": b"From: mailer-daemon@x.example\r\nSubject: Undeliverable\r\nContent-Type: multipart/mixed;"
    b" boundary=b\r\n\r\n--b\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + _zip_bomb()
    + b"--b--",
    "base64 without end": b"From: postmaster@x\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + b"QUFB" * 3_000_000,
    "a field without end": b"From: mailer-daemon@x\r\nSubject: "
    + b"=?gb18030?b?z7XNs83L0MU=?= " * 100_000
    + b"\r\n\r\nx",
    "empty status": _STATUS + b"Content-Type: message/delivery-status\r\n\r\n\r\n--b--",
    "charset of two values": b"Subject: Returned mail\r\nContent-Type: text/plain; charset*0=a; charset*1=b\r\n\r\nx",
    "many blank lines": b"From: mailer-daemon@x\r\n\r\nHi. This is the qmail-send program\n" + b"\n\t" * 60_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_is_read_in_bounded_time(name: str) -> None:
    started = time.process_time()
    assert parse(HOSTILE[name])
    assert time.process_time() - started < 5


def test_what_is_packed_is_not_unpacked() -> None:
    assert [report.kind for report in parse(HOSTILE["a zip bomb"])] == [BounceKind.UNCLASSIFIED]


def test_nothing_that_reads_returned_mail_can_send_any() -> None:
    """Mail from <> is never answered: a loop needs somebody who answers."""
    inbound = Path(__file__).parent.parent.parent / "workers" / "inbound"
    sending = re.compile(r"smtplib|workers\.smtp|workers\.channels|workers\.drain|templates")
    readers = ("bounces", "mail", "mailparts", "maildir", "imap", "listener", "statuses")
    found = [name for name in readers if sending.search((inbound / f"{name}.py").read_text(encoding="utf-8"))]
    assert found == []


def test_an_envelope_id_that_is_our_message_id_is_a_clue() -> None:
    [report] = parse((CORPUS / "envelope_id_is_our_message_id.eml").read_bytes())
    assert report.clues.message_ids == ((42, "0123456789ab"),)


def test_a_report_of_thousands_of_recipients_is_bounded() -> None:
    assert len(parse(HOSTILE["many recipients"])) == 50
