"""SMPP's words: ids in their spellings, receipts, texts, statuses. And the octets of an SMS."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smpplib import command_codes, consts

from kernel.gateways import SmppGateway
from kernel.vocabulary import MessageEventKind
from templates.sms_octets import from_gsm7, gsm7, octets_of
from templates.sms_parts import Encoding, split
from tests.servers.smsc import deliver_sm
from workers.inbound.callbacks import CallbackError
from workers.inbound.smpp import is_receipt, read_incoming, read_receipts
from workers.smpp.message_ids import kept_id, spellings
from workers.smpp.pdus import Unreadable, length_of, read, write
from workers.smpp.statuses import Meaning, meaning_of

GATEWAY = SmppGateway.model_validate({"type": "smpp", "host": "x", "system_id": "u", "password": "p"})


def tlv(tag: int, value: bytes) -> bytes:
    return struct.pack(">HH", tag, len(value)) + value


RECEIPT = b"id:%s sub:001 dlvrd:001 submit date:2611261530 done date:2611261531 stat:%s err:%s text:Hello id:9"

# --- the octets of an SMS ------------------------------------------------------------------------------------


def test_the_alphabet_has_the_codes_of_ts_23_038() -> None:
    assert gsm7("@£$_ΔΞÆ ¤¡AÄ§¿aà") == bytes(
        [0x00, 0x01, 0x02, 0x11, 0x10, 0x1A, 0x1C, 0x20, 0x24, 0x40, 0x41, 0x5B, 0x5F, 0x60, 0x61, 0x7F]
    )
    assert gsm7("\f^{}\\[~]|€") == bytes.fromhex("1b0a1b141b281b291b2f1b3c1b3d1b3e1b401b65")


@given(st.text(st.sampled_from("@£\r\nΔ_ΞÆabc09¿à\f^{}\\[~]|€"), max_size=400))
def test_septets_read_back_to_the_text_part_by_part(text: str) -> None:
    made = list(octets_of(split(text), 0x1FF))
    assert "".join(from_gsm7(part.body) for part in made) == text
    for number, part in enumerate(made, start=1):
        assert part.header == (bytes([5, 0, 3, 0xFF, len(made), number]) if len(made) > 1 else b"")
        assert len(part.body) <= (153 if part.header else 160)
        assert not part.body.endswith(b"\x1b")


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=300))
def test_every_part_in_ucs2_is_whole_by_itself(text: str) -> None:
    parts = split(text)
    if parts.encoding is Encoding.UCS2:
        made = list(octets_of(parts, 1))
        assert "".join(part.body.decode("utf-16-be") for part in made) == text
        assert all(len(part.header + part.body) <= 140 for part in made)


def test_what_no_table_has_reads_as_a_replacement() -> None:
    assert from_gsm7(b"a\x80b\x1bcd\x1b") == "a\ufffdbcd"


# --- ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_id", "told"),
    [
        ("1A2B", "6699"),  # hexadecimal given, decimal told
        ("6699", "1a2b"),
        ("00001A2B", "0000006699"),
        ("1a2b", "1A2B"),
        ("0", "0000"),
        ("4bb42c2a-7c38-4a8b-8a1c-1f0a", "4BB42C2A-7C38-4A8B-8A1C-1F0A"),
        ("msg_17", "msg_17"),
    ],
)
def test_an_id_is_found_however_the_receipt_spells_it(given_id: str, told: str) -> None:
    assert kept_id(given_id, "auto") in spellings(told, "auto")


def test_same_means_letter_for_letter() -> None:
    assert kept_id("00AB", "same") == "00AB"
    assert spellings("00AB", "same") == ("00AB",)
    assert spellings("", "auto") == ()


# --- receipts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (b"DELIVRD", MessageEventKind.DELIVERED),
        (b"UNDELIV", MessageEventKind.UNDELIVERED),
        (b"EXPIRED", MessageEventKind.UNDELIVERED),
        (b"DELETED", MessageEventKind.UNDELIVERED),
        (b"REJECTD", MessageEventKind.UNDELIVERED),
        (b"REJECTED", MessageEventKind.UNDELIVERED),
        (b"ENROUTE", MessageEventKind.DELAYED),
        (b"ACCEPTD", None),
        (b"UNKNOWN", None),
    ],
)
def test_a_receipts_state_becomes_our_word(state: bytes, kind: MessageEventKind | None) -> None:
    raw = deliver_sm(RECEIPT % (b"0000A7", state, b"000"), esm_class=4)
    [receipt] = read_receipts(GATEWAY, raw)
    assert (receipt.gateway_id, receipt.kind, receipt.number) == ("a7", kind, "447900000001")
    assert receipt.detail == state.decode().replace("REJECTED", "REJECTD")


def test_fields_of_their_own_go_before_the_text_and_errors_are_told() -> None:
    tlvs = tlv(0x001E, b"b_8\0") + tlv(0x0427, b"\x05") + tlv(0x1400, b"vendor")
    [receipt] = read_receipts(GATEWAY, deliver_sm(RECEIPT % (b"7", b"DELIVRD", b"69"), esm_class=4, tlvs=tlvs))
    assert (receipt.gateway_id, receipt.kind) == ("b_8", MessageEventKind.UNDELIVERED)
    assert receipt.detail == "UNDELIV err 69"


@pytest.mark.parametrize(
    "octets", [b"", b"hello", b"id: stat:", b"id:7", b"stat:DELIVRD", RECEIPT % (b"7", b"LOST", b"0")]
)
def test_a_receipt_that_says_nothing_is_refused_in_words(octets: bytes) -> None:
    with pytest.raises(CallbackError, match=r"receipt without|none of SMPP"):
        read_receipts(GATEWAY, deliver_sm(octets, esm_class=4))


def test_receipts_are_told_from_what_people_write() -> None:
    assert not is_receipt(read(deliver_sm(b"STOP")))
    assert not is_receipt(read(deliver_sm(b"STOP", esm_class=0x40)))
    assert is_receipt(read(deliver_sm(b"id:1", esm_class=0x04)))
    assert is_receipt(read(deliver_sm(b"id:1", esm_class=0x20)))
    assert is_receipt(read(deliver_sm(b"", tlvs=tlv(0x001E, b"7\0"))))


@pytest.mark.parametrize(
    ("octets", "esm_class", "data_coding", "text"),
    [
        (b"STOP", 0, 0, "STOP"),
        (b"\x00\x1b\x65", 0, 0, "@€"),
        ("退订".encode("utf-16-be"), 0, 8, "退订"),
        ("é".encode("latin-1"), 0, 3, "é"),
        (b"\x05\x00\x03\x01\x02\x01ARR\x05T", 0x40, 0, "ARRéT"),
        (b"x", 0, 0xF1, "x"),
        (b"\xff\xfe", 0, 4, "\ufffd\ufffd"),
        (b"\xd8", 0, 8, "\ufffd"),
    ],
)
def test_what_people_write_is_read_in_its_alphabet(octets: bytes, esm_class: int, data_coding: int, text: str) -> None:
    [sms] = read_incoming(deliver_sm(octets, esm_class=esm_class, data_coding=data_coding))
    assert (sms.sender, sms.text) == ("447900000001", text)


def test_a_text_too_long_for_its_field_comes_in_one_of_its_own() -> None:
    [sms] = read_incoming(deliver_sm(b"", tlvs=tlv(0x0424, b"STOP")))
    assert sms.text == "STOP"


# --- PDUs ----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.sampled_from([*command_codes.commands.values(), 0x4, 0x5, 0x7FFFFFFF]))
def test_any_octets_are_a_pdu_or_refused_and_nothing_else_happens(body: bytes, command: int) -> None:
    raw = struct.pack(">LLLL", 16 + len(body), command, 0, 1) + body
    try:
        pdu = read(raw)
    except Unreadable:
        return
    assert pdu.sequence == 1
    if pdu.command == "deliver_sm":
        assert len(read_incoming(raw)) == 1
        with suppress(CallbackError):
            assert len(read_receipts(GATEWAY, raw)) == 1


@pytest.mark.parametrize("length", [0, 15, 1 << 20, 0xFFFFFFFF])
def test_a_length_no_pdu_has_ends_the_session(length: int) -> None:
    with pytest.raises(Unreadable, match="octets"):
        length_of(struct.pack(">L", length))


def test_what_is_written_reads_back() -> None:
    pdu = read(write("submit_sm", 7, source_addr="ACME", short_message=b"\x00\xff", data_coding=8))
    assert (pdu.sequence, pdu.text("source_addr"), pdu.octets("short_message")) == (7, "ACME", b"\x00\xff")
    assert pdu.number("data_coding") == 8
    assert read(write("deliver_sm_resp", 9, 0x64)).status == 0x64


# --- statuses ------------------------------------------------------------------------------------------------


def test_every_status_of_the_specification_means_something_and_throttling_blames_nobody() -> None:
    told = {name: value for name, value in vars(consts).items() if name.startswith("SMPP_ESME_") and value}
    meanings = {name: meaning_of(value, {}) for name, value in told.items()}
    assert {name for name, meaning in meanings.items() if meaning is Meaning.THROTTLED} == {
        "SMPP_ESME_RTHROTTLED",
        "SMPP_ESME_RMSGQFUL",
    }
    assert meanings["SMPP_ESME_RINVDSTADR"] is Meaning.PERMANENT
    assert meaning_of(0x4FF, {}) is Meaning.TRANSIENT
    assert meaning_of(0x4FF, {0x4FF: "permanent"}) is Meaning.PERMANENT


def test_settings_refuse_what_smpp_cannot_carry_and_nobody_would_hear() -> None:
    for wrong in (
        {"bind": "transmitter", "receiver": False},
        {"password": "ninechars"},
        {"password": "pässword"},
        {"system_id": "é"},
        {"statuses": {"x": "down"}},
        {"statuses": {"1": "?"}},
    ):
        with pytest.raises(ValueError):
            SmppGateway.model_validate({"type": "smpp", "host": "x", "system_id": "u", "password": "p"} | wrong)
