"""STOP in several languages, and callbacks of SMS gateways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.gateways import HttpReceipt
from kernel.vocabulary import MessageEventKind
from workers.inbound import http, kannel
from workers.inbound.callbacks import CallbackError
from workers.inbound.replies import (
    CHINESE_STOP_LETTERS,
    HELP_WORDS,
    START_WORDS,
    STOP_WORDS,
    Reply,
    reading_of,
)
from workers.inbound.sms import international


@pytest.mark.parametrize("word", sorted(STOP_WORDS))
def test_every_stop_word_stops_however_it_is_typed(word: str) -> None:
    for text in (word, word.upper(), f"  {word.capitalize()} \r\n", f"{word}.", f'"{word}!"'):
        assert reading_of(text) is Reply.STOP, text


@pytest.mark.parametrize("letter", sorted(CHINESE_STOP_LETTERS))
def test_a_single_letter_stops_where_texts_ask_for_it_and_answers_a_question_elsewhere(letter: str) -> None:
    for text in (letter, letter.upper(), f" {letter}. ", chr(ord(letter) - ord("a") + 0xFF41)):
        assert reading_of(text, "+8613800138000") is Reply.STOP
        assert reading_of(text, "+12125550100") is Reply.OTHER
        assert reading_of(text) is Reply.OTHER


def test_the_words_the_law_and_the_carriers_name_are_all_there() -> None:
    said = "STOP STOPALL UNSUBSCRIBE END QUIT REVOKE OPTOUT OPT-OUT CANCEL REMOVE ARRET STOPP BAJA TD 退订 拒收"
    assert {reading_of(word) for word in [*said.split(), "Opt Out", "stop all"]} == {Reply.STOP}
    assert {reading_of(word) for word in ("START", "Unstop", "yes")} == {Reply.START}
    assert {reading_of(word) for word in ("HELP", "info?", "Aide", "帮助")} == {Reply.HELP}
    assert not STOP_WORDS & START_WORDS
    assert not HELP_WORDS & (STOP_WORDS | START_WORDS)


@given(st.text(max_size=60), st.sampled_from(["", "+8613800138000", "+12125550100"]))
def test_any_reply_is_read_and_only_whole_words_stop(text: str, sender: str) -> None:
    assert reading_of(text, sender) in Reply
    # Whatever somebody writes, a sentence around it is for people to read.
    assert reading_of(f"please {text} thank you", sender) is Reply.OTHER


WIDE_STOP = "\uff33\uff34\uff2f\uff30"


@pytest.mark.parametrize("text", [WIDE_STOP, "退订", " 拒收 ", "Arrêt", "ARRET", "stop \u3000"])
def test_wide_letters_and_accents_do_not_matter(text: str) -> None:
    assert reading_of(text) is Reply.STOP


@pytest.mark.parametrize(
    "text",
    [
        "please don't stop",
        "stop please",
        "non-stop",
        "STOPP!! nein, weiter",
        "the end of the week",
        "can I cancel order 12?",
        "T-shirt",
        "R2D2",
        "no",
        "weekend",
        "我想退订单里的一件商品",
        "",
        "  ",
        "👍",
    ],
)
def test_a_word_within_others_stops_nothing(text: str) -> None:
    assert reading_of(text) is Reply.OTHER


def test_start_is_told_apart() -> None:
    assert [reading_of(text) for text in ("Start", "UNSTOP", " yes ")] == [Reply.START] * 3


@pytest.mark.parametrize(
    ("sender", "number"),
    [
        ("+447900000001", "+447900000001"),
        ("447900000001", "+447900000001"),
        ("00447900000001", "+447900000001"),
        ("+44 7900 000001", "+447900000001"),
        ("+86 138 0013 8000", "+8613800138000"),
        ("ACME", None),
        ("60606", None),
        ("", None),
    ],
)
def test_a_senders_number_is_brought_to_one_form(sender: str, number: str | None) -> None:
    assert international(sender) == number


MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="client_ref"\r\n\r\nr\r\n'
    b'--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n9\r\n'
    b'--x\r\nContent-Disposition: form-data; name="status"\r\n\r\nfailed\r\n--x--\r\n'
)
RULES = HttpReceipt(message="data.ref", gateway_id="data.id", status="data.state", delivered=["DELIVRD"])


def test_a_json_receipt_is_read_by_the_fields_the_file_names() -> None:
    body = b'[{"data": {"ref": "abc", "id": 7, "state": "delivrd"}}, {"data": {"ref": "d", "state": "enroute"}}]'
    first, second = http.read_receipts(RULES, "", "application/json", body)
    assert (first.ref, first.gateway_id, first.kind) == ("abc", "7", MessageEventKind.DELIVERED)
    assert (second.ref, second.kind, second.detail) == ("d", None, "enroute")


@pytest.mark.parametrize(
    ("query", "content_type", "body"),
    [
        ("client_ref=r&id=9&status=failed", "", b""),
        ("", "application/x-www-form-urlencoded", b"client_ref=r&id=9&status=failed"),
        ("client_ref=r", "application/json; charset=utf-8", b'{"id": 9, "status": "FAILED"}'),
        (
            "",
            "multipart/form-data; boundary=x",
            MULTIPART,
        ),
    ],
)
def test_a_receipt_may_come_in_any_form(query: str, content_type: str, body: bytes) -> None:
    [receipt] = http.read_receipts(HttpReceipt(), query, content_type, body)
    assert (receipt.ref, receipt.gateway_id, receipt.kind) == ("r", "9", MessageEventKind.UNDELIVERED)


@pytest.mark.parametrize("body", [b"<xml/>", b"7", b"[1]", b"[" * 100_000, b"\xff"])
def test_a_body_in_no_known_form_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(CallbackError, match="body is"):
        http.read_receipts(HttpReceipt(), "", "text/plain", body)


@pytest.mark.parametrize(
    ("type_", "kind"),
    [("1", "delivered"), ("2", "undelivered"), ("4", "delayed"), ("8", None), ("16", "undelivered")],
)
def test_kannels_types_become_our_words(type_: str, kind: str | None) -> None:
    [receipt] = kannel.read_receipts(f"ref=abc&type={type_}&answer=ACK%2F&id=77")
    assert (receipt.ref, receipt.gateway_id, receipt.kind) == ("abc", "77", kind)


def test_a_type_kannel_does_not_have_is_refused() -> None:
    with pytest.raises(CallbackError, match="type '3'"):
        kannel.read_receipts("ref=abc&type=3")
