"""What each failure at each stage of the SMTP dialogue means (RFC 5321; stages S3 to S8)."""

from __future__ import annotations

import time

import pytest

from kernel.errors import GatewayDown
from kernel.gateways import SmtpGateway
from templates.mail import ComposedMail
from tests.contract.test_channels import mail
from tests.servers.flights import RememberingFlight
from tests.servers.smtp_sink import Sink, SinkServer
from workers.channels.port import Parcel
from workers.channels.smtp import SmtpChannel


def gateway(port: int, **more: object) -> SmtpGateway:
    return SmtpGateway.model_validate(
        {
            "type": "smtp",
            "host": "127.0.0.1",
            "port": port,
            "tls": "none",
            "timeout": "5s",
            "final_timeout": "5s",
            **more,
        }
    )


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        ("rcpt550", "refused"),
        ("rcpt450", "deferred"),
        ("rcptdrop", "deferred"),
        ("data451", "deferred"),
        ("data554", "refused"),
        ("datadrop", "deferred"),
        ("body450", "deferred"),
        ("body550", "refused"),
        ("dotdrop", "unknown"),
        ("dotlose", "unknown"),
        ("bodygarbage", "unknown"),
    ],
)
def test_each_stage_has_its_meaning_and_the_next_message_still_leaves(fault: str, ending: str) -> None:
    with SinkServer(Sink()) as server:
        channel = SmtpChannel(gateway(server.port))
        flight = RememberingFlight()
        channel.deliver(
            [mail("a+0@x.example", 0), mail(f"{fault}+1@x.example", 1), mail("b+2@x.example", 2)], flight, lambda: True
        )
        channel.close()
    assert flight.endings == {0: "accepted", 1: ending, 2: "accepted"}
    if ending != "unknown" and not fault.startswith("body"):
        assert 1 not in flight.committed


@pytest.mark.parametrize(
    ("fault", "lasting"), [("rcpt421", False), ("rcptpolicy", True), ("body421", False), ("bodypolicy", True)]
)
def test_refusals_that_blame_us_or_the_host_harm_no_message(fault: str, lasting: bool) -> None:
    with SinkServer(Sink()) as server:
        channel = SmtpChannel(gateway(server.port))
        flight = RememberingFlight()
        with pytest.raises(GatewayDown) as caught:
            channel.deliver([mail(f"{fault}+0@x.example", 0)], flight, lambda: True)
        channel.close()
    assert caught.value.lasting is lasting
    assert flight.endings == {}
    assert set(flight.committed) <= set(flight.retracted)


def test_a_refused_sender_closes_the_lane() -> None:
    with SinkServer(Sink()) as server:
        parcel = mail("a@x.example")
        assert isinstance(parcel.content, ComposedMail)
        content = ComposedMail(
            envelope_from="mail451@acme.example",
            envelope_to="a@x.example",
            message_id_header="<1@x>",
            subject="hi",
            data=parcel.content.data,
        )
        with pytest.raises(GatewayDown):
            SmtpChannel(gateway(server.port)).deliver(
                [Parcel(index=0, message_id=1, ref="", content=content)], RememberingFlight(), lambda: True
            )


def test_one_connection_carries_many_messages_and_is_renewed_at_its_cap() -> None:
    with SinkServer(Sink()) as server:
        channel = SmtpChannel(gateway(server.port, messages_per_connection=10, connections=1))
        flight = RememberingFlight()
        channel.deliver([mail(f"a+{i}@x.example", i) for i in range(25)], flight, lambda: True)
        channel.close()
        assert server.sink.connections == 3
        assert len(server.sink.accepted) == 25


def test_a_connection_the_server_closed_while_idle_costs_nothing() -> None:
    with SinkServer(Sink(close_after=2)) as server:
        channel = SmtpChannel(gateway(server.port))
        flight = RememberingFlight()
        channel.deliver([mail(f"a+{i}@x.example", i) for i in range(6)], flight, lambda: True)
        channel.close()
        assert set(flight.endings.values()) == {"accepted"}
        assert [message_id for message_id, _, _ in server.sink.accepted] == [f"<m{i}@x>" for i in range(6)]


def test_the_body_arrives_byte_for_byte_with_leading_dots() -> None:
    with SinkServer(Sink()) as server:
        channel = SmtpChannel(gateway(server.port))
        parcel = mail("a@x.example")
        channel.deliver([parcel], RememberingFlight(), lambda: True)
        channel.close()
        assert isinstance(parcel.content, ComposedMail)
        assert server.sink.bodies == [parcel.content.data]


def test_a_wrong_password_is_the_operators_to_mend() -> None:
    with SinkServer(Sink(auth=("user", "right"))) as server:
        good = SmtpChannel(gateway(server.port, username="user", password="right"))
        flight = RememberingFlight()
        good.deliver([mail("a@x.example")], flight, lambda: True)
        good.close()
        assert flight.endings == {0: "accepted"}
        bad = SmtpChannel(gateway(server.port, username="user", password="wrong"))
        with pytest.raises(GatewayDown) as caught:
            bad.deliver([mail("a@x.example")], RememberingFlight(), lambda: True)
        assert caught.value.lasting
        assert "wrong" not in str(caught.value).replace("5.7.8 wrong", "")


def test_nothing_is_sent_in_clear_where_starttls_is_missing() -> None:
    with SinkServer(Sink()) as server:
        with pytest.raises(GatewayDown, match="STARTTLS") as caught:
            SmtpChannel(gateway(server.port, tls="starttls")).deliver(
                [mail("a@x.example")], RememberingFlight(), lambda: True
            )
        assert caught.value.lasting
        assert server.sink.accepted == []


def test_an_address_that_needs_smtputf8_is_refused_where_the_relay_lacks_it() -> None:
    with SinkServer(Sink(extensions=(b"8BITMIME",))) as server:
        content = ComposedMail(
            envelope_from="b@acme.example",
            envelope_to="zoë@x.example",
            message_id_header="<1@x>",
            subject="hi",
            data=b"Subject: hi\r\n\r\nx\r\n",
            needs_smtputf8=True,
        )
        channel = SmtpChannel(gateway(server.port))
        flight = RememberingFlight()
        channel.deliver(
            [Parcel(index=0, message_id=1, ref="", content=content), mail("a@x.example", 1)], flight, lambda: True
        )
        channel.close()
        assert flight.endings == {0: "refused", 1: "accepted"}
        assert flight.errors[0].enhanced == "5.6.7"


def test_a_relay_that_does_not_answer_quit_is_not_waited_for() -> None:
    with SinkServer(Sink(answers_quit=False)) as server:
        channel = SmtpChannel(gateway(server.port, timeout="10min"))
        flight = RememberingFlight()
        channel.deliver([mail("a+0@x.example", 0)], flight, lambda: True)
        started = time.monotonic()
        channel.close()
    assert time.monotonic() - started < 10
    assert flight.endings == {0: "accepted"}
