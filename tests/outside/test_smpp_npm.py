"""SMPP before an SMSC nobody here wrote: the npm package `smpp`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from kernel.errors import GatewayDown
from kernel.gateways import SmppGateway
from templates.sms import ComposedSms
from templates.sms_parts import split
from tests.outside.programs import NODE, node_package, program
from tests.servers.flights import RememberingFlight
from workers.channels.port import Parcel
from workers.channels.smpp import SmppChannel
from workers.inbound.smpp import is_receipt, read_incoming, read_receipts
from workers.smpp.message_ids import kept_id
from workers.smpp.pdus import read

EVERY_LETTER = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà^{}\\[~]|€"
)


class NpmSmsc:
    """The server in a process of its own; tells what it read, does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self.heard("port")["port"])

    def heard(self, key: str) -> dict[str, Any]:
        """Return the next thing it says of a kind; others are passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said: dict[str, Any] = json.loads(line)
            assert "error" not in said, said
            if key in said:
                return said
        raise AssertionError(f"the SMSC ended without a word of {key!r}")

    def deliver(self, **fields: Any) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"deliver": fields}) + "\n")
        self._process.stdin.flush()
        return int(self.heard("delivered")["delivered"])


@pytest.fixture
def smsc() -> Iterator[NpmSmsc]:
    node_package("smpp")
    command = [program("node", debian="nodejs npm"), str(NODE / "smsc.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield NpmSmsc(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


@contextmanager
def channel_to(
    smsc: NpmSmsc, keep: Callable[[Sequence[bytes]], bool] = lambda _: True, **settings: Any
) -> Iterator[SmppChannel]:
    common = {"type": "smpp", "host": "127.0.0.1", "port": smsc.port, "tls": "none", "system_id": "carillon"}
    gateway = SmppGateway.model_validate(common | {"password": "secret", "timeout": "5s", **settings})
    channel = SmppChannel(gateway, keep=keep)
    try:
        yield channel
    finally:
        channel.close()


def sms(text: str, index: int = 0) -> Parcel:
    made = split(text)
    content = ComposedSms(address="+447700900123", text=text, parts=len(made.parts), encoding=made.encoding)
    return Parcel(index=index, message_id=index, ref="r", content=content)


def sent(channel: SmppChannel, *texts: str) -> RememberingFlight:
    flight = RememberingFlight()
    channel.deliver([sms(text, index) for index, text in enumerate(texts)], flight, lambda: True)
    return flight


def test_it_reads_every_letter_of_the_gsm_alphabet_as_we_meant_it(smsc: NpmSmsc) -> None:
    with channel_to(smsc, sender="ACME", validity="2h") as channel:
        assert sent(channel, EVERY_LETTER).endings == {0: "accepted"}
        assert smsc.heard("bound") == {"bound": "transceiver", "as": "carillon", "wrong": False}
        read_by_it = smsc.heard("submit")
    assert read_by_it["submit"] == EVERY_LETTER
    assert (read_by_it["coding"], read_by_it["udh"], read_by_it["registered"]) == (0, [], 1)
    assert (read_by_it["from"], read_by_it["ton"], read_by_it["to"]) == ("ACME", 5, "447700900123")
    assert smsc.heard("unbound")


@pytest.mark.parametrize(
    "text",
    ["a" * 100 + "€" * 60, "Grüße 😀" * 20, "x" * 67 + "😀" * 40, "退订" * 50],
    ids=["gsm", "mixed", "pairs", "chinese"],
)
def test_it_joins_our_parts_to_the_text(smsc: NpmSmsc, text: str) -> None:
    parts = split(text).parts
    with channel_to(smsc) as channel:
        assert sent(channel, text).endings == {0: "accepted"}
        heard = [smsc.heard("submit") for _ in parts]
    assert [part["submit"] for part in heard] == list(parts)
    assert [part["udh"] for part in heard] == [
        [f"000300{len(parts):02x}{number:02x}"] for number in range(1, len(parts) + 1)
    ]


def test_throttled_refused_and_accepted_texts_are_told_apart(smsc: NpmSmsc) -> None:
    with channel_to(smsc) as channel:
        flight = sent(channel, "throttle 1", "refuse", "accept", "throttle 2")
    assert flight.endings == {0: "accepted", 1: "refused", 2: "accepted", 3: "accepted"}


def test_a_connection_it_destroys_leaves_that_in_doubt_and_the_rest_goes(smsc: NpmSmsc) -> None:
    with channel_to(smsc, window=1) as channel:
        assert sent(channel, "drop", "accept").endings == {0: "unknown", 1: "accepted"}


def test_a_wrong_password_closes_the_lane(smsc: NpmSmsc) -> None:
    with channel_to(smsc, password="wrong") as channel, pytest.raises(GatewayDown, match="RINVPASWD") as down:
        sent(channel, "accept")
    assert down.value.lasting


def test_its_receipts_and_replies_are_read(smsc: NpmSmsc) -> None:
    kept: list[bytes] = []
    with channel_to(smsc, keep=lambda pdus: kept.extend(pdus) is None) as channel:
        flight = sent(channel, "accept")
        given = int(flight.receipts[0].reply.removeprefix("accepted as "), 16)
        text = f"id:{given} sub:001 dlvrd:001 submit date:2611261530 done date:2611261531 stat:DELIVRD err:000 text:acc"
        assert smsc.deliver(source_addr="447700900123", esm_class=4, short_message=text) == 0
        assert smsc.deliver(source_addr="447700900123", short_message="STOP €", data_coding=0) == 0
        assert smsc.deliver(source_addr="447700900123", short_message="退订") == 0
        gateway = channel._gateway
    receipt, stop, chinese = kept
    assert [is_receipt(read(raw)) for raw in kept] == [True, False, False]
    [told] = read_receipts(gateway, receipt)
    assert kept_id(f"{given:X}", "auto") in told.spellings
    assert told.kind == "delivered"
    assert [read_incoming(raw)[0].text for raw in (stop, chinese)] == ["STOP €", "退订"]


def test_an_idle_session_lasts(smsc: NpmSmsc) -> None:
    with channel_to(smsc, enquire_link="1s") as channel:
        sent(channel, "accept")
        assert smsc.heard("enquired")
        assert sent(channel, "accept").endings == {0: "accepted"}
