from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import InputError
from templates.files import sms_template
from templates.problems import TemplateProblem
from templates.sms import SmsStep
from templates.sms_parts import Encoding, count_parts, split
from tests.unit.mail_samples import BASE_URL, BRAND, SIGNER, RecordedLinks, person

BASIC = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./09:;<=>?¡AZÄÖÑÜ§¿azäöñüà"
EXTENSION = "\f^{}\\[~]|€"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        *(("", 1), ("a" * 160, 1), ("a" * 161, 2), ("a" * 306, 2), ("a" * 307, 3)),
        *(("€" * 80, 1), ("€" * 81, 2), ("€" * 152, 2), ("€" * 153, 3)),
        *(("ы" * 70, 1), ("ы" * 71, 2), ("ы" * 134, 2), ("ы" * 135, 3)),
        *(("😀" * 35, 1), ("😀" * 36, 2), ("😀" * 66, 2), ("😀" * 67, 3)),
    ],
)
def test_the_counts_of_the_reference_hold(text: str, parts: int) -> None:
    assert count_parts(text) == parts


@pytest.mark.parametrize("letter", list("`\tç“”‘’–…ÁêΑ"))
def test_letters_that_only_look_common_need_ucs2(letter: str) -> None:
    assert split(letter).encoding is Encoding.UCS2


@pytest.mark.parametrize("letter", list(BASIC + EXTENSION))
def test_the_7_bit_alphabet_and_its_extension_stay_gsm7(letter: str) -> None:
    assert split(letter).encoding is Encoding.GSM7


@given(
    st.text(st.sampled_from(BASIC + EXTENSION), max_size=700)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=400)
)
def test_parts_join_to_the_text_and_each_one_fits(text: str) -> None:
    made = split(text)
    assert "".join(made.parts) == text
    joined = len(made.parts) > 1
    for part in made.parts:
        if made.encoding is Encoding.GSM7:
            assert sum(2 if letter in EXTENSION else 1 for letter in part) <= (153 if joined else 160)
        else:
            assert len(part.encode("utf-16-be")) // 2 <= (67 if joined else 70)
    assert all(made.parts) or text == ""


def _step(text: str, **options: Any) -> SmsStep:
    template = sms_template({"nudge.txt": text, "nudge.de.txt": f"DE {text}"}, "nudge", options.pop("language", "en"))
    return SmsStep(template=template, signer=SIGNER, base_url=BASE_URL, utm={"source": "sms"}, **options)


def _composed(text: str, context: dict[str, Any] | None = None, links: RecordedLinks | None = None) -> Any:
    made = _step(text, campaign="winback", brand=BRAND)
    context = person() if context is None else context
    return made.compose(message_id=7, address="+447700900123", context=context, links=links or RecordedLinks())


def test_a_link_in_an_sms_is_short_signed_and_leads_to_its_target() -> None:
    links = RecordedLinks()
    sms = _composed(
        "Hi {{ contact.first_name }}: https://shop.example/sale?tier={{ contact.attributes.tier }}.", links=links
    )
    found = re.fullmatch(r"Hi Jane: (\S+)\.", sms.text)
    assert found is not None
    assert links.target(found[1]) == "https://shop.example/sale?tier=gold&utm_source=sms"
    assert (sms.parts, sms.encoding) == (1, Encoding.GSM7)


def test_an_emoji_makes_an_sms_dearer() -> None:
    assert _composed("a" * 100).parts == 1
    assert _composed("a" * 100 + "😀").parts == 2


def test_values_stand_in_an_sms_as_they_are() -> None:
    assert (
        _composed("{{ contact.first_name }} of {{ brand.name }}", person(first_name="A<b>&")).text
        == "A<b>& of Acme & Sons"
    )


def test_a_language_has_a_file_of_its_own_or_the_common_one() -> None:
    made = _step("Hi", language="de-AT")
    assert made.compose(message_id=1, address="+4917012345678", context=person(), links=RecordedLinks()).text == "DE Hi"
    made = _step("Hi", language="fr")
    assert made.compose(message_id=1, address="+33612345678", context=person(), links=RecordedLinks()).text == "Hi"


@pytest.mark.parametrize(
    ("text", "context", "problem"),
    [
        ("{{ contact.attributes.nick }}", person(), "'contact.attributes.nick' is undefined"),
        ("{{ contact.first_name }}", person(first_name=" "), "empty"),
        ("{{ contact.first_name }}", person(first_name="a\0b"), "control character U\\+0000"),
        ("{{ contact.first_name }}", person(first_name="a\ud800b"), "control character U\\+D800"),
        ("{{ contact.first_name }}", person(first_name="a" * 1601), "1,601 characters"),
    ],
)
def test_a_bad_value_fails_this_sms_only(text: str, context: dict[str, Any], problem: str) -> None:
    with pytest.raises(TemplateProblem, match=problem):
        _composed(text, context)


@pytest.mark.parametrize("number", ["447700900123", "+0123456789", "+44 7700 900123", "+44770090012\n3", "", "+123"])
def test_what_is_not_an_e164_number_gets_no_sms(number: str) -> None:
    with pytest.raises(TemplateProblem, match="phone number"):
        _step("Hi").compose(message_id=1, address=number, context=person(), links=RecordedLinks())


def test_a_misspelt_name_in_an_sms_is_found_before_anything_is_sent() -> None:
    with pytest.raises(
        InputError, match=r"templates/nudge.txt:2:1: 'contact.firstname' is undefined \(did you mean 'first_name'\?\)"
    ):
        _step("Hi\n{{ contact.firstname }}")
