"""Bodies put together from pieces are those that plain rendering gives, or are left to it."""

from __future__ import annotations

import binascii
import threading
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.regions import Region
from templates import mail as mail_module
from templates.footer import Laws
from templates.links import Tracking
from templates.mail import MailStep
from templates.problems import TemplateProblem
from templates.quoting import quoted, quoted_value
from templates.wire_values import GaveUp
from tests.servers.byte_rules import byte_problems
from tests.unit.mail_samples import (
    BASE_URL,
    BRAND,
    SENDER,
    SENT,
    SIGNER,
    RecordedLinks,
    bodies,
    composed,
    email_template,
    files,
    person,
)

TEMPLATES = {
    "short": files(),
    "own text": files(text="Dear {{ contact.first_name }},\nhttps://a.example/x. Or https://b.example\n{{ footer }}"),
    "branches": files(
        "{% extends 'base/plain.html' %}{% block content %}<h1>Hi {{ contact.first_name|default('there') }}</h1>\n"
        "{% if contact.last_name %}<p>{{ contact.last_name }}  =  {{ contact.first_name }}</p>{% endif %}\n\n\n"
        "{% if last_order %}<p>{{ last_order.amount|money }}</p>{% endif %}"
        "<a href='https://shop.example/{{ contact.id }}?q={{ contact.attributes.tier|urlencode }}'>x</a>"
        "<a href='https://shop.example/fixed?a=1&amp;b=2'>y</a><a href='{{ brand.website }}'>z</a>{% endblock %}"
    ),
    "loops": files(
        "<ul>{% for n in range(3) %}<li>{{ n }} {{ contact.first_name }} <a href='https://a.example/'>a</a></li>\n"
        "{% endfor %}</ul>\n",
        text="{% for n in range(3) %}{{ n }}: {{ contact.last_name }}\n{% endfor %}{{ unsubscribe_url }}\n\n",
    ),
    "macros": files(
        "{% macro hi(name) %}<b>{{ name }}</b> <a href='https://m.example/{{ name|urlencode }}'>m</a>{% endmacro %}"
        "{{ hi(contact.first_name) }}{% set x %}{{ contact.last_name }}!{% endset %}{{ x }}{{ x }}"
        "{% filter upper %}{{ contact.first_name }}{% endfilter %}",
        text="{{ contact.first_name }}\n\n{{ brand.name }} {{ brand.website }} {{ campaign }}\n{{ subject }}",
    ),
    "own links": files(
        "<p>{{ brand.postal_address }} <a href='{{ unsubscribe_url }}'>u</a> <a href='{{ preferences_url }}'>p</a>"
        "{% if contact.last_name %}{{ footer }}{% endif %}</p>",
        text="{{ brand.postal_address }}: {{ unsubscribe_url }} {{ preferences_url }}\n. \n.{{ contact.first_name }}",
    ),
    "chinese": files("<p>{{ contact.first_name }}您好我们想念您{{ contact.last_name }}</p>" * 30, text="您好 " * 20),
    "links that go on": files(
        "<p>x</p>", text="See https://a.example/{{ contact.first_name }}/b and https://{{ contact.last_name }} end"
    ),
    "ends with a value": files("<p>x</p>\n{{ contact.last_name }}", text="\n\nHello\n\n{{ contact.last_name }}"),
}
CHINA = Region(countries=["CN"], subject_prefix="AD ", footer="Opt out: stop@acme.example <24 h>")
CERTAIN = ("short", "links that go on", "own text", "branches", "loops", "macros")
"""Templates whose plain values never need the plain way for the HTML."""
NAMES = st.one_of(
    st.text(max_size=30),
    st.text("ab .=\n<&'\"/:h\u00e4日", max_size=30),
    st.sampled_from(["", "Jane", "https://x.example/y", "//x", "a" * 200, "é" * 90, ".", " ", "a  b ", "<b>&amp;</b>"]),
)


def step_of(made: dict[str, str], *, fast: bool) -> MailStep:
    return MailStep(
        template=email_template(made, "winback", "en"),
        brand=BRAND,
        sender=SENDER,
        signer=SIGNER,
        base_url=BASE_URL,
        list_id="winback.acme.example",
        campaign="winback",
        utm={"source": "carillon"},
        regions=[CHINA],
        installation="0123456789ab",
        fast=fast,
    )


STEPS = {name: (step_of(made, fast=True), step_of(made, fast=False)) for name, made in TEMPLATES.items()}


class NamedLinks:
    """Gives each target an id that follows from it: both ways register links, but not in one order."""

    def link_id(self, url: str) -> int:
        return zlib.crc32(url.encode())


def outcome(step: MailStep, context: dict[str, Any]) -> tuple[str, str, str] | str:
    """Return subject, text and HTML of a message, or why there is none."""
    try:
        mail = composed(step, context, NamedLinks())
    except TemplateProblem as problem:
        return str(problem)
    assert byte_problems(mail.data) == []
    assert b"\r\n." not in mail.data
    return mail.subject, *bodies(mail)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40)
@given(first=NAMES, last=NAMES, tier=NAMES, country=st.sampled_from(["CN", "GB", None]))
def test_pieces_give_what_plain_rendering_gives(
    name: str, first: str, last: str, tier: str, country: str | None
) -> None:
    context = person(first_name=first, last_name=last, attributes={"tier": tier})
    context["account"]["country"] = country
    fast, plain = STEPS[name]
    assert outcome(fast, context) == outcome(plain, context)


@pytest.mark.parametrize("name", CERTAIN)
def test_plain_values_need_no_second_rendering(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(raw: bytes) -> tuple[bytes, bytes]:
        raise AssertionError(f"rendered the plain way: {raw[:40]!r}")

    monkeypatch.setattr(mail_module, "encoded", never)
    composed(STEPS[name][0], person(first_name="Jürgen", last_name="O'Hara & Sons"))


@pytest.mark.parametrize("value", ["see https://x.example", "//x.example", "a\rb", "a\0b", "\ud800"])
def test_what_the_fast_way_is_not_sure_of_it_leaves(value: str) -> None:
    made = STEPS["ends with a value"][0]
    variables = {**person(last_name=value), "subject": "", "footer": ""}
    tracking = Tracking(made._tracking, 7, RecordedLinks())
    with pytest.raises((GaveUp, UnicodeEncodeError)):
        made._wire.text(variables, tracking, Laws(BRAND, "en", ()).common)


@given(st.lists(st.text("ab .=\n\t\u00e4日😀<", max_size=120), max_size=8))
def test_quoted_pieces_join_to_one_text_that_needs_no_stuffing_and_no_canonicalisation(texts: list[str]) -> None:
    pieces = [quoted_value(text) if index % 2 else quoted(text.encode()) for index, text in enumerate(texts)]
    body = b"".join(pieces) + b"\r\n"
    assert binascii.a2b_qp(body) == "".join([*texts, "\n"]).replace("\n", "\r\n").encode()
    for line in body.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith(b".")
        assert not line.endswith((b" ", b"\t"))
        assert b"  " not in line
        assert b"\t" not in line


def test_two_threads_may_share_a_step() -> None:
    step = STEPS["branches"][0]
    wanted = {n: step.compose(**message(n)).data for n in range(50)}
    wrong: list[int] = []

    def compose_all() -> None:
        wrong.extend(n for n in range(50) for _ in range(5) if step.compose(**message(n)).data != wanted[n])

    threads = [threading.Thread(target=compose_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def message(number: int) -> dict[str, Any]:
    context = person(first_name=f"Jane {number}", last_name="Doe" if number % 3 else "")
    return {
        "message_id": number,
        "address": f"jane{number}@shop.example",
        "context": context,
        "date": SENT,
        "links": RecordedLinks(),
    }
