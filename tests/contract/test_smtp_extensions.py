"""What a server offers is used as offered, and done without where it is not.

RFC 1870, 3030, 3461, 4954, 6152 and 6531.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from kernel.errors import GatewayDown
from kernel.gateways import SmtpGateway
from templates.mail import ComposedMail
from tests.contract.test_smtp_faults import parcel, tell
from tests.contract.test_smtp_stages import gateway
from tests.servers.flights import RememberingFlight
from tests.servers.smtp_sink import Sink, SinkServer
from workers.channels.port import Parcel
from workers.channels.smtp import SmtpChannel

ALL = (b"PIPELINING", b"SIZE 100000", b"8BITMIME", b"SMTPUTF8", b"DSN", b"CHUNKING")


def changed(index: int = 0, **changes: object) -> Parcel:
    made = parcel(index)
    assert isinstance(made.content, ComposedMail)
    return replace(made, content=replace(made.content, **changes))  # type: ignore[arg-type]


def test_an_old_server_that_knows_helo_alone_gets_plain_smtp() -> None:
    sink = Sink(esmtp=False, extensions=())
    told = tell(sink, [parcel(0), parcel(1, stage="rcpt", action="550"), parcel(2)])
    assert told.flight.endings == {0: "accepted", 1: "refused", 2: "accepted"}
    assert sink.violations == []
    assert sink.commands[1].startswith("HELO ")
    assert sink.commands[2] == "MAIL FROM:<b@acme.example>"


@pytest.mark.parametrize("extensions", [(), *[(one,) for one in ALL], ALL])
def test_any_server_gets_the_bytes_as_they_are(extensions: tuple[bytes, ...]) -> None:
    data = b"Message-ID: <m0@x>\r\n\r\n.a\r\n..b\r\n.\r\nlast"
    sink = Sink(extensions=extensions)
    told = tell(sink, [changed(0, data=data), parcel(1)], dsn=True)
    assert told.flight.endings == {0: "accepted", 1: "accepted"}
    assert sink.violations == []
    assert sink.bodies[0] in (data, data + b"\r\n")
    assert any(command.startswith("BDAT") for command in sink.commands) is (b"CHUNKING" in extensions)


def test_a_body_that_begins_with_a_dot_and_is_nothing_else_arrives() -> None:
    sink = Sink()
    tell(sink, [changed(0, data=b".\r\n")])
    assert sink.bodies == [b".\r\n"]


def test_the_size_is_declared_and_what_is_too_big_is_not_even_tried() -> None:
    sink = Sink(extensions=ALL)
    told = tell(sink, [changed(0, data=b"x" * 100_001), parcel(1)])
    assert told.flight.endings == {0: "refused", 1: "accepted"}
    assert told.flight.errors[0].enhanced == "5.3.4"
    assert [command for command in sink.commands if command.startswith("MAIL")] == [
        "MAIL FROM:<b@acme.example> SIZE=54"
    ]


def test_eight_bits_are_declared_or_the_message_is_refused() -> None:
    data = "Message-ID: <m0@x>\r\n\r\nZoë\r\n".encode()
    sink = Sink(extensions=ALL)
    assert tell(sink, [changed(0, data=data)]).flight.endings == {0: "accepted"}
    assert "BODY=8BITMIME" in sink.commands[1]
    told = tell(Sink(extensions=(b"PIPELINING",)), [changed(0, data=data), parcel(1)])
    assert told.flight.endings == {0: "refused", 1: "accepted"}
    assert told.flight.errors[0].enhanced == "5.6.3"


def test_an_address_beyond_ascii_goes_to_servers_that_know_smtputf8_only() -> None:
    sink = Sink(extensions=ALL)
    told = tell(sink, [changed(0, envelope_to="zoë@x.example", needs_smtputf8=True)], dsn=True)
    assert told.flight.endings == {0: "accepted"}
    assert sink.commands[1].endswith(" SMTPUTF8 RET=HDRS ENVID=m0@x")
    assert sink.commands[2] == r"RCPT TO:<zoë@x.example> NOTIFY=FAILURE,DELAY ORCPT=utf-8;zo\x{EB}@x.example"


def test_notifications_are_asked_for_where_wanted_and_offered() -> None:
    sink = Sink(extensions=ALL)
    tell(sink, [changed(0, envelope_to="a+b=c@x.example")], dsn=True)
    assert sink.commands[1].endswith(" RET=HDRS ENVID=m0@x")
    assert sink.commands[2] == "RCPT TO:<a+b=c@x.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+2Bb+3Dc@x.example"
    for extensions, dsn in ((ALL, False), ((b"PIPELINING",), True)):
        plain = Sink(extensions=extensions)
        tell(plain, [parcel(0)], dsn=dsn)
        assert not [command for command in plain.commands if "NOTIFY" in command or "ENVID" in command]


@pytest.mark.parametrize(
    "address",
    [
        "a@x.example>\r\nRCPT TO:<b@x.example",
        "a@x.example\r\nDATA",
        "a\x00b@x.example",
        "a b@x.example",
        "<a@x.example>",
        "",
        "a" * 65 + "@x.example",
        "a@" + "x" * 256,
    ],
)
def test_an_address_that_would_say_more_than_an_address_is_refused_here(address: str) -> None:
    sink = Sink()
    told = tell(sink, [changed(0, envelope_to=address), parcel(1)])
    assert told.flight.endings == {0: "refused", 1: "accepted"}
    assert told.flight.errors[0].enhanced == "5.1.3"
    assert sum(command.startswith("RCPT") for command in sink.commands) == 1


# --- logging in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5"])
def test_every_mechanism_logs_in_and_a_wrong_password_is_the_operators_to_mend(mechanism: str) -> None:
    sink = Sink(auth=("zoë", "pässword"), mechanisms=mechanism.upper().encode())
    right = tell(sink, [parcel(0)], username="zoë", password="pässword")
    assert right.flight.endings == {0: "accepted"}
    wrong = tell(sink, [parcel(0)], username="zoë", password="sesame", auth=mechanism)
    assert wrong.down is not None
    assert wrong.down.lasting
    assert "sesame" not in wrong.down.text
    assert wrong.flight.endings == {}


def test_a_mechanism_the_server_lacks_is_told_with_what_it_offers() -> None:
    told = tell(Sink(auth=("u", "p"), mechanisms=b"LOGIN"), [parcel(0)], username="u", password="p", auth="plain")
    assert told.down is not None
    assert "no AUTH PLAIN (it offers LOGIN)" in told.down.text


def test_a_token_of_the_environment_logs_in() -> None:
    sink = Sink(auth=("u@x", "t0ken"), mechanisms=b"XOAUTH2 PLAIN")
    assert tell(sink, [parcel(0)], username="u@x", token="t0ken", auth="xoauth2").flight.endings == {0: "accepted"}
    refused = tell(sink, [parcel(0)], username="u@x", token="old", auth="xoauth2")
    assert refused.down is not None
    assert refused.down.lasting


def test_a_token_that_has_run_out_is_read_again_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    sink = Sink(auth=("u@x", "first"), mechanisms=b"XOAUTH2")
    with SinkServer(sink) as server:
        channel = SmtpChannel(
            gateway(server.port, username="u@x", auth="xoauth2", token_file=str(file), messages_per_connection=1)
        )
        flight = RememberingFlight()
        channel.deliver([parcel(0)], flight, lambda: True)
        sink.auth = ("u@x", "second")
        with pytest.raises(GatewayDown, match="535"):
            channel.deliver([parcel(1)], flight, lambda: True)
        file.write_text("second\n")
        channel.deliver([parcel(1)], flight, lambda: True)
        channel.close()
    assert flight.endings == {0: "accepted", 1: "accepted"}


def test_a_command_may_print_the_token_and_its_failure_is_told_without_what_it_said(tmp_path: Path) -> None:
    script = tmp_path / "token.py"
    script.write_text("print('t0ken')")
    sink = Sink(auth=("u@x", "t0ken"), mechanisms=b"XOAUTH2")
    good = tell(sink, [parcel(0)], username="u@x", auth="xoauth2", token_command=f"{sys.executable} {script}")
    assert good.flight.endings == {0: "accepted"}
    script.write_text("import sys; print('t0ken'); sys.exit(1)")
    bad = tell(sink, [parcel(0)], username="u@x", auth="xoauth2", token_command=f"{sys.executable} {script}")
    assert bad.down is not None
    assert bad.down.lasting
    assert "t0ken" not in bad.down.text


@pytest.mark.parametrize(
    "settings",
    [
        {"auth": "xoauth2", "username": "u"},
        {"auth": "xoauth2", "token": "t"},
        {"auth": "xoauth2", "username": "u", "token": "t", "token_file": "f"},
        {"auth": "plain", "username": "u", "token": "t"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="xoauth2"):
        SmtpGateway.model_validate({"type": "smtp", "host": "h", **settings})


# --- STARTTLS that is not what it seems ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "says", "lasting"),
    [
        (b"454 4.7.0 not now\r\n", "nothing is sent in clear", False),
        (b"501 5.5.4 no\r\n", "nothing is sent in clear", True),
        (b"220 go\r\n250-x\r\n250 AUTH PLAIN\r\n", "more than it was asked", False),
        (b"220 go\r\n250 par", "more than it was asked", False),
        (b"220 go\r\n", "no answer|TLS|handshake", False),
    ],
)
def test_a_starttls_that_fails_or_is_tampered_with_sends_nothing_in_clear(
    answer: bytes, says: str, lasting: bool
) -> None:
    sink = Sink(extensions=(b"PIPELINING", b"STARTTLS"), starttls=answer, auth=("u", "p"))
    told = tell(sink, [parcel(0)], tls="starttls", username="u", password="p", timeout="1s")
    assert told.down is not None
    assert told.down.lasting is lasting
    assert re.search(says, told.down.text), told.down.text
    assert [command.split()[0] for command in sink.commands if command.isascii() and command.isprintable()][:2] == [
        "EHLO",
        "STARTTLS",
    ]
    assert not [command for command in sink.commands if command.startswith(("AUTH", "MAIL"))]
