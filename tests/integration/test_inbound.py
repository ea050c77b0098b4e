"""Returned mail and SMS callbacks, from the door to the tables. On both databases."""

from __future__ import annotations

import json
import os
import random
import re
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, insert, update

from kernel.errors import ConfigError
from kernel.ids import message_id_header
from kernel.settings import Workspace
from kernel.signing import Purpose, Signer
from store.engine import open_database, reading, writing
from store.inbox import BOUNCE_SOURCE, gateway_source, put
from store.schema import installation, migrate
from store.tables import consents, contacts, inbox, message_events, messages, suppression_words, suppressions
from tests.integration.returning import (
    SECRETS,
    SENT_AT,
    WORKSPACE_YAML,
    TurnedClock,
    everything,
    make_workspace,
    rows,
    sent_messages,
    state_of,
)
from workers.inbound.listener import BounceDoor, serve_bounces
from workers.inbound.maildir import collect_maildirs
from workers.inbound.process import process_inbox

NOW = SENT_AT + timedelta(minutes=10)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace")


@pytest.fixture
def door(engine: Engine, workspace: Workspace) -> Iterator[BounceDoor]:
    with BounceDoor(engine, workspace.signer(), host="127.0.0.1", port=0, clock=TurnedClock(NOW)) as door:
        yield door


def bounce_address(workspace: Workspace, message: int) -> str:
    return f"bounce+{workspace.signer().address_token(message)}@acme.example"


def report(
    *,
    action: str = "failed",
    status: str = "5.1.1",
    words: str = "550 5.1.1 unknown",
    to: str = "user1@customer.example",
    original: str = "Subject: Offers",
    per_message: str = "",
) -> bytes:
    text = f"""\
Return-Path: <>
From: MAILER-DAEMON@mx.example
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

This is the mail system.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example
{per_message}
Final-Recipient: rfc822; {to}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {words}

--b
Content-Type: message/rfc822

{original}

Hello
--b--
"""
    return text.replace("\n", "\r\n").encode()


def complaint(original: str = "Subject: Offers", rcpt: str = "user1@customer.example") -> bytes:
    text = f"""\
From: fbl@isp.example
Subject: complaint
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
Version: 1
User-Agent: isp
Original-Rcpt-To: {rcpt}

--b
Content-Type: message/rfc822

{original}

Hello
--b--
"""
    return text.replace("\n", "\r\n").encode()


def keep(
    engine: Engine, raw: bytes, *, recipient: str = "", key: str = "", source: str = BOUNCE_SOURCE, **meta: Any
) -> bool:
    with writing(engine) as connection:
        return put(
            connection,
            key=key or repr((source, recipient, raw, meta)),
            source=source,
            body=raw,
            meta={"recipient": recipient, **meta},
            received_at=NOW,
        )


def callback(engine: Engine, gateway: str, kind: str, *, query: str = "", body: Any = None, key: str = "") -> None:
    raw = b"" if body is None else json.dumps(body).encode()
    keep(
        engine,
        raw,
        key=key,
        source=gateway_source(gateway),
        kind=kind,
        query=query,
        headers={"content-type": "application/json"},
    )


def inbox_states(engine: Engine) -> list[str]:
    return [state for _, state in rows(engine, inbox, "id", "state")]


# --- the door ------------------------------------------------------------------------------------------------


def test_a_bounce_by_smtp_suppresses_the_address_it_went_to(
    engine: Engine, workspace: Workspace, door: BounceDoor
) -> None:
    [message] = sent_messages(engine)
    with smtplib.SMTP(door.host, door.port, timeout=20) as client:
        assert client.sendmail("", [bounce_address(workspace, message).upper()], report()) == {}
        # Answered for means kept: a second connection sees it already.
        assert inbox_states(engine) == ["new"]
        client.sendmail("", [bounce_address(workspace, message).upper()], report())
    assert process_inbox(engine, workspace, now=NOW) == 1
    assert state_of(engine, message) == "bounced"
    assert rows(engine, suppressions, "channel", "address", "reason", "message_id") == [
        ("email", "user1@customer.example", "hard_bounce", message)
    ]
    assert rows(engine, message_events, "kind", "detail") == [("bounced", "5.1.1 550 5.1.1 unknown")]
    assert inbox_states(engine) == ["done"]


@pytest.mark.parametrize(
    "address",
    [
        "jo@customer.example",
        "bounce@acme.example",
        "bounce+@acme.example",
        "bounce+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@acme.example",
        "postmaster@acme.example",
    ],
)
def test_the_door_relays_nothing(engine: Engine, door: BounceDoor, address: str) -> None:
    with smtplib.SMTP(door.host, door.port, timeout=20) as client:
        client.ehlo()
        client.mail("")
        code, words = client.rcpt(address)
        assert (code, words[:5]) == (550, b"5.1.1")
        assert client.docmd("DATA")[0] == 503
    assert inbox_states(engine) == []


def test_foreign_tokens_are_refused(engine: Engine, door: BounceDoor) -> None:
    foreign = Signer([b"x" * 64]).address_token(1)
    with smtplib.SMTP(door.host, door.port, timeout=20) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
        client.sendmail("", [f"bounce+{foreign}@acme.example"], report())


def test_lmtp_clients_get_an_answer_for_each_recipient(engine: Engine, workspace: Workspace, door: BounceDoor) -> None:
    ids = sent_messages(engine, 2)
    with socket.create_connection((door.host, door.port), timeout=20) as plain:
        stream = plain.makefile("rwb")

        def ask(line: bytes, answers: int = 1) -> list[bytes]:
            stream.write(line)
            stream.flush()
            found = []
            while len(found) < answers:
                answer = stream.readline()
                if answer[3:4] == b" ":
                    found.append(answer)
            return found

        assert stream.readline().startswith(b"220")
        assert ask(b"LHLO relay.example\r\n")[0].startswith(b"250")
        assert ask(b"MAIL FROM:<>\r\n")[0].startswith(b"250")
        for message in ids:
            assert ask(f"RCPT TO:<{bounce_address(workspace, message)}>\r\n".encode())[0].startswith(b"250")
        assert ask(b"RCPT TO:<nobody@acme.example>\r\n")[0].startswith(b"550")
        assert ask(b"DATA\r\n")[0].startswith(b"354")
        assert all(answer.startswith(b"250") for answer in ask(report(status="5.2.2", words="full") + b".\r\n", 2))
        assert ask(b"QUIT\r\n")[0].startswith(b"221")
        stream.close()
    assert process_inbox(engine, workspace, now=NOW) == 2
    assert {state_of(engine, message) for message in ids} == {"bounced"}
    assert rows(engine, suppressions, "address") == []


def test_mail_too_big_or_with_endless_lines_is_refused_and_the_door_stays_open(
    engine: Engine, workspace: Workspace, door: BounceDoor
) -> None:
    [message] = sent_messages(engine)
    address = bounce_address(workspace, message)
    with smtplib.SMTP(door.host, door.port, timeout=60) as client:
        with pytest.raises(smtplib.SMTPException):
            client.sendmail("", [address], (b"x" * 2000 + b"\r\n") * 11_000)
        with pytest.raises(smtplib.SMTPException):
            client.sendmail("", [address], b"x" * 1_100_000)
        client.sendmail("", [address], report())
    assert inbox_states(engine) == ["new"]


@pytest.mark.parametrize("width", [1_100, 70_000, 1_000_000])
def test_a_report_with_a_long_line_is_taken_whole(
    engine: Engine, workspace: Workspace, door: BounceDoor, width: int
) -> None:
    [message] = sent_messages(engine)
    raw = report(original="Subject: Offers\n\n" + "x" * width)
    with smtplib.SMTP(door.host, door.port, timeout=60) as client:
        client.sendmail("", [bounce_address(workspace, message)], raw)
    assert rows(engine, inbox, "body") == [(raw,)]
    assert process_inbox(engine, workspace, now=NOW) == 1
    assert state_of(engine, message) == "bounced"
    assert len(rows(engine, suppressions, "address")) == 1


def test_what_cannot_be_kept_is_not_answered_for(sqlite_engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(sqlite_engine)
    with (
        BounceDoor(sqlite_engine, workspace.signer(), host="127.0.0.1", port=0) as door,
        smtplib.SMTP(door.host, door.port, timeout=20) as client,
    ):
        with writing(sqlite_engine) as connection:
            connection.exec_driver_sql("ALTER TABLE inbox RENAME TO elsewhere")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("", [bounce_address(workspace, message)], report())
        assert refused.value.smtp_code == 451


def test_a_taken_port_is_told_in_words(sqlite_engine: Engine, workspace: Workspace) -> None:
    with (
        BounceDoor(sqlite_engine, workspace.signer(), host="127.0.0.1", port=0) as door,
        pytest.raises(ConfigError, match=r"inbound\.smtp_port: cannot listen on 127\.0\.0\.1"),
    ):
        BounceDoor(sqlite_engine, workspace.signer(), host="127.0.0.1", port=door.port).start()


# --- folders -------------------------------------------------------------------------------------------------


def test_mail_in_a_maildir_is_collected_once(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine)
    folder = workspace.root / "bounces"
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir(parents=True)
    raw = f"Delivered-To: {bounce_address(workspace, message)}\r\n".encode() + report()
    (folder / "new" / "1.M1.host").write_bytes(raw)
    (folder / "tmp" / "2.M2.host").write_bytes(b"half a ma")
    assert collect_maildirs(engine, workspace, now=NOW) == 1
    assert collect_maildirs(engine, workspace, now=NOW) == 0
    assert [path.name for path in (folder / "cur").iterdir()] == ["1.M1.host:2,S"]
    assert [path.name for path in (folder / "tmp").iterdir()] == ["2.M2.host"]
    process_inbox(engine, workspace, now=NOW)
    assert state_of(engine, message) == "bounced"


def test_a_missing_maildir_is_no_error(sqlite_engine: Engine, workspace: Workspace) -> None:
    assert collect_maildirs(sqlite_engine, workspace, now=NOW) == 0


# --- which message -------------------------------------------------------------------------------------------


def test_a_report_finds_its_message_by_whatever_it_carries(engine: Engine, workspace: Workspace) -> None:
    ids = sent_messages(engine, 4)
    signer = workspace.signer()
    keep(engine, report(per_message=f"Original-Envelope-Id: {signer.address_token(ids[0])}"))
    unsubscribe = signer.token(Purpose.UNSUBSCRIBE, ids[1])
    keep(engine, complaint(f"List-Unsubscribe: <https://mail.acme.example/u/{unsubscribe}>", rcpt="<redacted>"))
    with reading(engine) as connection:
        name = installation(connection)
    header = f"Message-ID: {message_id_header(ids[2], name, 'acme.example')}"
    keep(engine, report(original=header, to="User3@customer.example"))
    keep(engine, report(original=f"Return-Path: <{bounce_address(workspace, ids[3])}>", status="5.7.1"))
    process_inbox(engine, workspace, now=NOW)
    assert [state_of(engine, message) for message in ids] == ["bounced", "complained", "bounced", "bounced"]
    assert rows(engine, suppressions, "address", "reason") == [
        ("user1@customer.example", "hard_bounce"),
        ("user2@customer.example", "complaint"),
        ("user3@customer.example", "hard_bounce"),
    ]
    assert [
        status
        for contact, channel, status in rows(engine, consents, "contact_id", "channel", "status")
        if (contact, channel) == (ids[1], "email")
    ] == ["withdrawn"]


def test_a_message_id_alone_harms_nobody(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine)
    with reading(engine) as connection:
        name = installation(connection)
    known = message_id_header(message, name, "acme.example")
    foreign = message_id_header(message, "0123456789ab", "acme.example")
    keep(engine, report(original=f"Message-ID: {known}", to="mallory@evil.example"))
    keep(engine, report(original=f"Message-ID: {foreign}"))
    keep(engine, report(original="Message-ID: <m999.x@y>"))
    process_inbox(engine, workspace, now=NOW)
    assert state_of(engine, message) == "sent"
    assert rows(engine, suppressions, "address") == []
    assert inbox_states(engine) == ["unclassified"] * 3


CORPUS = Path(__file__).parent.parent / "contract" / "bounce_corpus"
EXPECTED = json.loads((CORPUS / "expected.json").read_text(encoding="utf-8"))


def _foreign(raw: bytes) -> bytes:
    """Return a mail of the corpus with tokens somebody else signed."""
    foreign = Signer([b"x" * 64])
    token, unsubscribe = foreign.address_token(1), foreign.token(Purpose.UNSUBSCRIBE, 1)
    return raw.replace(EXPECTED["token"].encode(), token.encode()).replace(
        EXPECTED["unsubscribe"].encode(), unsubscribe.encode()
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(EXPECTED["files"])),
    place=st.integers(0, 4000),
    noise=st.binary(max_size=12),
    recipient=st.sampled_from(["", "bounce+aaaa@acme.example", "user1@customer.example"]),
)
def test_no_mail_without_what_we_signed_changes_anything(
    sqlite_engine: Engine, workspace: Workspace, name: str, place: int, noise: bytes, recipient: str
) -> None:
    if not rows(sqlite_engine, messages, "id"):
        sent_messages(sqlite_engine)
    raw = _foreign((CORPUS / f"{name}.eml").read_bytes())
    keep(sqlite_engine, raw[:place] + noise + raw[place:], recipient=recipient)
    process_inbox(sqlite_engine, workspace, now=NOW)
    assert rows(sqlite_engine, suppressions, "address") == []
    assert rows(sqlite_engine, message_events, "kind") == []
    assert {state for (state,) in rows(sqlite_engine, messages, "state")} == {"sent"}
    assert {status for (status,) in rows(sqlite_engine, consents, "status")} == {"granted"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("postfix_3_7_real", "hard_bounce"),
        ("sendmail_report", "hard_bounce"),
        ("gmail_address_not_found", "hard_bounce"),
        ("exchange_2003_words", "hard_bounce"),
        ("qmail", None),
        ("arf_yahoo", "complaint"),
        ("arf_outlook_headers_only", "complaint"),
        ("qq_mailbox_unavailable", "hard_bounce"),
        ("aliyun_system_bounce", None),
        ("exchange_policy_hides_a_dead_address", None),
        ("human_bounced_by_hand", None),
    ],
)
def test_the_same_mail_with_what_we_signed_has_its_consequence(
    sqlite_engine: Engine, workspace: Workspace, name: str, reason: str | None
) -> None:
    [message] = sent_messages(sqlite_engine)
    ours = workspace.signer().address_token(message)
    keep(sqlite_engine, (CORPUS / f"{name}.eml").read_bytes().replace(EXPECTED["token"].encode(), ours.encode()))
    process_inbox(sqlite_engine, workspace, now=NOW)
    found = rows(sqlite_engine, suppressions, "address", "reason")
    assert found == ([("user1@customer.example", reason)] if reason else [])


# --- what follows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "state", "event", "suppressed"),
    [
        (report(), "bounced", "bounced", "hard_bounce"),
        (report(status="5.2.2", words="full"), "bounced", "mailbox_full", None),
        (report(status="5.4.4", words="no route"), "bounced", "soft_bounced", None),
        (report(status="5.7.26", words="unauthenticated"), "bounced", "blocked", None),
        (report(action="delayed", status="4.4.1"), "sent", "delayed", None),
        (report(action="delivered", status="2.0.0", words="ok"), "delivered", "delivered", None),
        (complaint(), "complained", "complained", "complaint"),
        (b"Subject: Automatic reply: away\r\nAuto-Submitted: auto-replied\r\n\r\nuser unknown", "sent", None, None),
        (b"From: mailer-daemon@x.example\r\nSubject: Undeliverable\r\n\r\nzxcv", "in_doubt", "unclassified", None),
        (b"From: jo@x.example\r\nSubject: Re: Offers\r\n\r\nI do not exist", "in_doubt", "unclassified", None),
    ],
)
def test_each_kind_of_mail_has_its_consequence_and_no_other(
    engine: Engine, workspace: Workspace, raw: bytes, state: str, event: str | None, suppressed: str | None
) -> None:
    [message] = sent_messages(engine, state="in_doubt")
    keep(engine, raw, recipient=bounce_address(workspace, message))
    process_inbox(engine, workspace, now=NOW)
    assert state_of(engine, message) == state
    assert rows(engine, message_events, "kind") == ([(event,)] if event else [])
    assert rows(engine, suppressions, "reason") == ([(suppressed,)] if suppressed else [])


def test_one_dead_person_behind_an_alias_does_not_kill_the_alias(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine)
    both = report().replace(
        b"\r\n--b\r\nContent-Type: message/rfc822",
        b"\r\nFinal-Recipient: rfc822; other@customer.example\r\nAction: failed\r\nStatus: 5.2.2\r\n"
        b"\r\n--b\r\nContent-Type: message/rfc822",
    )
    keep(engine, both, recipient=bounce_address(workspace, message))
    process_inbox(engine, workspace, now=NOW)
    assert rows(engine, suppressions, "address") == []
    assert rows(engine, message_events, "kind") == [("mailbox_full",), ("soft_bounced",)]


def test_a_poison_row_is_marked_and_blocks_nobody(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine)
    callback(engine, "gone", "receipt", query="ref=x")
    keep(engine, b"<xml/>", source=gateway_source("text"), kind="receipt", headers={"content-type": "text/xml"})
    keep(engine, b"x", source=gateway_source("text"), kind="receipt", headers="not a mapping", query=["odd"])
    callback(engine, "kannel", "receipt", query="type=99")
    keep(engine, b"\x00\xff" * 1000)
    keep(
        engine,
        report(words="550 5.1.1 \x00 unknown \udc80".encode("utf-8", "replace").decode()),
        recipient=bounce_address(workspace, message),
    )
    assert process_inbox(engine, workspace, now=NOW) == 6
    assert inbox_states(engine) == ["rejected"] * 4 + ["unclassified", "done"]
    notes = [note for _, note in rows(engine, inbox, "id", "note")]
    assert "no such SMS gateway" in notes[0]
    assert "none of Kannel's" in notes[3]
    assert process_inbox(engine, workspace, now=NOW) == 0


def test_several_readers_share_the_inbox_and_nothing_doubles(engine: Engine, workspace: Workspace) -> None:
    ids = sent_messages(engine, 60)
    for message in ids:
        keep(engine, report(to=f"user{message}@customer.example"), recipient=bounce_address(workspace, message))
    marked: list[int] = []
    readers = [
        threading.Thread(target=lambda: marked.append(process_inbox(engine, workspace, now=NOW))) for _ in range(3)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    process_inbox(engine, workspace, now=NOW)
    assert inbox_states(engine) == ["done"] * 60
    assert len(rows(engine, message_events, "id")) == 60
    assert len(rows(engine, suppressions, "address")) == 60


def test_a_limit_is_kept(sqlite_engine: Engine, workspace: Workspace) -> None:
    for number in range(50):
        keep(sqlite_engine, b"x", key=str(number))
    assert process_inbox(sqlite_engine, workspace, now=NOW, limit=30) == 30
    assert inbox_states(sqlite_engine).count("new") == 20


def test_a_receipt_that_overtakes_the_ledger_waits_for_it(engine: Engine, workspace: Workspace) -> None:
    early, other = sent_messages(engine, 2, lane="text", channel="sms")
    signer = workspace.signer()
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == early).values(state="planned"))
    for message in (early, other):
        body = {"client_ref": signer.address_token(message), "status": "delivered"}
        callback(engine, "text", "receipt", body=body)
    assert process_inbox(engine, workspace, now=NOW) == 1
    assert state_of(engine, other) == "delivered"
    assert inbox_states(engine) == ["new", "done"]
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == early).values(state="sent"))
    assert process_inbox(engine, workspace, now=NOW) == 1
    assert state_of(engine, early) == "delivered"


def test_a_receipt_does_not_wait_for_ever(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine, lane="text", channel="sms", state="planned")
    body = {"client_ref": workspace.signer().address_token(message), "status": "delivered"}
    callback(engine, "text", "receipt", body=body)
    assert process_inbox(engine, workspace, now=NOW + timedelta(hours=2)) == 1
    assert state_of(engine, message) == "planned"


# --- SMS -----------------------------------------------------------------------------------------------------


def test_receipts_move_messages_by_reference_or_by_the_gateways_id(engine: Engine, workspace: Workspace) -> None:
    ids = sent_messages(engine, 4, lane="text", channel="sms")
    signer = workspace.signer()
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.id == ids[1]).values(gateway_id="g-1"))
    callback(
        engine,
        "text",
        "receipt",
        body=[
            {"client_ref": signer.address_token(ids[0]), "status": "Delivered"},
            {"id": "g-1", "status": "failed"},
            {"client_ref": signer.address_token(ids[2]), "status": "accepted"},
        ],
    )
    callback(engine, "text", "receipt", body={"client_ref": str(ids[3]), "status": "delivered"})
    process_inbox(engine, workspace, now=NOW)
    assert [state_of(engine, message) for message in ids] == ["delivered", "bounced", "sent", "sent"]
    assert rows(engine, suppressions, "address") == []
    assert inbox_states(engine) == ["done", "unclassified"]


def test_a_gateway_speaks_only_of_messages_that_left_by_it(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine, lane="kannel", channel="sms")
    ref = workspace.signer().address_token(message)
    callback(engine, "text", "receipt", body={"client_ref": ref, "status": "failed"})
    process_inbox(engine, workspace, now=NOW)
    assert state_of(engine, message) == "sent"
    callback(engine, "kannel", "receipt", query=f"ref={ref}&type=8&answer=ACK%2F&id=1")
    callback(engine, "kannel", "receipt", query=f"ref={ref}&type=1&answer=&id=1")
    process_inbox(engine, workspace, now=NOW)
    assert state_of(engine, message) == "delivered"


def test_stop_takes_the_number_out_for_everybody_who_has_it(engine: Engine, workspace: Workspace) -> None:
    messages_sent = sent_messages(engine, 2, lane="kannel", channel="sms")
    with writing(engine) as connection:
        connection.execute(update(contacts).values(phone="+447900000001"))
    callback(engine, "kannel", "inbound", query="from=447900000001&text=%20Stop.%20")
    process_inbox(engine, workspace, now=NOW)
    assert rows(engine, suppressions, "channel", "address", "reason") == [("sms", "+447900000001", "stop")]
    assert [row for row in rows(engine, consents, "contact_id", "channel", "status") if row[2] == "withdrawn"] == [
        (message, "sms", "withdrawn") for message in messages_sent
    ]
    assert rows(engine, message_events, "kind", "message_id") == [("unsubscribed", messages_sent[1])]


def test_stop_from_a_number_we_never_wrote_to_still_counts(engine: Engine, workspace: Workspace) -> None:
    callback(engine, "text", "inbound", body={"from": "+8613800138000", "text": "退订"})
    process_inbox(engine, workspace, now=NOW)
    assert rows(engine, suppressions, "address", "reason") == [("+8613800138000", "stop")]
    assert inbox_states(engine) == ["done"]


def test_an_answer_that_holds_stop_among_other_words_is_an_answer(engine: Engine, workspace: Workspace) -> None:
    [message] = sent_messages(engine, lane="text", channel="sms")
    callback(engine, "text", "inbound", body={"from": "+447900000001", "text": "please don't stop"})
    process_inbox(engine, workspace, now=NOW)
    assert rows(engine, suppressions, "address") == []
    assert rows(engine, message_events, "kind", "message_id", "detail") == [("replied", message, "please don't stop")]


def test_start_gives_back_what_stop_took_once(engine: Engine, workspace: Workspace) -> None:
    sent_messages(engine, lane="text", channel="sms")

    def says(text: str, key: str) -> None:
        with writing(engine) as connection:
            says.minutes += 1  # type: ignore[attr-defined]  # a counter kept on the function
            connection.execute(
                insert(inbox).values(
                    key=key,
                    source=gateway_source("text"),
                    body=json.dumps({"from": "+447900000001", "text": text}).encode(),
                    meta={"kind": "inbound", "query": "", "headers": {"content-type": "application/json"}},
                    received_at=NOW + timedelta(minutes=says.minutes),  # type: ignore[attr-defined]  # as above
                    state="new",
                )
            )
        process_inbox(engine, workspace, now=NOW + timedelta(hours=1))

    says.minutes = 0  # type: ignore[attr-defined]  # as above
    says("STOP", "1")
    says("START", "2")
    assert rows(engine, suppressions, "address") == []
    assert {status for (status,) in rows(engine, consents, "status")} == {"granted"}
    says("STOP", "3")
    says("START", "4")  # The gateway repeats its callback, hours later: the person said it before the second STOP.
    assert rows(engine, suppressions, "reason") == [("stop",)]
    assert ("sms", "withdrawn") in rows(engine, consents, "channel", "status")


def test_start_does_not_undo_what_was_withdrawn_elsewhere(engine: Engine, workspace: Workspace) -> None:
    sent_messages(engine, lane="text", channel="sms")
    with writing(engine) as connection:
        connection.execute(update(consents).values(status="withdrawn", source="preference page:message 1"))
    callback(engine, "text", "inbound", body={"from": "+447900000001", "text": "start"})
    process_inbox(engine, workspace, now=NOW)
    assert {status for (status,) in rows(engine, consents, "status")} == {"withdrawn"}


# --- replay --------------------------------------------------------------------------------------------------


def test_everything_twice_and_in_any_order_ends_the_same(engine: Engine, workspace: Workspace) -> None:
    mails = sent_messages(engine, 3, name="mail")
    texts = sent_messages(engine, 3, lane="text", channel="sms", name="text")
    signer, before = workspace.signer(), everything(engine)
    arrivals: list[tuple[str, dict[str, Any]]] = []
    for number, message in enumerate(mails):
        address = bounce_address(workspace, message)
        raws = (
            report(action="delayed", status="4.4.1"),
            report(to=f"user{message}@customer.example"),
            report(status="5.2.2", words="full"),
            complaint(),
        )
        arrivals += [("mail", {"raw": raw, "recipient": address}) for raw in raws[: number + 2]]
    for message in texts:
        for status in ("accepted", "delivered", "failed"):
            body = {"client_ref": signer.address_token(message), "status": status}
            arrivals.append(("receipt", {"body": body}))
        arrivals.append(("inbound", {"body": {"from": f"+4479{message:08d}", "text": "Stop"}}))
        arrivals.append(("inbound", {"body": {"from": f"+4479{message:08d}", "text": "who is this?"}}))
    dice, ends = random.Random(5), []
    for _ in range(3):
        for number, (kind, what) in enumerate(dice.sample(arrivals * 2, len(arrivals) * 2)):
            if kind == "mail":
                keep(engine, what["raw"], recipient=what["recipient"], key=str(number))
            else:
                callback(engine, "text", kind, body=what["body"], key=str(number))
        process_inbox(engine, workspace, now=NOW)
        end = everything(engine)
        end.pop("inbox")
        ends.append(end)
        _reset(engine, before)
    assert ends[0] == ends[1] == ends[2]
    assert len(ends[0]["suppressions"]) == 3 + 1 + 3, "one of them bounced and complained: two reasons"
    assert len(ends[0]["suppression_words"]) == len(ends[0]["suppressions"])


def _reset(engine: Engine, before: dict[str, list[tuple[Any, ...]]]) -> None:
    from store.tables import consent_events

    with writing(engine) as connection:
        for table in (message_events, suppressions, suppression_words, consent_events, inbox):
            connection.execute(delete(table))
        connection.execute(update(messages).values(state="sent", ended_at=SENT_AT))
        at = before["consents"][0][3]
        connection.execute(update(consents).values(status="granted", at=at, source=""))
    assert everything(engine) == before


def test_the_bounce_process_says_it_is_ready_and_ends_well_when_told_to(tmp_path: Path) -> None:
    root = tmp_path / "served"
    text = WORKSPACE_YAML.replace("inbound: {", "inbound: {smtp_port: 0, ")
    workspace = make_workspace(root, text=text)
    engine = open_database(workspace.database_url)
    migrate(engine)
    engine.dispose()
    code = (
        "import pathlib, kernel.settings, workers.inbound.listener as door;"
        f"door.serve_bounces(kernel.settings.load_workspace(pathlib.Path({str(root)!r})))"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], env={**os.environ, **SECRETS}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "bounce_door_ready" in line)
        port = re.sub(r"\x1b\[[0-9;]*m", "", line).rpartition("port=")[2].split()[0]
        with smtplib.SMTP("127.0.0.1", int(port), timeout=20) as client:
            assert client.noop()[0] == 250
        assert (root / ".carillon" / "run" / "inbound.ready").read_text(encoding="ascii") == str(process.pid)
        process.terminate()
        assert process.wait(20) == 0


def test_without_a_port_the_bounce_process_says_what_to_set(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="smtp_port"):
        serve_bounces(workspace)
