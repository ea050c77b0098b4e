"""Every stage of the dialogue × everything a server can do wrong there has exactly one meaning (RFC 5321; RFC 1047)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kernel.errors import GatewayDown
from templates.mail import ComposedMail
from tests.contract.test_smtp_stages import gateway
from tests.servers.flights import RememberingFlight
from tests.servers.smtp_sink import Sink, SinkServer
from workers.channels.port import Parcel
from workers.channels.smtp import SmtpChannel

MODES = {
    "pipelining": (b"PIPELINING", b"SIZE 10485760", b"8BITMIME"),
    "lock-step": (b"SIZE 10485760", b"8BITMIME"),
    "chunking": (b"PIPELINING", b"CHUNKING", b"8BITMIME"),
    "chunking, lock-step": (b"CHUNKING",),
}
LOST = ("rst", "close")
UNREADABLE = ("garbage", "nul", "binary", "long", "endless", "mixed", "199")
BLAMES_US = {
    "421": "down",
    "policy": "lasting",
    "policy4": "down",
    "quota": "down",
    "account": "lasting",
    "454": "down",
    "threads": "down",
    "530": "lasting",
    "535": "lasting",
}
OF_THE_MESSAGE = {
    "450": "deferred",
    "451": "deferred",
    "452": "deferred",
    "550": "refused",
    "552": "deferred",  # 5.2.2: a full mailbox may be emptied
    "552bare": "refused",
    "toobig": "refused",
    "554": "refused",
    "soft5": "deferred",  # the enhanced code wins
    "hard4": "refused",
}
EXPECTED = {
    "mail": {
        **dict.fromkeys((*LOST, *UNREADABLE, "450", "451", "452", "soft5"), "down"),
        **dict.fromkeys(("550", "554", "hard4"), "lasting"),
        "552": "deferred",
        "552bare": "refused",
        "toobig": "refused",
        **BLAMES_US,
    },
    "rcpt": {
        **dict.fromkeys((*LOST, *UNREADABLE), "deferred"),
        **OF_THE_MESSAGE,
        "552bare": "deferred",  # too many recipients, for which 452 was meant
        **BLAMES_US,
    },
    "data": {**dict.fromkeys((*LOST, *UNREADABLE), "deferred"), **OF_THE_MESSAGE, **BLAMES_US},
    "body": dict.fromkeys(LOST, "unknown"),
    "dot": {**dict.fromkeys((*LOST, *UNREADABLE), "unknown"), **OF_THE_MESSAGE, **BLAMES_US},
    "kept": dict.fromkeys((*LOST, *UNREADABLE), "unknown"),
    "quit": dict.fromkeys((*LOST, *UNREADABLE, "421", "550", "silence"), "accepted"),
}
CELLS = [(stage, action) for stage, actions in EXPECTED.items() for action in actions]


def parcel(index: int, *, stage: str = "", action: str = "", data: bytes = b"") -> Parcel:
    fault = f"at.{stage}.{action}" if stage else "ann"
    content = ComposedMail(
        envelope_from=f"{fault}+{index}@acme.example" if stage == "mail" else "b@acme.example",
        envelope_to=f"ann+{index}@x.example" if stage == "mail" else f"{fault}+{index}@x.example",
        message_id_header=f"<m{index}@x>",
        subject="hi",
        data=data or b"Message-ID: <m%d@x>\r\nSubject: hi\r\n\r\n.dot\r\n..dots\r\nbye\r\n" % index,
    )
    return Parcel(index=index, message_id=100 + index, ref="r", content=content)


@dataclass
class Told:
    """What a channel said of three messages, the second of which met the fault."""

    flight: RememberingFlight
    down: GatewayDown | None
    sink: Sink

    @property
    def verdict(self) -> str:
        if self.down is not None:
            return "lasting" if self.down.lasting else "down"
        return self.flight.endings.get(1, "untouched")


def tell(sink: Sink, parcels: list[Parcel], **more: object) -> Told:
    flight, down = RememberingFlight(), None
    with SinkServer(sink) as server:
        channel = SmtpChannel(gateway(server.port, connections=1, **more))
        try:
            assert channel.deliver(parcels, flight, lambda: True) == frozenset()
        except GatewayDown as error:
            down = error
        channel.close()
    return Told(flight, down, sink)


def accepted_by(sink: Sink) -> list[str]:
    return [message_id for message_id, _, _ in sink.accepted]


@pytest.mark.parametrize("mode", MODES)
def test_every_fault_at_every_stage_has_one_meaning(mode: str) -> None:
    for stage, action in CELLS:
        if "chunking" in mode and stage in ("data", "body"):
            continue
        cell = f"{mode}: {action} at {stage}"
        sink = Sink(extensions=MODES[mode], faults={"quit": action} if stage == "quit" else {})
        bad = parcel(1) if stage == "quit" else parcel(1, stage=stage, action=action)
        told = tell(sink, [parcel(0), bad, parcel(2)])
        expected = EXPECTED[stage][action]
        assert told.verdict == expected, cell
        assert sink.violations == [], cell
        endings = told.flight.endings
        assert endings[0] == "accepted", cell
        if told.down is None:
            assert endings.keys() == {0, 1, 2}, cell
            assert endings[2] == "accepted", cell
        else:
            assert endings == {0: "accepted"}, cell
        assert_honest(told, cell)
        if stage in ("mail", "rcpt", "data"):
            assert 1 not in told.flight.committed, cell


def assert_honest(told: Told, cell: str) -> None:
    """Nothing is called accepted that was not; nothing is kept of which the flight knows nothing."""
    kept = {int(message_id.strip("<>").removeprefix("m").partition("@")[0]) for message_id in accepted_by(told.sink)}
    assert len(kept) == len(told.sink.accepted), cell
    endings = told.flight.endings
    assert {index for index, ending in endings.items() if ending == "accepted"} <= kept, cell
    assert {index for index, ending in endings.items() if ending in ("accepted", "unknown")} >= kept, cell
    out = set(told.flight.committed) - set(told.flight.retracted)
    assert kept <= out, cell
    assert all(index in out for index, ending in endings.items() if ending in ("accepted", "unknown")), cell


@pytest.mark.parametrize(
    ("stage", "action"),
    [
        *((stage, "silence") for stage in ("mail", "rcpt", "data", "body", "dot", "kept")),
        ("rcpt", "trickle"),
        ("dot", "trickle"),
    ],
)
def test_silence_means_what_a_lost_connection_means(stage: str, action: str) -> None:
    told = tell(Sink(), [parcel(0), parcel(1, stage=stage, action=action), parcel(2)], timeout="1s", final_timeout="1s")
    assert told.verdict == EXPECTED[stage]["close"]
    assert_honest(told, stage)


@pytest.mark.parametrize(
    ("stage", "action", "lasting"),
    [
        *[("connect", action, False) for action in LOST],
        *[("banner", action, False) for action in (*LOST, *UNREADABLE, "421", "450", "554", "silence", "trickle")],
        *[("ehlo", action, False) for action in (*LOST, *UNREADABLE, "421", "450", "silence", "trickle")],
        ("banner", "policy", True),
        ("banner", "530", True),
    ],
)
def test_a_server_that_does_not_open_costs_no_message(stage: str, action: str, lasting: bool) -> None:
    told = tell(Sink(faults={stage: action}), [parcel(0), parcel(1)], timeout="1s")
    assert told.down is not None
    assert told.down.lasting is lasting
    assert "127.0.0.1" in told.down.text
    assert told.flight.endings == {}
    assert told.flight.committed == []


@pytest.mark.parametrize(
    ("action", "verdict"),
    [("rst", "deferred"), ("close", "deferred"), ("421", "down"), ("552", "deferred"), ("toobig", "refused")],
)
def test_a_long_body_that_breaks_off_in_the_middle_was_not_sent(action: str, verdict: str) -> None:
    data = b"Message-ID: <m1@x>\r\n\r\n" + (b"x" * 70 + b"\r\n") * 110_000
    long = parcel(1, stage="body", action=action, data=data)
    told = tell(Sink(keep_bodies=False, extensions=(b"PIPELINING",)), [parcel(0), long, parcel(2)])
    assert told.verdict == verdict
    assert 1 not in told.flight.committed
    assert accepted_by(told.sink) == (["<m0@x>"] if verdict == "down" else ["<m0@x>", "<m2@x>"])


@pytest.mark.parametrize("mode", MODES)
def test_a_long_body_arrives_byte_for_byte(mode: str) -> None:
    data = b"Message-ID: <m1@x>\r\n\r\n" + b"".join(b".%d dots\r\n" % number for number in range(100_000))
    told = tell(Sink(extensions=MODES[mode]), [parcel(0), parcel(1, data=data), parcel(2)])
    assert told.flight.endings == {0: "accepted", 1: "accepted", 2: "accepted"}
    assert told.sink.bodies[1] == data


def test_replies_may_come_one_byte_at_a_time() -> None:
    told = tell(Sink(byte_by_byte=True), [parcel(index) for index in range(3)])
    assert set(told.flight.endings.values()) == {"accepted"}


def test_a_354_without_a_recipient_is_answered_by_a_dot_alone() -> None:
    for answer in (b"354 go\r\n", b"554 5.5.1 no valid recipients\r\n", b"503 5.5.1 RCPT first\r\n"):
        sink = Sink(data_without_recipient=answer)
        told = tell(sink, [parcel(0), parcel(1, stage="rcpt", action="550"), parcel(2)])
        assert told.flight.endings == {0: "accepted", 1: "refused", 2: "accepted"}
        assert sink.violations == []


def test_a_connection_with_enough_says_421_and_costs_nothing() -> None:
    sink = Sink(farewell_after=2)
    told = tell(sink, [parcel(index) for index in range(7)])
    assert set(told.flight.endings.values()) == {"accepted"}
    assert sink.connections == 4


def test_a_letter_the_relay_hangs_up_on_does_not_stop_the_others_for_ever() -> None:
    with SinkServer(Sink()) as server:
        channel = SmtpChannel(gateway(server.port, connections=1))
        flight = RememberingFlight()
        parcels = [parcel(0, stage="rcpt", action="421"), parcel(1), parcel(2)]
        with pytest.raises(GatewayDown):
            channel.deliver(parcels, flight, lambda: True)
        assert flight.endings == {}
        channel.deliver(parcels, flight, lambda: True)
        channel.close()
    assert flight.endings == {0: "deferred", 1: "accepted", 2: "accepted"}


def test_a_relay_that_loses_every_connection_is_down_before_it_has_cost_many_an_attempt() -> None:
    told = tell(Sink(faults={"rcpt": "rst"}), [parcel(index) for index in range(50)])
    assert told.down is not None
    assert len(told.flight.endings) == 5
