"""SMPP against an SMSC of our own: the window, parts, throttling, losses, and what comes back meanwhile."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from kernel.errors import GatewayDown
from kernel.gateways import SmppGateway
from templates.sms import ComposedSms
from templates.sms_parts import split
from tests.servers.flights import RememberingFlight
from tests.servers.smsc import BIND_RECEIVER, BIND_TRANSCEIVER, BIND_TRANSMITTER, Said, Smsc, Submit
from workers.channels.port import Parcel
from workers.channels.smpp import SmppChannel, relative_time
from workers.smpp import session, voyage
from workers.smpp.session import Session

LONG = "accept " + "a" * 400
"""Three parts."""


def sms(text: str, index: int = 0, address: str = "+447700900123") -> Parcel:
    made = split(text)
    content = ComposedSms(address=address, text=text, parts=len(made.parts), encoding=made.encoding)
    return Parcel(index=index, message_id=0x1100 + index, ref="r", content=content)


def gateway(port: int, **settings: Any) -> SmppGateway:
    common = {"type": "smpp", "host": "127.0.0.1", "port": port, "tls": "none", "system_id": "carillon"}
    return SmppGateway.model_validate(common | {"password": "secret", "timeout": "5s", **settings})


def wait_for(true: Callable[[], bool], seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stragglers are let go after a quarter of a second; the protocol's own patience stays."""
    monkeypatch.setattr(voyage, "PATIENCE_S", 0.25)
    monkeypatch.setattr(voyage, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(session, "_LAST_WORDS_S", 0.1)


def take_all(_pdus: Sequence[bytes]) -> bool:
    return True


@contextmanager
def facing(smsc: Smsc, **settings: Any) -> Iterator[SmppChannel]:
    keep = settings.pop("keep", take_all)
    channel = SmppChannel(gateway(smsc.port, **settings), keep=keep, first_pause_s=0.01)
    try:
        yield channel
    finally:
        channel.close()


def sent(channel: SmppChannel, parcels: Sequence[Parcel]) -> RememberingFlight:
    flight = RememberingFlight()
    assert channel.deliver(parcels, flight, lambda: True) == frozenset()
    return flight


# --- what leaves ---------------------------------------------------------------------------------------------


def test_one_part_leaves_as_the_specification_has_it() -> None:
    with Smsc() as smsc, facing(smsc, sender="ACME", validity="2h") as channel:
        flight = sent(channel, [sms("accept @£ {€}")])
        [submit] = smsc.submits
    assert smsc.binds == [(BIND_TRANSCEIVER, "carillon")]
    assert (submit.source, submit.destination) == ((5, 0, "ACME"), (1, 1, "447700900123"))
    assert (submit.esm_class, submit.data_coding, submit.registered) == (0, 0, 1)
    assert submit.octets == b"accept \x00\x01 \x1b\x28\x1b\x65\x1b\x29"
    assert submit.validity == "000000020000000R"
    assert flight.receipts[0].gateway_id == "1"
    assert smsc.unbinds == 1


def test_parts_are_joined_by_our_own_headers_and_the_last_asks_for_a_receipt() -> None:
    with Smsc() as smsc, facing(smsc) as channel:
        flight = sent(channel, [sms(LONG, 7)])
    assert [submit.header for submit in smsc.submits] == [bytes([5, 0, 3, 0x07, 3, part]) for part in (1, 2, 3)]
    assert "".join(submit.text for submit in smsc.submits) == LONG
    assert [submit.esm_class for submit in smsc.submits] == [0x40] * 3
    assert [submit.registered for submit in smsc.submits] == [0, 0, 1]
    assert all(len(submit.octets) <= 160 for submit in smsc.submits)
    assert flight.receipts[7].gateway_id == "3"


def test_no_pair_is_cut_by_a_parts_end() -> None:
    text = "accept " + "😀" * 60
    with Smsc() as smsc, facing(smsc) as channel:
        sent(channel, [sms(text)])
    # The stub decodes each part by itself, strictly: half a pair would have ended the session.
    assert "".join(submit.text for submit in smsc.submits) == text
    assert [submit.data_coding for submit in smsc.submits] == [8, 8]
    assert all(len(submit.octets) <= 140 for submit in smsc.submits)


@pytest.mark.parametrize(
    ("sender", "source"),
    [
        ("+447900000001", (1, 1, "447900000001")),
        ("447900000001", (1, 1, "447900000001")),
        ("36180", (3, 0, "36180")),
        ("Acme Ltd", (5, 0, "Acme Ltd")),
        ("", (0, 0, "")),
    ],
)
def test_a_senders_form_tells_its_type_of_number(sender: str, source: tuple[int, int, str]) -> None:
    with Smsc() as smsc, facing(smsc, sender=sender) as channel:
        sent(channel, [sms("accept")])
        assert smsc.submits[0].source == source
    with Smsc() as smsc, facing(smsc, sender=sender, sender_ton=2, sender_npi=8) as channel:
        sent(channel, [sms("accept")])
        assert smsc.submits[0].source == (2, 8, source[2])


def test_the_window_is_filled_and_never_overfilled() -> None:
    with Smsc(delay_s=0.02) as smsc, facing(smsc, window=7) as channel:
        flight = sent(channel, [sms("accept", index) for index in range(50)])
    assert set(flight.endings.values()) == {"accepted"}
    assert smsc.peak == 7


def test_without_a_keeper_it_binds_as_transmitter_and_asks_for_no_receipt() -> None:
    with Smsc() as smsc, facing(smsc, keep=None) as channel:
        sent(channel, [sms("accept")])
    assert smsc.binds == [(BIND_TRANSMITTER, "carillon")]
    assert smsc.submits[0].registered == 0


# --- what the SMSC answers -----------------------------------------------------------------------------------


def throttling(times: int, parts: set[int] | None = None) -> Callable[[Submit], Said]:
    left = [times]

    def answer(submit: Submit) -> Said:
        if left[0] and submit.part in (parts or {1}):
            left[0] -= 1
            return 0x58 if left[0] % 2 else 0x14
        return 0

    return answer


def test_throttling_slows_the_lane_and_costs_no_message_anything() -> None:
    with Smsc(throttling(4)) as smsc, facing(smsc, window=4) as channel:
        flight = sent(channel, [sms("accept", index) for index in range(20)])
    assert flight.endings == dict.fromkeys(range(20), "accepted")
    assert len(smsc.submits) == 24
    assert smsc.binds == [(BIND_TRANSCEIVER, "carillon")]


def test_throttling_without_end_closes_the_lane_and_touches_nobody() -> None:
    with Smsc(throttling(10_000)) as smsc, facing(smsc, window=4) as channel:
        flight = RememberingFlight()
        with pytest.raises(GatewayDown, match="throttles") as caught:
            channel.deliver([sms("accept", index) for index in range(20)], flight, lambda: True)
    assert flight.endings == {}
    assert set(flight.committed) == set(flight.retracted)
    assert not caught.value.lasting
    assert caught.value.retry_after_s


def test_a_throttled_later_part_goes_again_by_itself() -> None:
    with Smsc(throttling(2, {2, 3})) as smsc, facing(smsc) as channel:
        flight = sent(channel, [sms(LONG)])
    assert flight.endings == {0: "accepted"}
    assert sorted(submit.part for submit in smsc.submits) == [1, 2, 2, 3, 3]


def test_a_message_refused_at_its_first_part_is_refused_whole() -> None:
    with Smsc(lambda _: 0x0B) as smsc, facing(smsc) as channel:
        flight = sent(channel, [sms(LONG)])
    assert flight.endings == {0: "refused"}
    assert "ESME_RINVDSTADR (0xb)" in flight.errors[0].text
    assert len(smsc.submits) == 1


def test_a_part_refused_after_the_first_leaves_the_message_in_doubt_and_says_how_far_it_came() -> None:
    with Smsc(lambda submit: 0x08 if submit.part == 2 else 0) as smsc, facing(smsc) as channel:
        flight = sent(channel, [sms(LONG, 0), sms("accept", 1)])
    assert flight.endings == {0: "unknown", 1: "accepted"}
    assert flight.errors[0].text == "2 of 3 parts accepted; part 2: ESME_RSYSERR (0x8)"


@pytest.mark.parametrize(("text", "lasting"), [("sender", True), ("vendor", False)])
def test_a_status_that_blames_the_lane_closes_it_and_no_message(text: str, lasting: bool) -> None:
    with Smsc() as smsc, facing(smsc, window=1, statuses={"0x41d": "down"}) as channel:
        flight = RememberingFlight()
        with pytest.raises(GatewayDown) as caught:
            channel.deliver([sms("accept", 0), sms(text, 1), sms("accept", 2)], flight, lambda: True)
    assert caught.value.lasting is lasting
    assert flight.endings == {0: "accepted"}
    assert set(flight.committed) - set(flight.retracted) == {0}


def test_a_vendors_own_status_defers_unless_the_settings_say_better() -> None:
    with Smsc() as smsc, facing(smsc) as channel:
        assert sent(channel, [sms("vendor")]).endings == {0: "deferred"}
    with Smsc() as smsc, facing(smsc, statuses={"1053": "permanent"}) as channel:
        assert sent(channel, [sms("vendor")]).endings == {0: "refused"}


def test_a_generic_nack_refuses_what_it_answers() -> None:
    with Smsc() as smsc, facing(smsc) as channel:
        assert sent(channel, [sms("nack", 0), sms("accept", 1)]).endings == {0: "refused", 1: "accepted"}


# --- what is lost --------------------------------------------------------------------------------------------


def test_a_connection_lost_with_an_open_window_leaves_just_that_in_doubt() -> None:
    seen: list[str] = []

    def answer(submit: Submit) -> Said:
        seen.append(submit.text)
        return "drop" if len(seen) == 5 else "silent" if len(seen) < 5 else 0

    with Smsc(answer) as smsc, facing(smsc, window=5) as channel:
        flight = sent(channel, [sms(f"m{index}", index) for index in range(12)])
    assert [flight.endings[index] for index in range(12)] == ["unknown"] * 5 + ["accepted"] * 7
    assert "connection lost" in flight.errors[0].text
    assert seen == [f"m{index}" for index in range(12)]
    assert len(smsc.binds) == 2


def test_an_smsc_that_goes_on_dropping_connections_closes_the_lane() -> None:
    with Smsc(lambda _: "drop") as smsc, facing(smsc, window=1) as channel:
        flight = RememberingFlight()
        with pytest.raises(GatewayDown, match="drops its connections"):
            channel.deliver([sms("m", index) for index in range(9)], flight, lambda: True)
    assert flight.endings == {0: "unknown", 1: "unknown"}
    assert len(smsc.submits) == 2


def test_a_loss_between_parts_is_in_doubt_and_says_how_far_it_came() -> None:
    with Smsc(lambda submit: "drop" if submit.part == 2 else 0) as smsc, facing(smsc) as channel:
        flight = sent(channel, [sms(LONG)])
    assert flight.endings == {0: "unknown"}
    assert flight.errors[0].text.startswith("1 of 3 parts accepted; connection lost")


def test_unbind_is_answered_and_what_was_open_is_in_doubt() -> None:
    with Smsc() as smsc, facing(smsc, window=1) as channel:
        flight = sent(channel, [sms("unbind", 0), sms("accept", 1)])
        assert flight.endings == {0: "unknown", 1: "accepted"}
        assert "unbound" in flight.errors[0].text
        assert len(smsc.binds) == 2


def test_answers_that_follow_an_unbind_are_heard_and_nothing_goes_out_twice() -> None:
    with Smsc(lambda submit: "unbind" if submit.text == "m9" else 0, delay_s=0.05) as smsc, facing(smsc) as channel:
        flight = sent(channel, [sms(f"m{index}", index) for index in range(30)])
    assert flight.endings == {9: "unknown"} | {index: "accepted" for index in range(30) if index != 9}
    assert sorted(submit.text for submit in smsc.submits) == sorted(f"m{index}" for index in range(30))
    assert len(smsc.binds) == 2


def test_silence_is_in_doubt_after_the_patience_and_the_session_stays() -> None:
    with Smsc() as smsc, facing(smsc, timeout="1s") as channel:
        flight = RememberingFlight()
        assert channel.deliver([sms("silent", 0), sms("accept", 1)], flight, lambda: True) == {0}
        wait_for(lambda: 0 in flight.endings)
        assert flight.endings == {0: "unknown", 1: "accepted"}
        assert sent(channel, [sms("accept")]).endings == {0: "accepted"}
        assert len(smsc.binds) == 1


def test_an_answer_that_is_late_holds_up_nobody_and_still_counts() -> None:
    def answer(submit: Submit) -> Said:
        return "silent" if submit.text.startswith("late") else 0

    with Smsc(answer) as smsc, facing(smsc, window=3) as channel:
        flight = RememberingFlight()
        started = time.monotonic()
        left = channel.deliver([sms("late", 0), sms("accept", 1), sms("late too", 2)], flight, lambda: True)
        assert (left, flight.endings) == (frozenset({0, 2}), {1: "accepted"})
        assert 0.2 < time.monotonic() - started < 3
        # Meanwhile the next chunk goes, through what room is left.
        assert sent(channel, [sms("accept", 3), sms("accept", 4)]).endings == {3: "accepted", 4: "accepted"}
        smsc.answer_late(0)
        wait_for(lambda: 0 in flight.endings)
        assert flight.endings == {0: "accepted", 1: "accepted"}
        channel.close()
        assert flight.endings == {0: "accepted", 1: "accepted", 2: "unknown"}
        assert len(smsc.binds) == 1


def test_an_smsc_that_answers_nobody_gets_one_window_and_no_more() -> None:
    with Smsc(lambda _: "silent") as smsc, facing(smsc, window=3) as channel:
        flight = RememberingFlight()
        left = channel.deliver([sms("m", index) for index in range(9)], flight, lambda: True)
        assert (left, flight.endings, flight.committed) == (frozenset({0, 1, 2}), {}, [0, 1, 2])
        with pytest.raises(GatewayDown, match="3 messages without an answer"):
            channel.deliver([sms("m", 3)], flight, lambda: True)
        assert len(smsc.submits) == 3


def test_a_straggler_throttled_at_last_was_not_sent() -> None:
    with Smsc(lambda _: "silent") as smsc, facing(smsc) as channel:
        flight = RememberingFlight()
        assert channel.deliver([sms("m", 0)], flight, lambda: True) == {0}
        smsc.answer_late(0, status=0x58)
        wait_for(lambda: 0 in flight.endings)
        assert flight.endings == {0: "deferred"}


def test_a_late_first_part_is_followed_by_the_others() -> None:
    with Smsc(lambda submit: "silent" if submit.part == 1 else 0) as smsc, facing(smsc) as channel:
        flight = RememberingFlight()
        assert channel.deliver([sms(LONG, 0)], flight, lambda: True) == {0}
        smsc.answer_late(0)
        wait_for(lambda: 0 in flight.endings)
        assert flight.endings == {0: "accepted"}
        assert [submit.part for submit in smsc.submits] == [1, 2, 3]


def test_a_link_that_gives_no_sign_of_life_is_over() -> None:
    with Smsc(deaf=True) as smsc, facing(smsc, enquire_link="1s", timeout="10s") as channel:
        started = time.monotonic()
        flight = RememberingFlight()
        channel.deliver([sms("silent", 0)], flight, lambda: True)
        wait_for(lambda: 0 in flight.endings)
        assert flight.endings == {0: "unknown"}
        assert "enquire_link" in flight.errors[0].text
        assert time.monotonic() - started < 5
        assert smsc.enquired == 1


def test_an_idle_session_asks_for_signs_of_life_and_lasts() -> None:
    with Smsc() as smsc, facing(smsc, enquire_link="1s") as channel:
        sent(channel, [sms("accept")])
        smsc.wait(lambda smsc: smsc.enquired >= 1)
        sent(channel, [sms("accept")])
        assert len(smsc.binds) == 1


# --- binding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "lasting"), [(0x0E, True), (0x0F, True), (0x0D, False), (0x05, False)])
def test_a_refused_bind_closes_the_lane(status: int, lasting: bool) -> None:
    with Smsc(bind_status=status) as smsc, facing(smsc) as channel:
        flight = RememberingFlight()
        with pytest.raises(GatewayDown, match="refuses the bind") as caught:
            channel.deliver([sms("accept")], flight, lambda: True)
    assert caught.value.lasting is lasting
    assert flight.committed == []


def test_tls_is_verified(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for name, one in (("ours", authority), ("other", stranger)):
        one.cert_pem.write_to_path(tmp_path / name)
    with Smsc(tls=context) as smsc:
        with facing(smsc, tls="implicit", ca_file=str(tmp_path / "ours")) as channel:
            assert sent(channel, [sms("accept")]).endings == {0: "accepted"}
        with facing(smsc, tls="implicit", ca_file=str(tmp_path / "other")) as channel, pytest.raises(GatewayDown) as no:
            channel.deliver([sms("accept")], RememberingFlight(), lambda: True)
    assert no.value.lasting
    with Smsc() as plain, facing(plain, tls="implicit") as channel, pytest.raises(GatewayDown):
        channel.deliver([sms("accept")], RememberingFlight(), lambda: True)


# --- what comes back -----------------------------------------------------------------------------------------


def test_what_is_delivered_between_chunks_is_kept_before_it_is_answered_for() -> None:
    kept: list[bytes] = []
    gate = threading.Event()

    def keep(pdus: Sequence[bytes]) -> bool:
        assert gate.wait(5)
        kept.extend(pdus)
        return True

    with Smsc() as smsc, facing(smsc, keep=keep) as channel:
        sent(channel, [sms("accept")])
        asking = threading.Thread(target=lambda: answers.append(smsc.deliver("447700900123", b"STOP")))
        answers: list[int] = []
        asking.start()
        # While the keeper is busy, sending goes on.
        assert sent(channel, [sms("accept")]).endings == {0: "accepted"}
        assert (answers, kept) == ([], [])
        gate.set()
        asking.join(5)
        assert answers == [0]
        assert kept[0].endswith(b"STOP")


def test_what_cannot_be_kept_is_to_come_again() -> None:
    with Smsc() as smsc, facing(smsc, keep=lambda _: False) as channel:
        sent(channel, [sms("accept")])
        assert smsc.deliver("447700900123", b"STOP") == 0x64


def test_a_refusal_does_not_starve_what_is_delivered_after_it() -> None:
    with Smsc() as smsc, facing(smsc) as channel:
        sent(channel, [sms("refuse", 0), sms("defer", 1)])
        assert smsc.deliver("447700900123", b"id:1 stat:DELIVRD", esm_class=4) == 0


def test_a_pdu_nobody_knows_ends_nothing() -> None:
    with Smsc() as smsc, facing(smsc) as channel:
        sent(channel, [sms("accept")])
        # A deliver_sm whose body is torn: an optional parameter of 65,535 octets that are not there.
        smsc.send_raw(bytes.fromhex("0000001a000000050000000000000009") + b"\x04\x27\xff\xff\xff\x00\x00\x00\x00\x00")
        assert sent(channel, [sms("accept")]).endings == {0: "accepted"}
        smsc.send_raw(bytes.fromhex("00000010000012340000000000000009"))
        smsc.wait(lambda smsc: smsc.nacks == [9])
        assert sent(channel, [sms("accept")]).endings == {0: "accepted"}
        assert len(smsc.binds) == 1


def test_a_receiver_only_listens() -> None:
    kept: list[bytes] = []
    with Smsc() as smsc:
        listening = Session(gateway(smsc.port), bind="receiver", keep=lambda pdus: kept.extend(pdus) is None)
        listening.open()
        assert smsc.binds == [(BIND_RECEIVER, "carillon")]
        assert smsc.deliver("447700900123", b"STOP") == 0
        listening.close()
        assert smsc.unbinds == 1
        assert kept


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "000000000000000R"), (90, "000000000130000R"), (86400 * 35, "000105000000000R"), (9e9, "000203000000000R")],
)
def test_a_validity_is_told_in_relative_time(seconds: float, text: str) -> None:
    assert relative_time(seconds) == text
