"""What texts cost, how they are counted, what is put to them; and what a number tells of where its owner is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.numbers import country_of, zone_of
from kernel.gateways import SmppGateway
from kernel.sms_terms import SmsTerms, tariff_of
from templates.files import sms_template
from templates.problems import TemplateProblem
from templates.sms import ComposedSms, SmsStep, with_opt_out
from templates.sms_letters import dear_letters, is_avoidable, plain, plainly
from templates.sms_parts import Encoding, count_cn, split
from tests.unit.mail_samples import BASE_URL, SIGNER, RecordedLinks, person


def gateway(**settings: Any) -> SmppGateway:
    return SmppGateway.model_validate({"type": "smpp", "host": "x", "system_id": "u", "password": "p"} | settings)


def composed(text: str, number: str = "+8613800138000", **terms: Any) -> ComposedSms:
    template = sms_template({"nudge.txt": text}, "nudge", "en")
    step = SmsStep(template=template, signer=SIGNER, base_url=BASE_URL, utm={}, terms=SmsTerms.model_validate(terms))
    return step.compose(message_id=7, address=number, context=person(), links=RecordedLinks())


# --- prices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "micro"),
    [
        ("+447900000001", 40_000),
        ("+441624000001", 55_000),
        ("+12125550100", 7_900),
        ("+18765550100", 210_000),
        ("+8613800138000", 70_000),
    ],
)
def test_the_longest_beginning_with_a_price_counts(number: str, micro: int) -> None:
    prices = {"44": "0.04", "441624": "0.055", "1": "0.0079", "1876": "0.21", "default": "0.07"}
    assert tariff_of(gateway(prices=prices)).micro(number) == micro


def test_without_a_price_of_its_own_a_number_costs_price_or_nobody_knows() -> None:
    assert tariff_of(gateway(price="0.05")).micro("+33612345678") == 50_000
    assert tariff_of(gateway(price="0.05", prices={"44": "0.04"})).micro("+33612345678") == 50_000
    assert tariff_of(gateway(prices={"44": "0.04"})).micro("+33612345678") is None
    assert tariff_of(gateway()).micro("+33612345678") is None
    assert tariff_of(gateway(prices={"44": "0"})).micro("+447900000001") == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": "free"},
        {"price": "-1"},
        {"price": "0.0000001"},
        {"prices": {"+44": "0.04"}},
        {"prices": {"044": "0.04"}},
        {"prices": {"44": "1e3"}},
        {"country": "uk"},
    ],
)
def test_what_is_no_price_prefix_or_country_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        gateway(**wrong)


# --- counting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a" * 70, 1), ("a" * 71, 2), ("中" * 134, 2), ("中" * 135, 3), ("", 1), ("😀" * 35, 1), ("😀" * 36, 2)],
)
def test_chinese_platforms_count_every_character_alike(text: str, parts: int) -> None:
    assert count_cn(text) == parts


def test_the_signature_is_counted_and_not_sent() -> None:
    assert composed("a" * 66, counting="cn").parts == 1
    made = composed("a" * 66, counting="cn", signature="【Acme】")
    assert (made.parts, made.text) == (2, "a" * 66)
    with pytest.raises(TemplateProblem, match="501 characters with its signature"):
        composed("a" * 495, counting="cn", signature="【Acme】")
    # Elsewhere too a signature that is not in the alphabet makes the whole text dear.
    assert composed("a" * 66, signature="【Acme】").encoding is Encoding.UCS2


def test_brackets_belong_to_the_platforms_signature() -> None:
    with pytest.raises(TemplateProblem, match="【 or 】"):
        composed("【Acme】 hello", signature="【Acme】")
    assert composed("【Acme】 hello").text == "【Acme】 hello"


@pytest.mark.parametrize(
    ("text", "wording", "whole"),
    [
        ("Offers!", "Reply STOP to opt out", "Offers! Reply STOP to opt out"),
        ("Offers! reply stop to opt out", "Reply STOP to opt out", "Offers! reply stop to opt out"),
        ("新品上市", "，拒收请回复R", "新品上市，拒收请回复R"),
        ("新品上市，拒收请回复R", "，拒收请回复R", "新品上市，拒收请回复R"),
        ("Offers!", "", "Offers!"),
    ],
)
def test_the_opt_out_wording_ends_every_text_once(text: str, wording: str, whole: str) -> None:
    assert with_opt_out(text, wording) == whole
    assert composed(text, opt_out=wording).text == whole


# --- dear letters --------------------------------------------------------------------------------------------


def test_dear_letters_are_found_where_they_first_stand_and_comments_have_none() -> None:
    source = "{# “notes” \n– of mine #}Don’t miss — it’s\n20 € {{ contact.first_name }} “now”\u00a0`x` ç 😀\r\n"
    found = {one.letter: one for one in dear_letters(source)}
    assert {letter: (one.line, one.column, one.times) for letter, one in found.items()} == {
        "’": (2, 16, 2),
        "—": (2, 24, 1),
        "“": (3, 31, 1),
        "”": (3, 35, 1),
        "\u00a0": (3, 36, 1),
        "`": (3, 37, 2),
        "ç": (3, 41, 1),
        "😀": (3, 43, 1),
    }
    assert [one.instead for one in found.values()] == ["'", "-", '"', '"', " ", "'", "c", None]
    assert found["“"].name == "Left double quotation mark"
    assert (found["\u00a0"].shown, found["\u00a0"].remedy) == ("U+00A0", "write a space")
    assert found["😀"].remedy == "leave it out, or accept the price"
    assert is_avoidable(found.values())


def test_another_script_cannot_be_avoided() -> None:
    assert not is_avoidable(dear_letters("Привет — “друзья”"))
    assert not is_avoidable(dear_letters("退订…"))


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_plain_letters_are_in_the_alphabet_and_plainer_texts_never_dearer(text: str) -> None:
    for letter in text:
        instead = plain(letter)
        assert instead is None or split(instead).encoding is Encoding.GSM7
    if all(plain(letter) is not None for letter in text):
        assert split(plainly(text)).encoding is Encoding.GSM7


# --- numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "country", "zone"),
    [
        ("+12125550100", "US", "America/New_York"),
        ("+13105550100", "US", "America/Los_Angeles"),
        ("+14165550100", "CA", "America/Toronto"),
        ("+18765550100", "JM", "America/Jamaica"),
        ("+18005550100", "US", None),
        ("+447900000001", "GB", "Europe/London"),
        ("+8613800138000", "CN", "Asia/Shanghai"),
        ("+4915112345678", "DE", "Europe/Berlin"),
        ("+88212345678", "ZZ", None),
        ("+999", "ZZ", None),
        ("+", "ZZ", None),
    ],
)
def test_a_number_tells_country_and_zone(number: str, country: str, zone: str | None) -> None:
    assert (country_of(number), zone_of(number)) == (country, zone)
