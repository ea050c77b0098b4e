"""What would fare badly is seen before it is sent, in the files and in a message as it would leave."""

from __future__ import annotations

import pytest

from templates.files import email_template
from templates.lint import lint
from templates.mail_law import breaches
from templates.odd_people import anybody, odd_people
from templates.problems import TemplateProblem
from tests.unit.mail_samples import BRAND, SENDER, composed, files, person, step

TEXT = "Fine words about fine goods. " * 60


def advice(html: str, *, text: str | None = None, **more: str) -> list[str]:
    made = files(html, subject="Hello", text=text) | more
    return lint(email_template(made, "winback", "en"), person(), brand=BRAND, sender=SENDER)


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ('<img src="https://x.example/i.png">', "body.html:1: an image without alt text"),
        ("<p class={{ contact.first_name }}>", "body.html:1: a value in an attribute without quotes"),
        ("<p>\nwww.acme.example</p>", "body.html:2: an address without https://"),
        ("<form></form>", "body.html:1: mail programs remove this element"),
        ("\n{% include 'parts/foot.html' %}", "templates/parts/foot.html:2: an image without alt text"),
        ('<a href="http://shop.example/x">x</a>', "the link http://shop.example/x is not encrypted"),
        ('<a href="https://192.0.2.1/x">x</a>', "the link https://192.0.2.1/x leads to a bare IP address"),
        ('<a href="https://[2001:db8::1]/x">x</a>', "leads to a bare IP address"),
        ('<a href="https://me@evil.example/">x</a>', "has an @ before its host"),
        ('<a href="https://evil.example/">www.bank.example</a>', "reads www.bank.example leads to evil.example"),
        ('<a href="https://evil.example/">https://bank.example/x</a>', "leads to evil.example"),
        ('<a href="https://evil.example/{{ contact.id }}">bank.example</a>', "leads to evil.example"),
        ("<p>" + "long " * 25_000 + "</p>", "Gmail hides what lies beyond 102,000"),
    ],
)
def test_what_would_fare_badly_is_told_once(html: str, words: str) -> None:
    found = advice(f"{html}<p>{TEXT}</p>", **{"parts/foot.html": '<p>\n<img src="https://x.example/i.png"></p>'})
    assert len([line for line in found if words in line]) == 1, found
    assert len(found) == 1, found


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://shop.example/x">shop.example</a>',
        '<a href="https://www.shop.example/x">shop.example/x</a>',
        '<a href="https://shop.example/">Fine goods.</a> <a href="mailto:a@b.example">a@b.example</a>',
        '<a href="{{ unsubscribe_url }}">Leave</a> <a href="{{ preferences_url }}">Choose</a> <a href="#top">up</a>',
        '<img src="https://x.example/i.png" alt=""><p class="{{ contact.first_name }}">x</p>',
    ],
)
def test_what_is_sound_gets_no_advice(html: str) -> None:
    assert advice(f"{html}<p>{TEXT}</p>") == []


def test_a_text_that_says_another_thing_than_the_html_is_told() -> None:
    words = " ".join(f"word{number} other{number}" for number in range(100))
    found = advice(f"<p>{words}</p>", text="Read it in your browser. " * 60)
    assert ["words of the HTML are not in the text" in line for line in found] == [True]
    assert advice(f"<p>{words}</p>", text=words) == []


def test_the_shipped_base_templates_give_no_advice_of_their_own() -> None:
    body = f"{{% extends 'base/plain.html' %}}{{% block content %}}<p>{TEXT}</p>{{% endblock %}}"
    assert advice(body) == []


@pytest.mark.parametrize(
    ("subject", "text", "count"),
    [
        ("广告 Hello", "opt out: stop@acme.example", 0),
        ("AD: Hello", "opt out: stop@acme.example", 0),
        ("Hello 广告", "opt out: stop@acme.example", 1),
        ("Hello", "no address", 2),
    ],
)
def test_chinas_law_is_known_and_others_want_nothing_more(subject: str, text: str, count: int) -> None:
    assert len(list(breaches("CN", subject, text))) == count
    assert list(breaches("GB", subject, text)) == []


def test_a_careful_template_serves_every_odd_person() -> None:
    html = (
        "<p>Hello {{ contact.first_name|default('there') }} of {{ account.name }}"
        "{% if last_order %}, {{ last_order.amount|money }}{% endif %}{% if rfm %}, {{ rfm.segment }}{% endif %}"
        " {{ contact.attributes.tier|default('') }}</p>"
    )
    made = step(files(html, subject="For you"))
    for context in odd_people(anybody()).values():
        composed(made, context)


@pytest.mark.parametrize(
    ("html", "who"),
    [
        ("{{ rfm.segment }}", {"somebody who never bought"}),
        ("{{ contact.attributes.tier }}", {"somebody without attributes"}),
        ("{{ account.name[0] }}", {"somebody without an account"}),
        ("{{ contact.first_name[0] }}", {"somebody without a name"}),
    ],
)
def test_a_careless_template_fails_for_those_it_forgot(html: str, who: set[str]) -> None:
    made = step(files(f"<p>x {html}</p>", subject="For you"))
    context = {**person(attributes={"tier": "gold"}), "rfm": None}
    failing = set()
    for name, odd in odd_people(context).items():
        try:
            composed(made, odd)
        except TemplateProblem:
            failing.add(name)
    assert failing == who
