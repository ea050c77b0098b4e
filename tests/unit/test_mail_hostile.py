"""Hostile data and odd templates: each harms its own message at most, with a reason that can be stored and read."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import InputError
from templates.mail import MailStep
from templates.problems import TemplateProblem
from tests.servers.byte_rules import byte_problems
from tests.unit.mail_samples import bodies, composed, files, parsed, person, step
from tests.unit.test_mail_bytes import EXPECTED_FIELDS
from tests.unit.test_mail_wire import outcome, step_of

MEGABYTE = 1_000_000
GOOD = "https://a.example/Jane"
HOSTILE = {
    "line feed": "Jane\nBcc: eve@evil.example",
    "carriage return": "Jane\rBcc: eve@evil.example",
    "both": "Jane\r\n\r\n<script>",
    "end of data": "\r\n.\r\nMAIL FROM:<eve@evil.example>\r\n",
    "NUL": "Jane\0",
    "escape": "\x1b[2J",
    "half a pair": "\ud83d",
    "line separator": "Jane\u2028Bcc: eve@evil.example",
    "paragraph separator": "\u2029",
    "next line": "\x85",
    "right to left": "\u202eenaJ",
    "not a character": "\ufffe\uffff",
    "a megabyte": "x" * MEGABYTE,
    "a megabyte of signs": "<&\"'=" * (MEGABYTE // 5),
    "a megabyte beyond ASCII": "日" * (MEGABYTE // 3),
    "a megabyte of line ends": "\r\n" * (MEGABYTE // 2),
    "template code": "{{ 7 * 7 }}{% raw %}{# x #}{{ contact.email }}",
    "the end of the page": "</body></html><body>",
    "a part of the message": "--=_45f5b1401cb597396fd4ab92a--\r\n",
    "an encoded word": "=?utf-8?q?=0D=0ABcc:_eve@evil.example?=",
    "a soft break": "=\r\n=0D=0A.",
    "a script": "javascript:alert(1)",
    "a way up": "../../etc/passwd",
    "words the markup needs": "zqj0jqz <!--zqj1jqz-->",
    "a mark of Jinja": "\x02\x03",
}
TEMPLATES = {
    "subject": files("<p>x</p>", subject="Hello {{ contact.first_name }}", text="x"),
    "HTML": files('<p title="{{ contact.first_name }}">{{ contact.first_name }}</p>', subject="Hello", text="x"),
    "text": files("<p>x</p>", subject="Hello", text="{{ contact.first_name }}\n{{ contact.first_name }}"),
    "link": files("<a href='https://a.example/{{ contact.first_name }}'>x</a>", subject="Hello", text="x"),
    "whole link": files("<a href='{{ contact.first_name }}'>x</a>", subject="Hello", text="x"),
    "filters": files(
        "{{ contact.first_name|upper|truncate(30) }}{{ contact.first_name|replace('x', 'yy') }}"
        "{{ contact.first_name|urlencode }}{{ contact.first_name|striptags }}",
        subject="Hello",
        text="{{ contact.first_name|wordcount }}",
    ),
    "wrong kinds": files("<p>{{ contact.first_name|money }}{{ contact.first_name|date }}</p>", subject="Hello"),
}
STEPS = {name: step(made) for name, made in TEMPLATES.items()}


@pytest.mark.parametrize("where", STEPS)
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_value_is_sent_without_harm_or_fails_its_message_soon_and_with_a_reason(
    value: str, where: str
) -> None:
    made = STEPS[where]
    before = composed(made, person(first_name=GOOD)).data if where != "wrong kinds" else b""
    started = time.process_time()
    try:
        mail = composed(made, person(first_name=value))
    except TemplateProblem as problem:
        assert_is_a_reason(str(problem))
    else:
        assert byte_problems(mail.data) == []
        assert [name for name, _ in parsed(mail).items()] == EXPECTED_FIELDS
        assert b"\r\n." not in mail.data
        assert "49" not in mail.subject
        assert "<script>" not in bodies(mail)[1]
    assert time.process_time() - started < 5
    if before:
        assert composed(made, person(first_name=GOOD)).data == before


def assert_is_a_reason(reason: str) -> None:
    assert 10 < len(reason) <= 700
    assert reason.isprintable()
    reason.encode()


@pytest.mark.parametrize("value", [*HOSTILE.values(), "a" * MEGABYTE + "@shop.example"])
def test_a_hostile_address_fails_its_message_with_a_reason(value: str) -> None:
    with pytest.raises(TemplateProblem) as caught:
        composed(STEPS["subject"], address=value)
    assert_is_a_reason(str(caught.value))


# --- templates and data of every kind, made both ways --------------------------------------------------------

VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(list(HOSTILE.values())[:12]),
    st.sampled_from(
        ["", "Jane", "ä=b", "https://x.example/y z", "//x", ".", "  ", "\n", "a\n\nb", "/x", "http", "://"]
    ),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=True),
    st.booleans(),
    st.none(),
    st.lists(st.text(max_size=3), max_size=3),
)
EXPRESSIONS = st.sampled_from(
    [
        *("contact.first_name", "contact.last_name", "contact.attributes.a", "account.name", "brand.name", "subject"),
        *(
            "brand.website",
            "brand.postal_address",
            "footer",
            "unsubscribe_url",
            "preferences_url",
            "campaign",
            "5",
            "x",
        ),
        *("contact.first_name|default('you')", "contact.attributes.a|upper", "contact.attributes.a|join(' ')"),
        *(
            "'<b>' ~ contact.first_name",
            "contact.first_name.upper()",
            "contact['last_name']",
            "rfm.monetary|money",
            "x",
        ),
    ]
)
TEXTS = st.one_of(
    st.text("ab .=\n<>&\"'/:-ä日\t", max_size=25),
    st.sampled_from(["https://a.example/x", " https://b.example. ", "https://", "://", "/", "\n\n\n", ".", "</body>"]),
)


def _pieces(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    blocks = [
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, EXPRESSIONS, inner, inner),
        st.builds("{{% for x in range(3) %}}{}{{% endfor %}}".format, inner),
        st.builds("{{% set x %}}{}{{% endset %}}{{{{ x }}}}".format, inner),
        st.builds("{{% filter upper %}}{}{{% endfilter %}}".format, inner),
        st.builds("{{% macro m(x) %}}{}{{% endmacro %}}{{{{ m(1) }}}}".format, inner),
        st.builds("<p title='{{{{ {} }}}}'>{}</p>".format, EXPRESSIONS, inner),
        st.builds("<a href='https://shop.example/{{{{ {} }}}}'>{}</a>".format, EXPRESSIONS, inner),
        st.builds("<a href='{{{{ {} }}}}'>{}</a>".format, EXPRESSIONS, inner),
        st.builds("<a href='https://shop.example/fixed'>{}</a>".format, inner),
    ]
    return st.lists(st.one_of(inner, *blocks), max_size=4).map("".join)


SOURCES = st.recursive(st.one_of(TEXTS, EXPRESSIONS.map("{{{{ {} }}}}".format)), _pieces, max_leaves=8)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(html=SOURCES, text=st.one_of(st.none(), SOURCES), first=VALUES, last=VALUES, extra=VALUES)
def test_any_template_with_any_data_gives_both_ways_the_same(
    html: str, text: str | None, first: Any, last: Any, extra: Any
) -> None:
    made = files(html, subject="Hello", text=text)
    try:
        ways: tuple[MailStep, MailStep] = (step_of(made, fast=True), step_of(made, fast=False))
    except InputError:
        return
    context = person(first_name=first, last_name=last, attributes={"a": extra})
    fast, plain = (outcome(way, context) for way in ways)
    assert fast == plain
    if isinstance(plain, str):
        assert_is_a_reason(plain)
