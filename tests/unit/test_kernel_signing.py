"""Tokens: short, tamper-proof, bound to one purpose, in one canonical form."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ConfigError
from kernel.signing import LONGEST_TOKEN, LinkNumbers, Purpose, Signed, Signer

SIGNER = Signer([b"k" * 32])
OLDER = Signer([b"o" * 32])
PURPOSES = st.sampled_from(list(Purpose))
NUMBERS = st.integers(0, 2**63 - 1)


@given(PURPOSES, NUMBERS, NUMBERS)
def test_a_token_says_what_was_signed(purpose: Purpose, message_id: int, number: int) -> None:
    token = SIGNER.token(purpose, message_id, number)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert SIGNER.verify(purpose, token) == Signed(message_id=message_id, number=number)


@given(PURPOSES, PURPOSES, NUMBERS)
def test_a_token_serves_no_other_purpose(made_for: Purpose, shown_as: Purpose, message_id: int) -> None:
    valid = SIGNER.verify(shown_as, SIGNER.token(made_for, message_id)) is not None
    assert valid == (made_for is shown_as)


@given(NUMBERS, NUMBERS, st.data())
def test_changing_any_one_character_makes_a_token_void(message_id: int, number: int, data: st.DataObject) -> None:
    token = SIGNER.token(Purpose.CLICK, message_id, number)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
    changed = token[:place] + other + token[place + 1 :]
    assert changed == token or SIGNER.verify(Purpose.CLICK, changed) is None


@given(st.text(max_size=60))
def test_no_text_whatever_breaks_verification(text: str) -> None:
    assert SIGNER.verify(Purpose.CLICK, text) is None
    assert SIGNER.verify_address(text) is None


@pytest.mark.parametrize("add", ["=", "==", " ", "\n", "A", ".", "%3D"])
def test_a_token_has_one_form_only(add: str) -> None:
    token = SIGNER.token(Purpose.OPEN, 12)
    assert SIGNER.verify(Purpose.OPEN, token + add) is None
    assert SIGNER.verify(Purpose.OPEN, token.replace("_", "/").replace("-", "+") + add) is None


@given(NUMBERS)
def test_a_bounce_address_survives_a_change_of_case(message_id: int) -> None:
    for token in (SIGNER.address_token(message_id), SIGNER.of(message_id).own().bounce):
        assert token == token.lower()
        assert len(f"bounce+{token}") <= 64, "RFC 5321 section 4.5.3.1.1: the local part has at most 64 octets"
        for shown in (token, token.upper(), token.title()):
            assert SIGNER.verify_address(shown) == Signed(message_id=message_id, number=0)


def test_a_return_path_with_one_digit_changed_is_nobodys() -> None:
    token = SIGNER.of(12).own().bounce
    for place, digit in enumerate(token):
        other = "0" if digit != "0" else "1"
        assert SIGNER.verify_address(token[:place] + other + token[place + 1 :]) is None


def test_tokens_are_short() -> None:
    assert len(SIGNER.token(Purpose.CLICK, 10_000_000, 1_000_000)) == 32
    assert len(SIGNER.token(Purpose.CLICK, 2**63 - 1, 2**63 - 1)) == LONGEST_TOKEN


def test_a_new_key_in_front_keeps_old_links_alive() -> None:
    token = OLDER.token(Purpose.UNSUBSCRIBE, 7)
    assert Signer([b"n" * 32, b"o" * 32]).verify(Purpose.UNSUBSCRIBE, token) == Signed(message_id=7, number=0)
    assert Signer([b"n" * 32]).verify(Purpose.UNSUBSCRIBE, token) is None
    assert Signer([b"n" * 32, b"o" * 32]).token(Purpose.OPEN, 7) == Signer([b"n" * 32]).token(Purpose.OPEN, 7)


@pytest.mark.parametrize("ring", [[], [b"short"], [b"k" * 32, b"short"]])
def test_a_weak_ring_is_refused(ring: list[bytes]) -> None:
    with pytest.raises(ConfigError, match="at least 32 characters; make one with `openssl rand -hex 32`"):
        Signer(ring)


def test_tokens_of_the_form_before_stay_valid() -> None:
    """Links in mail that was sent live for years; these were made by the code that signed each with HMAC-SHA256."""
    click = SIGNER.verify(Purpose.CLICK, "RYCt4gTQhgPlO-x0qAQJSyXDwRkHmKr-")
    assert click == Signed(message_id=10_000_000, number=50_000)
    assert SIGNER.verify(Purpose.UNSUBSCRIBE, "RQcAXoAl-HQOVjtrhqN-mJ3k_Q") == Signed(message_id=7, number=0)
    assert SIGNER.verify_address("iudqbveuo7yksefgx6adfgrxojbqcoi") == Signed(message_id=7, number=0)
    assert SIGNER.verify(Purpose.OPEN, "RQcAXoAl-HQOVjtrhqN-mJ3k_Q") is None


@given(NUMBERS, st.lists(NUMBERS, max_size=10))
def test_tokens_made_together_are_those_made_one_by_one(message_id: int, numbers: list[int]) -> None:
    tokens = SIGNER.of(message_id)
    assert [token.decode() for token in tokens.clicks(LinkNumbers(numbers))] == [
        SIGNER.token(Purpose.CLICK, message_id, number) for number in numbers
    ]
    own = tokens.own()
    assert own.opened.decode() == SIGNER.token(Purpose.OPEN, message_id)
    assert own.unsubscribe.decode() == SIGNER.token(Purpose.UNSUBSCRIBE, message_id)
    assert own.preferences.decode() == SIGNER.token(Purpose.PREFERENCES, message_id)


def test_an_endless_token_is_nobodys() -> None:
    assert SIGNER.verify(Purpose.CLICK, "A" * 100_000) is None
