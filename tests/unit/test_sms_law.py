"""Hints about what countries ask of marketing by SMS."""

from __future__ import annotations

from typing import Any

import pytest

from campaigns.sms_law import LAWS, about_hours, about_text
from kernel.fields import WindowSpec
from kernel.sms_terms import SmsTerms

CN = {"signature": "【Acme】", "opt_out": "，拒收请回复R"}


def said(country: str, source: str, **terms: Any) -> list[str]:
    return [remark.message for remark in about_text(country, SmsTerms.model_validate(terms), source)]


@pytest.mark.parametrize(
    ("country", "hours", "wrong"),
    [
        ("US", "08:00-21:00", False),
        ("US", "09:00-18:00", False),
        ("US", "07:59-21:00", True),
        ("US", "08:00-21:01", True),
        ("US", "00:00-24:00", True),
        ("CN", "08:00-22:00", True),
        ("GB", "00:00-24:00", False),
        ("ZZ", "00:00-24:00", False),
    ],
)
def test_hours_outside_the_laws_are_told(country: str, hours: str, wrong: bool) -> None:
    remarks = list(about_hours(country, WindowSpec(hours=hours)))
    assert bool(remarks) is wrong
    assert all(LAWS[country].source in remark.hint for remark in remarks)


@pytest.mark.parametrize(
    ("country", "text", "missing"),
    [
        ("US", "Offers! Reply STOP to opt out", False),
        ("US", "Offers! reply stop.", False),
        ("US", "Offers! Non-stopping deals", True),
        ("US", "Offers!", True),
        ("FR", "Promo! STOP au 36180", False),
        ("CA", "Promo! ARRÊT", False),
        ("ES", "BAJA al 36180", False),
        ("BR", "Ofertas!", False),
    ],
)
def test_a_text_that_tells_no_way_out_is_told(country: str, text: str, missing: bool) -> None:
    assert (said(country, text) == [f"nothing says how to opt out, which {country} asks for"]) is missing


def test_the_gateways_wording_is_a_way_out() -> None:
    assert said("US", "Offers!", opt_out="Reply STOP to opt out") == []


@pytest.mark.parametrize(
    ("text", "terms", "about"),
    [
        ("新品上市，欢迎选购", CN, []),
        ("【Acme】新品上市，拒收请回复R", {}, []),
        ("新品上市，拒收请回复R", {}, ["signature"]),
        ("【Acme】新品上市", CN, ["brackets"]),
        ("新品 https://acme.example/{{ account.external_id }}", CN, ["link"]),
        ("新品 www.acme.example", CN, ["link"]),
        ("新品 {{ contact.first_name }} {{ account.name }}", CN, ["side by side"]),
        ("{{ contact.first_name }}", CN, ["all variable"]),
        ("新品上市，回复TD退订", {"signature": "【Acme】"}, ["opt out"]),
    ],
)
def test_chinese_rules(text: str, terms: dict[str, Any], about: list[str]) -> None:
    words = {"brackets": "signature alone", "signature": "no signature"}
    messages = said("CN", text, **terms)
    assert len(messages) == len(about)
    for message, word in zip(messages, about, strict=True):
        assert words.get(word, word) in message
