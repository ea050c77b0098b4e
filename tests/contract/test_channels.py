"""One suite for every way out. A new provider adds a rig (how it behaves → an adapter facing it) and no test."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from kernel.errors import GatewayDown
from kernel.gateways import HttpGateway, HttpReply, KannelGateway, SmppGateway, SmtpGateway
from templates.mail import ComposedMail
from templates.sms import ComposedSms
from templates.sms_parts import split
from tests.acceptance.processes import wait_for
from tests.servers import sms_providers
from tests.servers.flights import RememberingFlight
from tests.servers.sms_adapters import aliyun, tencent, twilio, vonage
from tests.servers.sms_providers import ProviderServer
from tests.servers.sms_stub import JSON_ANSWERS, KANNEL_ANSWERS, SmsStub
from tests.servers.smsc import Smsc
from tests.servers.smtp_sink import Sink, SinkServer
from workers.channels.http import HttpChannel
from workers.channels.kannel import KannelChannel
from workers.channels.port import Channel, Parcel
from workers.channels.smpp import SmppChannel
from workers.channels.smtp import SmtpChannel


def mail(recipient: str, index: int = 0) -> Parcel:
    data = b"Message-ID: <m%d@x>\r\nSubject: hi\r\n\r\n.leading dot\r\nbye\r\n" % index
    content = ComposedMail(
        envelope_from="bounce@acme.example",
        envelope_to=recipient,
        message_id_header=f"<m{index}@x>",
        subject="hi",
        data=data,
    )
    return Parcel(index=index, message_id=100 + index, ref="r", content=content)


def sms(text: str, index: int = 0) -> Parcel:
    parts = split(text)
    content = ComposedSms(address="+4915112345678", text=text, parts=len(parts.parts), encoding=parts.encoding)
    return Parcel(index=index, message_id=100 + index, ref=f"ref{index}", content=content)


@dataclass
class Rig:
    """An adapter facing a gateway, and how to make a parcel the gateway treats in a given way."""

    channel: Channel
    parcel: Callable[[str, int], Parcel]


def smtp_rig(stack: ExitStack) -> Rig:
    server = stack.enter_context(SinkServer(Sink()))
    faults = {"accept": "ann", "refuse": "rcpt550", "defer": "rcpt450", "down": "rcpt421", "lost": "dotdrop"}
    gateway = SmtpGateway(type="smtp", host="127.0.0.1", port=server.port, tls="none", timeout="5s")
    return Rig(SmtpChannel(gateway), lambda what, index: mail(f"{faults[what]}+{index}@x.example", index))


def http_gateway(port: int) -> HttpGateway:
    return HttpGateway(
        type="http",
        url=f"http://127.0.0.1:{port}/send",
        json_body={"to": "{to}", "text": "{text}", "ref": "{ref}"},
        reply=HttpReply(status="result.status", accepted=["0"], transient=["1"], gateway_id="result.id"),
        timeout="5s",
    )


def http_rig(stack: ExitStack) -> Rig:
    server = stack.enter_context(SmsStub(JSON_ANSWERS))
    words = {"accept": "accept", "refuse": "refuse", "defer": "status-throttled", "down": "busy", "lost": "drop"}
    return Rig(HttpChannel(http_gateway(server.port), receipt_url=""), lambda what, index: sms(words[what], index))


def kannel_rig(stack: ExitStack) -> Rig:
    server = stack.enter_context(SmsStub(KANNEL_ANSWERS))
    words = {"accept": "accept", "refuse": "refuse", "defer": "", "down": "busy", "lost": "drop"}
    gateway = KannelGateway.model_validate(
        {
            "type": "kannel",
            "url": f"http://127.0.0.1:{server.port}/cgi-bin/sendsms",
            "username": "u",
            "password": "p",
            "timeout": "5s",
        }
    )
    return Rig(KannelChannel(gateway, receipt_url="http://127.0.0.1/r"), lambda what, index: sms(words[what], index))


def smpp_gateway(port: int) -> SmppGateway:
    return SmppGateway.model_validate(
        {
            "type": "smpp",
            "host": "127.0.0.1",
            "port": port,
            "tls": "none",
            "system_id": "carillon",
            "password": "secret",
            "window": 1,
            "timeout": "5s",
        }
    )


def smpp_rig(stack: ExitStack) -> Rig:
    server = stack.enter_context(Smsc())
    words = {"accept": "accept", "refuse": "refuse", "defer": "defer", "down": "throttle", "lost": "drop"}
    channel = SmppChannel(smpp_gateway(server.port), keep=None, first_pause_s=0.002)
    return Rig(channel, lambda what, index: sms(words[what], index))


def twilio_rig(stack: ExitStack) -> Rig:
    server = stack.enter_context(ProviderServer(sms_providers.twilio))
    words = {"accept": "accept", "refuse": "21211", "defer": "http500", "down": "20429", "lost": "drop"}
    return Rig(twilio(server.url), lambda what, index: sms(words[what], index))


def vonage_rig(stack: ExitStack) -> Rig:
    server = stack.enter_context(ProviderServer(sms_providers.vonage))
    words = {"accept": "accept", "refuse": "6", "defer": "5", "down": "1", "lost": "drop"}
    return Rig(vonage(server.url), lambda what, index: sms(words[what], index))


def aliyun_rig(stack: ExitStack) -> Rig:
    server = stack.enter_context(ProviderServer(sms_providers.Aliyun()))
    words = {
        "accept": "accept",
        "refuse": "isv.MOBILE_NUMBER_ILLEGAL",
        "defer": "isv.BUSINESS_LIMIT_CONTROL",
        "down": "Throttling.User",
        "lost": "drop",
    }
    return Rig(aliyun(server.url), lambda what, index: sms(f"name: {words[what]}", index))


def tencent_rig(stack: ExitStack) -> Rig:
    server = stack.enter_context(ProviderServer(sms_providers.tencent))
    words = {
        "accept": "accept",
        "refuse": "InvalidParameterValue.IncorrectPhoneNumber",
        "defer": "LimitExceeded.PhoneNumberDailyLimit",
        "down": "Error RequestLimitExceeded",
        "lost": "drop",
    }
    return Rig(tencent(server.url), lambda what, index: sms(f"1: {words[what]}", index))


RIGS = {
    "smtp": smtp_rig,
    "http": http_rig,
    "kannel": kannel_rig,
    "smpp": smpp_rig,
    "twilio": twilio_rig,
    "vonage": vonage_rig,
    "aliyun": aliyun_rig,
    "tencent": tencent_rig,
}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with ExitStack() as stack:
        made = RIGS[request.param](stack)
        yield made
        made.channel.close()


def test_an_accepted_message_is_committed_before_and_accepted_after(rig: Rig) -> None:
    flight = RememberingFlight()
    rig.channel.deliver([rig.parcel("accept", 0), rig.parcel("accept", 1)], flight, lambda: True)
    assert flight.committed == [0, 1]
    assert flight.endings == {0: "accepted", 1: "accepted"}
    assert flight.receipts[0].reply


def test_a_refused_message_harms_only_itself(rig: Rig) -> None:
    flight = RememberingFlight()
    rig.channel.deliver([rig.parcel("refuse", 0), rig.parcel("accept", 1)], flight, lambda: True)
    assert flight.endings == {0: "refused", 1: "accepted"}


def test_a_gateway_that_closes_leaves_the_rest_untouched(rig: Rig) -> None:
    flight = RememberingFlight()
    with pytest.raises(GatewayDown):
        rig.channel.deliver(
            [rig.parcel("accept", 0), rig.parcel("down", 1), rig.parcel("accept", 2)], flight, lambda: True
        )
    # A channel with many under way may have had the third out by then; whatever it was not told of was not sent.
    assert flight.endings in ({0: "accepted"}, {0: "accepted", 2: "accepted"})
    assert set(flight.committed) - set(flight.retracted) == flight.endings.keys()


def test_an_answer_lost_after_the_last_byte_is_unknown_and_nothing_else_is(rig: Rig) -> None:
    flight = RememberingFlight()
    rig.channel.deliver([rig.parcel("lost", 0), rig.parcel("accept", 1)], flight, lambda: True)
    assert flight.endings == {0: "unknown", 1: "accepted"}


def test_it_stops_before_the_end_when_asked(rig: Rig) -> None:
    flight = RememberingFlight()
    rig.channel.deliver([rig.parcel("accept", i) for i in range(5000)], flight, lambda: not flight.endings)
    assert flight.endings[0] == "accepted"
    assert 4999 not in flight.committed


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="counts references, as CPython does")
def test_nothing_of_a_delivered_message_is_held_until_garbage_is_collected(rig: Rig) -> None:
    parcels = [rig.parcel("accept", index) for index in range(20)]
    before = [sys.getrefcount(parcel.content) for parcel in parcels]
    gc.disable()
    try:
        rig.channel.deliver(parcels, RememberingFlight(), lambda: True)
        # A connection's thread may still be on its way back from the last answer.
        wait_for(lambda: [sys.getrefcount(parcel.content) for parcel in parcels] == before, "bodies let go", seconds=5)
    finally:
        gc.enable()


@pytest.mark.parametrize("name", [name for name in RIGS if name != "kannel"])
def test_a_deferred_message_is_not_committed_as_sent(name: str) -> None:
    with ExitStack() as stack:
        rig = RIGS[name](stack)
        flight = RememberingFlight()
        rig.channel.deliver([rig.parcel("defer", 0), rig.parcel("accept", 1)], flight, lambda: True)
        assert flight.endings == {0: "deferred", 1: "accepted"}
        rig.channel.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("name", ["smtp", "http", "kannel", "smpp"])
def test_a_gateway_nobody_listens_at_is_down_and_nothing_is_in_doubt(name: str) -> None:
    port = free_port()
    channels: dict[str, Channel] = {
        "smtp": SmtpChannel(SmtpGateway(type="smtp", host="127.0.0.1", port=port, tls="none")),
        "http": HttpChannel(http_gateway(port), receipt_url=""),
        "kannel": KannelChannel(
            KannelGateway.model_validate(
                {"type": "kannel", "url": f"http://127.0.0.1:{port}/", "username": "u", "password": "p"}
            ),
            receipt_url="",
        ),
        "smpp": SmppChannel(smpp_gateway(port), keep=None),
    }
    flight = RememberingFlight()
    parcel = mail("ann@x.example") if name == "smtp" else sms("accept")
    with pytest.raises(GatewayDown):
        channels[name].deliver([parcel], flight, lambda: True)
    assert flight.endings == {}
    assert set(flight.committed) <= set(flight.retracted)


def kannel(port: int) -> KannelChannel:
    gateway = {"type": "kannel", "url": f"http://127.0.0.1:{port}/cgi-bin/sendsms", "username": "u", "password": "p"}
    return KannelChannel(KannelGateway.model_validate(gateway), receipt_url="http://127.0.0.1/r", busy_wait_s=0.001)


def test_kannel_is_told_the_alphabet_the_parts_were_counted_in() -> None:
    with SmsStub(KANNEL_ANSWERS) as stub:
        channel = kannel(stub.port)
        channel.deliver([sms("plain text, 1 part", 0), sms("coffee ☕", 1)], RememberingFlight(), lambda: True)
        channel.close()
        told = {request["query"]["text"]: request["query"]["coding"] for request in stub.requests}
        assert told == {"plain text, 1 part": "0", "coffee ☕": "2"}


def test_kannel_gets_our_parts_with_our_headers_and_the_last_asks_for_the_receipt() -> None:
    text = "coffee ☕" + "😀" * 60
    with SmsStub(KANNEL_ANSWERS) as stub:
        channel = kannel(stub.port)
        flight = RememberingFlight()
        channel.deliver([sms(text)], flight, lambda: True)
        channel.close()
        queries = [request["query"] for request in stub.requests]
    assert flight.endings == {0: "accepted"}
    assert flight.committed == [0]
    assert [query["text"] for query in queries] == list(split(text).parts)
    headers = [query["udh"].encode("latin-1") for query in queries]
    assert [header[:3] + header[4:] for header in headers] == [bytes([5, 0, 3, 2, number]) for number in (1, 2)]
    assert headers[0][3] == headers[1][3]
    assert ["dlr-url" in query for query in queries] == [False, True]


def test_a_later_part_kannel_refuses_leaves_the_text_in_doubt_and_one_it_is_busy_for_goes_again() -> None:
    for word, ending in (("refuse", "unknown"), ("busy once", "accepted"), ("busy", "unknown")):
        text = "a" * 306 + word
        with SmsStub(KANNEL_ANSWERS) as stub:
            channel = kannel(stub.port)
            flight = RememberingFlight()
            channel.deliver([sms(text)], flight, lambda: True)
            channel.close()
        assert flight.endings == {0: ending}, word
        assert ending == "accepted" or flight.errors[0].text.startswith("2 of 3 parts accepted; part 3: ")


def test_a_sender_kannel_misses_closes_the_lane_and_fails_no_message() -> None:
    with SmsStub(KANNEL_ANSWERS) as stub:
        channel = kannel(stub.port)
        flight = RememberingFlight()
        with pytest.raises(GatewayDown, match="sender") as caught:
            channel.deliver([sms("no-sender")], flight, lambda: True)
        channel.close()
        assert caught.value.lasting
        assert flight.endings == {}
