from __future__ import annotations

import re
from typing import Any

import pytest

from kernel.errors import InputError
from kernel.regions import Region
from templates.problems import TemplateProblem
from tests.servers.byte_rules import byte_problems
from tests.unit.mail_samples import BASE_URL, BRAND, RecordedLinks, bodies, composed, files, parsed, person, step

POSTAL = "1 Dock Road, Leeds LS1 1AA, UK"

OWN_LINKS = "<a href='{{ unsubscribe_url }}'>x</a> <a href='{{ preferences_url }}'>y</a>"
FOOTERS = {
    "none": "<p>Hello</p>",
    "whole": "<p>Hello</p>{{ footer }}",
    "own": f"<p>Hello</p>{{{{ brand.postal_address }}}} {OWN_LINKS}",
    "without address": f"<p>Hello</p>{OWN_LINKS}",
    "never shown": "<p>Hello</p>{% if contact.id < 0 %}{{ footer }}{% endif %}",
    "no end of body": "<html><body><p>Hello</p>",
    "base": "{% extends 'base/plain.html' %}{% block content %}<p>Hello</p>{% endblock %}",
}


@pytest.mark.parametrize("body", FOOTERS.values(), ids=FOOTERS)
@pytest.mark.parametrize("text", [None, "Hello", "Hello {{ footer }}", "Hello {{ unsubscribe_url }}"])
def test_every_message_shows_the_postal_address_and_both_links_in_text_and_html(body: str, text: str | None) -> None:
    mail = composed(files(body, text=text))
    for part in bodies(mail):
        assert POSTAL in part
        assert len(set(re.findall(rf"{BASE_URL}/u/[\w-]+", part))) == 1
        assert len(set(re.findall(rf"{BASE_URL}/p/[\w-]+", part))) == 1
    assert byte_problems(mail.data) == []


@pytest.mark.parametrize("body", [FOOTERS["whole"], FOOTERS["own"], FOOTERS["base"]])
def test_a_template_with_a_footer_gets_no_second_one(body: str) -> None:
    assert [part.count(POSTAL) for part in bodies(composed(files(body)))] == [1, 1]


def test_the_footer_speaks_the_templates_language() -> None:
    made = files() | {"winback/de/body.html": "<p>Hallo</p>"}
    mail = composed(step(made, language="de-AT"))
    assert "Abmelden: https" in bodies(mail)[0]
    assert '<html lang="de-AT">' in bodies(mail)[1]


def test_the_open_pixel_is_the_last_thing_of_the_body() -> None:
    _, html = bodies(composed())
    assert re.search(rf'<img src="{BASE_URL}/o/[\w-]+\.gif" width="1" height="1" alt=""></body>\s*</html>\s*$', html)


def test_links_of_every_kind_are_tracked_or_left_as_they_should_be() -> None:
    links = RecordedLinks()
    html = """<html><head><link href="https://fonts.example/x" rel="stylesheet"></head><body>
      <a href="https://shop.example/a?x=1&amp;y=2#top">static</a>
      <a class=b href=https://shop.example/unquoted>unquoted</a>
      <A HREF='https://shop.example/{{ contact.attributes.tier }}?q={{ contact.first_name|urlencode }}'>dynamic</A>
      <a href="{{ brand.website }}">brand</a>
      <a href="mailto:help@acme.example?subject={{ contact.first_name }}">mail</a>
      <a href="tel:+44113">call</a> <a href="#top">top</a>
      <a href="{{ unsubscribe_url }}">leave</a> <a href="{{ preferences_url }}">choose</a>
      {% for n in [1, 2] %}<a href="https://shop.example/p/{{ n }}">p</a>{% endfor %}
      <!--[if mso]><v:roundrect href="https://shop.example/mso"></v:roundrect><![endif]-->
      <!-- a note to myself <a href="javascript:x">never sent</a> -->
      </body></html>"""
    _, made = bodies(composed(step(files(html), utm={"source": "carillon"}), links=links))
    clicked = [links.target(click) for click in re.findall(rf'href="({BASE_URL}/c/[^"]*)"', made)]
    assert clicked == [
        "https://shop.example/a?x=1&y=2&utm_source=carillon#top",
        "https://shop.example/unquoted?utm_source=carillon",
        "https://shop.example/gold?q=Jane&utm_source=carillon",
        "https://acme.example?utm_source=carillon",
        "https://shop.example/p/1?utm_source=carillon",
        "https://shop.example/p/2?utm_source=carillon",
        "https://shop.example/mso?utm_source=carillon",
    ]
    for kept in ("https://fonts.example/x", "mailto:help@acme.example?subject=Jane", "tel:+44113", "#top"):
        assert f'href="{kept}"' in made
    assert "note to myself" not in made
    assert len(re.findall(rf'href="{BASE_URL}/[up]/', made)) == 4


def test_bare_links_of_a_text_are_tracked_and_punctuation_stays() -> None:
    links = RecordedLinks()
    text = "See https://a.example/x(1), (https://b.example/?q={{ contact.id }}). Or <https://c.example>! "
    text += "{{ unsubscribe_url }}"
    made = bodies(composed(files(text=text), links=links))[0]
    found = re.match(r"See (\S+), \((\S+)\)\. Or <(\S+)>! (\S+)\n", made)
    assert found is not None
    assert [links.target(found[n]) for n in (1, 2, 3)] == [
        "https://a.example/x(1)",
        "https://b.example/?q=5",
        "https://c.example",
    ]
    assert found[4].startswith(f"{BASE_URL}/u/")


BAD_LINKS = ["javascript:alert(1)", "JaVaScRiPt:x", "data:text/html,x", "/relative", "", "https://", "https://a b"]


@pytest.mark.parametrize("value", BAD_LINKS)
def test_a_bad_link_made_from_data_fails_this_message_only(value: str) -> None:
    made = step(files('<p>x</p>\n<a href="{{ contact.attributes.url }}">x</a>'))
    with pytest.raises(TemplateProblem, match=r"^templates/winback/body.html:2: "):
        composed(made, person(attributes={"url": value}))
    composed(made, person(attributes={"url": "https://fine.example"}))


@pytest.mark.parametrize(
    "tag",
    [
        '<a href="javascript:alert(1)">',
        '<a href=" JAVASCRIPT:alert(1)">',
        '<a href="java&#115;cript:alert(1)">',
        '<a href="data:text/html,x">',
        '<a href="vbscript:x">',
        '<a href="www.shop.example">',
        '<a href="/sale">',
        '<a href="">',
        '<a href="https://">',
        '<a href="ftp://x.example/{{ contact.id }}">',
        '<area href="javascript:x">',
        '<!--[if mso]><v:roundrect href="javascript:x"><![endif]-->',
        '<img src="data:image/png;base64,x">',
        '<img src="logo.png">',
    ],
)
def test_a_link_no_message_may_carry_is_found_at_preparation_with_its_line(tag: str) -> None:
    with pytest.raises(InputError, match=r"^templates/winback/body.html:3:1: "):
        step(files(f"<p>\n\n{tag}x</p>"))


def test_values_are_escaped_in_html_and_not_in_text_or_subject() -> None:
    evil = "<script>&\"'"
    mail = composed(files(subject="{{ contact.first_name }}"), person(first_name=evil))
    text, html = bodies(mail)
    assert mail.subject == evil
    assert f"Hello {evil}" in text
    assert "Hello &lt;script&gt;&amp;&#34;&#39;" in html


@pytest.mark.parametrize(
    "escape_attempt",
    [
        "{% set x %}{{ contact.first_name }}{% endset %}{{ x|striptags }}",
        "{% filter striptags %}{{ contact.first_name }}{% endfilter %}",
        "{% set x | striptags %}{{ contact.first_name }}{% endset %}{{ x }}",
        "{{ ['<b>', contact.first_name]|join('<i>') }}",
        "{{ '<b>' ~ contact.first_name }}",
        "{{ contact.first_name|replace('a', '<b>') }}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(contact.first_name)|string }}",
        "{{ contact.first_name|truncate(200) }}",
        "{% filter upper %}{{ contact.first_name }}{% endfilter %}",
    ],
)
def test_no_filter_takes_the_escaping_off(escape_attempt: str) -> None:
    _, html = bodies(composed(files(f"<p>{escape_attempt}</p>", text="x"), person(first_name="&lt;script&gt;<script>")))
    assert "<script>" not in html.lower()


def test_a_subject_on_several_lines_of_its_file_is_one_line() -> None:
    subject = "{% if rfm.segment == 'at_risk' %}\nWe miss you,\n  {{ contact.first_name }}\n{% endif %}\n"
    assert composed(files(subject=subject)).subject == "We miss you, Jane"


@pytest.mark.parametrize("subject", ["", "   \n", "{{ contact.role }}", "{% if 1 > 2 %}x{% endif %}"])
def test_an_empty_subject_fails(subject: str) -> None:
    with pytest.raises(TemplateProblem, match="subject is empty"):
        composed(files(subject=subject), person(role=None))


@pytest.mark.parametrize(
    "subject",
    [
        *("plain", "a " * 60 + "end", "x" * 120, "€20 off", "😀" * 60, "ends with ?=", "=?utf-8?q?Bcc?=", "Käse " * 30),
        *("Ends in a dot.", "Double  space", "tab\there", "日本語の件名 " * 12),
    ],
)
def test_a_subject_comes_back_as_it_was(subject: str) -> None:
    mail = composed(files(subject=subject))
    assert parsed(mail)["Subject"] == mail.subject == " ".join(subject.split())
    assert byte_problems(mail.data) == []


def test_a_template_of_a_few_lines_is_made_a_whole_document() -> None:
    _, html = bodies(composed(files("<p>Hi</p>")))
    assert html.startswith("<!DOCTYPE html>")
    assert html.rstrip().endswith("</body></html>") or html.rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("template", "context", "problem"),
    [
        (
            "<p>\n{{ contact.attributes.frist }}</p>",
            person(attributes={"first": 1}),
            r"body.html:2: 'contact.attributes.frist' is .*'first'",
        ),
        (
            "<p>\n{{ last_order.amount }}</p>",
            {**person(), "last_order": None},
            r"body.html:2: .* has no last_order .*if last_order",
        ),
        ("<p>\n\n{{ account.name.upper().lower().x }}</p>", person(), r"body.html:3: 'x' is undefined"),
        ("{{ contact.attributes }}", person(), r"body.html:1: a group of values cannot be printed"),
        ("{{ contact.id + account.name }}", person(), r"body.html:1: \+ works on numbers only here"),
        ("{{ contact.first_name|money }}", person(), r"body.html:1: money: 'Jane' is not an amount"),
        ("{{ contact.first_name|date }}", person(), r"body.html:1: date: 'Jane' is not a date"),
        ("{{ last_order.date|date('%Q') }}", person(), r"body.html:1: date: %Q is not known"),
        ("{{ 1 / 0 }}", person(), r"body.html:1: ZeroDivisionError"),
    ],
)
def test_what_fails_one_message_is_told_with_file_and_line(
    template: str, context: dict[str, Any], problem: str
) -> None:
    with pytest.raises(TemplateProblem, match=problem):
        composed(files(template, text="x"), context)


def test_a_line_is_right_after_styles_are_inlined_and_blocks_inherited() -> None:
    wrong = "<h1>Hi</h1>\n<p>{{ contact.attributes.nick }}</p>\n"
    html = f"{{% extends 'base/plain.html' %}}\n{{% block content %}}\n{wrong}{{% endblock %}}"
    with pytest.raises(TemplateProblem, match=r"templates/winback/body.html:4: 'contact.attributes.nick'"):
        composed(files(html))
    with pytest.raises(TemplateProblem, match=r"templates/parts/hello.html:2: 'contact.attributes.nick'"):
        composed(
            files("<p>{% include 'parts/hello.html' %}</p>") | {"parts/hello.html": "\n{{ contact.attributes.nick }}"}
        )


def test_a_brand_in_several_lines_stands_on_one() -> None:
    assert BRAND.postal_address.count("\n") == 1
    assert POSTAL in bodies(composed())[0]


CHINA = Region(countries=["CN", "HK"], subject_prefix="广告 ", footer="退订请发邮件至 stop@acme.example & <b>")


def to_country(country: str | None) -> dict[str, Any]:
    return person() | {"account": {"id": 9, "name": "Shop", "country": country, "attributes": {}}}


@pytest.mark.parametrize("body", FOOTERS.values(), ids=FOOTERS)
def test_a_message_bears_what_the_law_of_the_persons_country_wants(body: str) -> None:
    made = step(files(body), regions=[CHINA])
    for country in ("CN", "HK"):
        mail = composed(made, to_country(country))
        assert parsed(mail)["Subject"] == mail.subject == "广告 Jane, we miss you"
        text, html = bodies(mail)
        assert text.count("退订请发邮件至 stop@acme.example & <b>") == 1
        assert html.count("退订请发邮件至 stop@acme.example &amp; &lt;b&gt;") == 1
        assert byte_problems(mail.data) == []
    for country in ("GB", None):
        mail = composed(made, to_country(country))
        assert mail.subject == "Jane, we miss you"
        assert "stop@" not in "".join(bodies(mail))
    assert "stop@" not in "".join(bodies(composed(made)))


def test_a_subject_that_begins_as_the_law_wants_gets_no_second_prefix() -> None:
    mail = composed(step(files(subject="广告:{{ contact.first_name }}"), regions=[CHINA]), to_country("CN"))
    assert mail.subject == "广告:Jane"


def test_a_transactional_message_is_no_advertisement_anywhere() -> None:
    mail = composed(step(regions=[CHINA], transactional=True), to_country("CN"))
    assert mail.subject == "Jane, we miss you"
    assert "stop@" not in "".join(bodies(mail))
