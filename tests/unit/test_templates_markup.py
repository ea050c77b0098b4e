from __future__ import annotations

import pytest

from kernel.errors import InputError
from templates.files import email_template
from templates.lint import lint
from templates.problems import TemplateProblem
from tests.servers.byte_rules import byte_problems
from tests.unit.mail_samples import BRAND, SENDER, RecordedLinks, bodies, composed, files, person, step

MJML = """{% extends "base/plain.mjml" %}
{% set shop = "https://shop.example" %}
{% block preheader %}Hi {{ contact.first_name }}{% endblock %}
{% block column %}
<mj-text>Hello {{ contact.first_name }}{% if rfm %}, {{ rfm.recency_days }} days{% endif %}.</mj-text>
{% if rfm.recency_days > 60 and rfm.segment == "at_risk" %}
<mj-button href="{{ shop }}/back?a=1&amp;b={{ contact.id }}">Come <b>back</b></mj-button>
{% else %}
<mj-button href="https://shop.example/static">Stay</mj-button>
{% endif %}
<mj-table>{% for n in [1, 2] %}<tr><td>Row {{ n }}</td></tr>{% endfor %}</mj-table>
{{ contact.attributes.nick|default("") }}
{% endblock %}
"""


def mjml(source: str) -> dict[str, str]:
    return {"winback/subject.txt": "Hi", "winback/body.mjml": source}


def test_mjml_keeps_its_jinja_in_texts_attributes_and_between_elements() -> None:
    links = RecordedLinks()
    mail = composed(mjml(MJML), links=links)
    text, html = bodies(mail)
    assert byte_problems(mail.data) == []
    assert "Hello Jane, 63 days." in text
    assert "Hello Jane, 63 days." in html
    assert links.urls == ["https://shop.example/static", "https://shop.example/back?a=1&b=5"]
    assert "Come <b>back</b></a>" in html
    assert "Stay" not in html
    assert "<tr><td>Row 1</td></tr><tr><td>Row 2</td></tr></table>" in html
    assert "mj-" not in html.replace("mj-column", "").replace("mj-outlook", "")
    assert "zqj" not in html


def test_mjml_takes_the_other_branch_for_another_person() -> None:
    context = person() | {"rfm": {"segment": "champions", "recency_days": 3}}
    text, html = bodies(composed(mjml(MJML), context))
    assert "Stay" in html
    assert "Stay (https://go.acme.example/c/" in text
    assert "Come" not in html


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "<mjml>\n<mj-body>\n<mj-sectoin></mj-sectoin></mj-body></mjml>",
            r"body.mjml:3:1: unknown MJML element <mj-sectoin> \(did you mean 'mj-section'",
        ),
        ("<mjml><mj-body><mj-section></mj-body></mjml>", r"body.mjml:1:1: is not MJML"),
        ("<p>Hello</p>", r"body.mjml:1:1: an MJML body stands between <mjml> and </mjml>"),
        ("{{ contact.first_name }}<mjml><mj-body></mj-body></mjml>", r"body.mjml:1:1: .* stands outside <mjml>"),
        (
            '<mjml><mj-body>\n<mj-hero><mj-button href="javascript:x">x</mj-button></mj-hero></mj-body></mjml>',
            "body.mjml:2:1: .*javascript",
        ),
    ],
)
def test_mjml_that_is_wrong_is_told_with_its_line(source: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        step(mjml(source))


def test_an_undefined_value_in_mjml_is_told_with_the_line_of_the_file() -> None:
    source = MJML.replace('contact.attributes.nick|default("")', "contact.attributes.nick")
    with pytest.raises(TemplateProblem, match=r"^templates/winback/body.mjml:12: 'contact.attributes.nick'"):
        composed(mjml(source))


def test_styles_are_inlined_once_and_jinja_survives_in_every_place() -> None:
    html = """<html><head><style>td.gold { color: red } a:hover { color: blue }
@media (max-width: 1px) { td { color: {{ brand.color }} } }</style></head><body>
<table>{% for n in [1, 2] %}<tr {% if n == 1 %}id="first"{% endif %}>
<td class="{{ contact.attributes.tier }}">{{ n }}</td>
<td class="gold" style="width: {{ n }}px">x</td></tr>{% endfor %}</table>
<ul>{% for n in [1, 2] %}<li>{{ n }}</li>{% endfor %}</ul></body></html>"""
    made = bodies(composed(files(html, text="x")))[1]
    assert made.count('<td class="gold">') == 2  # A class that data makes is unknown when styles are inlined.
    assert 'style="color: red;width: 1px' in made.replace("; width", ";width")
    assert made.count('id="first"') == 1
    assert "@media (max-width: 1px)" in made
    assert "#1f4e79" in made
    assert "<li>1</li><li>2</li>" in made
    assert "zqj" not in made


def test_the_text_is_derived_from_the_html_as_a_person_would_write_it() -> None:
    html = """<html><head><title>no</title><style>p {}</style></head><body>
<div style="display:none">preheader</div><h1>Hello   {{ contact.first_name }}</h1><p>One<br>two &amp; three</p>
<ul>{% for n in [1, 2] %}<li>item {{ n }}</li>{% endfor %}</ul>
<p>{% if contact.id > 3 %}Big{% else %}Small{% endif %}</p>{% if contact.id > 9 %}<p>never</p>{% endif %}
<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>
<img src="https://x.example/i.png" alt="A picture"><img src="https://x.example/j.png" alt="">
<a href="mailto:help@acme.example">help@acme.example</a> <a href="https://shop.example/">Shop</a> <a href="#x">up</a>
</body></html>"""
    links = RecordedLinks()
    text = bodies(composed(files(html), links=links))[0].split("\n-- \n")[0]
    click = text[text.index("(https") + 1 :].split(")")[0]
    assert links.target(click) == "https://shop.example/"
    assert text.replace(click, "CLICK").strip() == (
        "Hello Jane\n\nOne\ntwo & three\n\n- item 1\n- item 2\n\nBig\n\na b\nc d\n\n"
        "A picture help@acme.example (mailto:help@acme.example) Shop (CLICK) up"
    )


def test_advice_is_given_on_what_will_fare_badly() -> None:
    html = """<p>Visit www.acme.example</p>
<img src="https://x.example/i.png">
<p class={{ contact.attributes.tier }}>x</p><form></form>
"""
    template = email_template(files(html, subject="{{ contact.first_name }} " * 20), "winback", "en")
    advice = lint(template, person(), brand=BRAND, sender=SENDER)
    for wanted in (
        "html:1: an address without https",
        "html:2: an image without alt",
        "html:3: a value in an attribute",
    ):
        assert [line for line in advice if wanted in line], wanted
    for wanted in ("characters of text", "subject has 99 characters", "mail programs remove"):
        assert [line for line in advice if wanted in line], wanted


def test_a_sound_email_gets_no_advice_but_a_huge_one_does() -> None:
    sound = files("<p>" + "Fine words. " * 200 + '</p><img src="https://x.example/i.png" alt="">', subject="Hello")
    assert lint(email_template(sound, "winback", "en"), person(), brand=BRAND, sender=SENDER) == []
    huge = files("<p>" + "Fine words. " * 10_000 + "</p>", subject="Hello")
    assert "Gmail hides" in lint(email_template(huge, "winback", "en"), person(), brand=BRAND, sender=SENDER)[0]


@pytest.mark.parametrize("base", ["plain.html", "plain.mjml"])
def test_a_shipped_base_template_with_its_text_makes_a_whole_email(base: str) -> None:
    body = "<mj-text>Hello</mj-text>" if base.endswith("mjml") else "<p>Hello</p>"
    block = "column" if base.endswith("mjml") else "content"
    made = {
        "winback/subject.txt": "Hi",
        f"winback/body.{base[6:]}": f'{{% extends "base/{base}" %}}{{% block {block} %}}{body}{{% endblock %}}',
        "winback/body.txt": '{% extends "base/plain.txt" %}{% block content %}Hello{% endblock %}',
    }
    mail = composed(made)
    text, html = bodies(mail)
    assert byte_problems(mail.data) == []
    assert text.startswith("Hello\n\n-- \nAcme & Sons, 1 Dock Road")
    assert "Acme &amp; Sons" in html
