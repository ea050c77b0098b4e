"""The demo's mailbox: real SMTP in, .eml files out."""

from __future__ import annotations

import json
import smtplib
import threading
from pathlib import Path

import pytest

from demo.mailbox import running_mailbox

MAIL = (
    b"From: shop@northgate.example\r\nTo: kim@oak.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Message-ID: <m1.abc@northgate.example>\r\n\r\nHello\r\n.dot\r\n"
)


def test_it_keeps_the_bytes_and_the_envelope(tmp_path: Path) -> None:
    with running_mailbox(tmp_path) as mailbox:
        with smtplib.SMTP("127.0.0.1", mailbox.port) as client:
            client.sendmail("bounce+abc@northgate.example", ["kim@oak.example"], MAIL)
        assert mailbox.wait_for(1, 10)
        (received,) = mailbox.messages()
    assert (received.mail_from, received.rcpt_to) == ("bounce+abc@northgate.example", "kim@oak.example")
    assert received.message_id == "<m1.abc@northgate.example>"
    assert received.subject == "Grüße"
    assert (tmp_path / received.file).read_bytes() == MAIL
    (line,) = (tmp_path / "index.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["file"] == received.file


def test_it_refuses_and_puts_off_whom_it_was_told_to(tmp_path: Path) -> None:
    with (
        running_mailbox(
            tmp_path,
            refuses=lambda address: address.startswith("gone@"),
            defers_once=lambda address: address.startswith("grey@"),
        ) as mailbox,
        smtplib.SMTP("127.0.0.1", mailbox.port) as client,
    ):
        client.helo()
        for address, codes in (("gone@oak.example", (550, 550)), ("grey@oak.example", (451, 250))):
            for code in codes:
                client.mail("bounce@northgate.example")
                assert client.rcpt(address)[0] == code
                client.rset()
        assert mailbox.messages() == []
        assert set(mailbox.refused) == {"gone@oak.example"}
        assert mailbox.deferred == {"grey@oak.example"}


def test_it_takes_many_messages_from_several_connections_at_once(tmp_path: Path) -> None:
    each, connections = 100, 4
    with running_mailbox(tmp_path) as mailbox:

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", mailbox.port) as client:
                for _ in range(each):
                    client.sendmail("bounce@northgate.example", ["kim@oak.example"], MAIL)

        threads = [threading.Thread(target=send) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(mailbox.messages()) == each * connections
    assert max(path.name for path in tmp_path.glob("*.eml")) == f"{each * connections:06d}.eml"


def test_stopping_it_closes_the_port(tmp_path: Path) -> None:
    with running_mailbox(tmp_path) as mailbox:
        port = mailbox.port
    with pytest.raises(OSError, match="refused"):
        smtplib.SMTP("127.0.0.1", port, timeout=5)
