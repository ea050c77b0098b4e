"""TLS on the way out, against a real server with certificates of our own making."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller

from kernel.errors import GatewayDown
from kernel.gateways import SmtpGateway
from tests.contract.test_channels import free_port, mail
from tests.servers.flights import RememberingFlight
from tests.servers.smtp_sink import Sink, SinkServer
from workers.channels.smtp import SmtpChannel


class Keeping:
    """An aiosmtpd handler that keeps envelopes."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        assert session.ssl is not None
        self.envelopes.append(envelope)
        return "250 2.0.0 ok"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(made)
    return made


class StartTls:
    """A server that insists on STARTTLS."""

    def __init__(self, authority: trustme.CA, name: str) -> None:
        self.handler = Keeping()
        self.port = free_port()
        self._controller = Controller(
            self.handler,
            hostname="127.0.0.1",
            port=self.port,
            require_starttls=True,
            tls_context=context(authority, name),
        )

    def __enter__(self) -> StartTls:
        self._controller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._controller.stop()


@pytest.fixture
def starttls(authority: trustme.CA) -> Iterator[StartTls]:
    with StartTls(authority, "127.0.0.1") as server:
        yield server


def channel(port: int, tls: str, ca_file: str | None) -> SmtpChannel:
    return SmtpChannel(
        SmtpGateway.model_validate(
            {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": tls, "ca_file": ca_file, "timeout": "5s"}
        )
    )


def test_starttls_with_a_trusted_certificate_delivers(starttls: StartTls, ca_file: str) -> None:
    sender = channel(starttls.port, "starttls", ca_file)
    flight = RememberingFlight()
    sender.deliver([mail("a@x.example", 0), mail("b@x.example", 1)], flight, lambda: True)
    sender.close()
    assert flight.endings == {0: "accepted", 1: "accepted"}
    assert [envelope.rcpt_tos for envelope in starttls.handler.envelopes] == [["a@x.example"], ["b@x.example"]]


def test_an_untrusted_certificate_is_refused_and_nothing_is_said(starttls: StartTls) -> None:
    with pytest.raises(GatewayDown, match=r"(?i)certificate") as caught:
        channel(starttls.port, "starttls", None).deliver([mail("a@x.example")], RememberingFlight(), lambda: True)
    assert caught.value.lasting
    assert starttls.handler.envelopes == []


def test_a_certificate_for_another_name_is_refused(authority: trustme.CA, ca_file: str) -> None:
    with StartTls(authority, "elsewhere.example") as server:
        with pytest.raises(GatewayDown, match=r"(?i)mismatch|doesn't match|certificate"):
            channel(server.port, "starttls", ca_file).deliver([mail("a@x.example")], RememberingFlight(), lambda: True)
        assert server.handler.envelopes == []


def test_implicit_tls_delivers_to_a_trusted_server_only(authority: trustme.CA, ca_file: str) -> None:
    with SinkServer(Sink(tls=context(authority, "127.0.0.1"))) as server:
        sender = channel(server.port, "implicit", ca_file)
        flight = RememberingFlight()
        sender.deliver([mail("a@x.example")], flight, lambda: True)
        sender.close()
        assert flight.endings == {0: "accepted"}
        with pytest.raises(GatewayDown, match="TLS failed"):
            channel(server.port, "implicit", None).deliver([mail("a@x.example")], RememberingFlight(), lambda: True)


def test_implicit_tls_carries_a_long_body_and_many_messages_as_they_are(authority: trustme.CA, ca_file: str) -> None:
    long = b"Message-ID: <m0@x>\r\n\r\n" + b"".join(b".%d dots\r\n" % number for number in range(100_000))
    with SinkServer(Sink(tls=context(authority, "127.0.0.1"), extensions=(b"PIPELINING",))) as server:
        sender = channel(server.port, "implicit", ca_file)
        flight = RememberingFlight()
        parcels = [mail(f"a+{index}@x.example", index) for index in range(1, 60)]
        content = replace(mail("a@x.example", 0).content, data=long)  # type: ignore[type-var]
        sender.deliver([replace(mail("a@x.example", 0), content=content), *parcels], flight, lambda: True)
        sender.close()
    assert len(flight.endings) == 60
    assert set(flight.endings.values()) == {"accepted"}
    assert long in server.sink.bodies


def test_a_certificate_that_has_expired_is_refused(authority: trustme.CA, ca_file: str) -> None:
    expired = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)).configure_cert(expired)
    with SinkServer(Sink(tls=expired)) as server:
        with pytest.raises(GatewayDown, match="expired") as caught:
            channel(server.port, "implicit", ca_file).deliver([mail("a@x.example")], RememberingFlight(), lambda: True)
        assert caught.value.lasting
        assert server.sink.commands == []


def test_a_handshake_that_hangs_is_given_up(ca_file: str) -> None:
    with SinkServer(Sink(faults={"banner": "silence"})) as server:
        gateway = SmtpGateway.model_validate(
            {"type": "smtp", "host": "127.0.0.1", "port": server.port, "tls": "implicit", "timeout": "1s"}
        )
        with pytest.raises(GatewayDown, match=r"no connection|TLS"):
            SmtpChannel(gateway).deliver([mail("a@x.example")], RememberingFlight(), lambda: True)


def test_a_connection_lost_under_tls_is_judged_by_its_stage(authority: trustme.CA, ca_file: str) -> None:
    with SinkServer(Sink(tls=context(authority, "127.0.0.1"))) as server:
        sender = channel(server.port, "implicit", ca_file)
        flight = RememberingFlight()
        parcels = [
            mail(f"at.{stage}.{action}+{index}@x.example", index)
            for index, (stage, action) in enumerate(
                [("rcpt", "rst"), ("data", "close"), ("dot", "rst"), ("kept", "close")]
            )
        ]
        sender.deliver([*parcels, mail("a@x.example", 4)], flight, lambda: True)
        sender.close()
    assert flight.endings == {0: "deferred", 1: "deferred", 2: "unknown", 3: "unknown", 4: "accepted"}
