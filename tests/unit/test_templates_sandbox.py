from __future__ import annotations

import time
from datetime import UTC, date, datetime
from typing import Any

import pytest

from kernel.errors import InputError
from templates.problems import TemplateProblem
from tests.unit.mail_samples import bodies, composed, files, person, step


def rendered(template: str, context: dict[str, Any] | None = None) -> str:
    """Return what a line of text becomes."""
    return bodies(composed(files(text=f"[{template}]"), context))[0].split("]")[0][1:]


class Danger:
    """What must never reach a template; if it does, a template must not be able to use it."""

    secret = "hunter2"

    def delete(self) -> str:
        raise AssertionError("a template called a method of an object")

    def __str__(self) -> str:
        return self.secret


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ contact.__class__ }}",
    "{{ contact.first_name.__class__.__init__.__globals__ }}",
    "{{ contact['__class__'] }}",
    "{{ '{0.__class__}'.format(contact) }}",
    "{{ '{x.__class__}'.format_map({'x': contact}) }}",
    "{{ contact.first_name.format }}",
    "{% set f = contact.first_name.format %}{{ f(1) }}",
    "{{ contact.attributes.update({'x': 1}) }}",
    "{{ contact.attributes.pop('tier') }}",
    "{{ contact.attributes.clear() }}",
    "{{ [1].append(2) }}",
    "{{ range.__globals__ }}",
    "{{ (1).__add__(2) }}",
    "{{ danger.delete() }}",
    "{{ danger.secret }}",
    "{{ danger }}",
    "{{ [danger]|map(attribute='secret')|join }}",
    "{{ [danger]|join }}",
    "{{ contact.attributes.items }}",
    "{{ contact.attributes.items.__self__ }}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "{{ '%s' % contact }}",
    "{{ caller.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ [contact]|map('first_name') }}",
    "{{ ['x']|map('attr', '__class__')|list }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_no_known_escape_works(template: str) -> None:
    wrapped = "{% set danger = account.attributes.danger %}" + template
    with pytest.raises((TemplateProblem, InputError)):
        rendered(wrapped, person() | {"account": {"attributes": {"danger": Danger()}}})


REFUSED = [
    "attr",
    "center",
    "format",
    "indent",
    "pprint",
    "safe",
    "tojson",
    "xmlattr",
    "random",
    "forceescape",
    "batch",
]


@pytest.mark.parametrize("name", ["lipsum", "cycler", "joiner", "namespace", "dict", "self.x", "config", "request"])
def test_jinjas_globals_are_gone(name: str) -> None:
    with pytest.raises((InputError, TemplateProblem)):
        rendered(f"{{{{ {name} }}}}")


@pytest.mark.parametrize("name", REFUSED)
def test_filters_that_are_not_on_the_list_are_refused_at_preparation(name: str) -> None:
    with pytest.raises(InputError, match=f"there is no filter '{name}'"):
        step(files(text="{{ contact.first_name|" + name + " }}"))


HUNGRY = [
    "{{ 'a' * 10**9 }}",
    "{{ [0] * 10**9 }}",
    "{{ 9**9**9 }}",
    "{{ 10**16 * 10**16 }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(9) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for i in range(1000) %}{% for j in range(1000) %}" + "x" * 1000 + "{% endfor %}{% endfor %}",
    "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "{% set a %}xxxxxxxxxx{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
    "{% set a = [1] %}" + "{% set a = a + a %}" * 40 + "{{ a|length }}",
    "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a|replace('x', 'xxxxxxxxxx') %}" * 10 + "{{ a }}",
    "{{ range(1000)|join(contact.attributes.long) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for i in range(1000) %}{{ range(1000)|map('upper')|list|length }}{% endfor %}",
    "{% for i in range(1000) %}{{ range(1000)|sort|length }}{{ range(1000)|unique|list|length }}{% endfor %}",
    "{% for i in range(1000) %}{{ contact.attributes.long|upper|lower|length }}{% endfor %}",
    "{% for i in range(900) %}{{ contact.attributes.long }}{% endfor %}",
    "{% set a %}{% for i in range(900) %}{{ contact.attributes.long }}{% endfor %}{% endset %}{{ a|length }}",
]


@pytest.mark.parametrize("template", HUNGRY, ids=[template[:40] for template in HUNGRY])
def test_a_hungry_template_is_stopped_soon(template: str) -> None:
    made = step(files(text="x" + template))
    started = time.process_time()
    with pytest.raises(TemplateProblem):
        composed(made, person(attributes={"long": "y" * 20_000}))
    assert time.process_time() - started < 5.0, "however busy the machine: without a budget it takes minutes"


@pytest.mark.parametrize(
    "template",
    [
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
        "{{ [" * 1_000,
        "{% if %}",
        "{% endfor %}",
        "{{ 'unclosed }}",
        "{% block a %}",
        "{# never closed",
        "{% raw %}",
        "{% extends 'winback/body.txt' %}",
        "{% include contact.first_name %}",
        "{% include 'nowhere.txt' %}",
        "{% import '../../etc/passwd' as x %}",
        "{% do x %}",
    ],
)
def test_what_cannot_be_compiled_is_a_problem_of_the_file(template: str) -> None:
    with pytest.raises(InputError, match=r"^templates/winback/body.txt:\d+:1: "):
        step(files(text=f"x{template}"))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ contact.first_name|upper }}", "JANE"),
        ("{{ contact.attributes.nick|default('friend') }}", "friend"),
        ("{{ contact.role|default('friend') }}", "friend"),
        ("{{ contact.last_name|d('friend') }}", "friend"),
        ("{{ contact.first_name|default('friend') }}", "Jane"),
        ("{{ 0|default(7) }}", "0"),
        ("{% if contact.attributes.nick is defined %}x{% else %}y{% endif %}", "y"),
        ("{% if rfm %}{{ rfm.segment }}{% endif %}", "at_risk"),
        ("{{ contact.role }}", ""),
        ("{{ rfm.monetary|money }}", "£1,234.50"),
        ("{{ rfm.monetary|money('JPY') }}", "¥1,234"),
        ("{{ 5|money('SEK') }}", "SEK 5.00"),
        ("{{ (0 - 5)|money('PLN') }}", "-5.00 zł"),
        ("{{ 1234567.891|number(2) }}", "1,234,567.89"),
        ("{{ last_order.date|date }}", "18 September 2026"),
        ("{{ last_order.date|date('%a %d.%m.%y, %-d %b') }}", "Fri 18.09.26, 18 Sep"),
        ("{{ '2026-01-05T08:30:00'|date('%H:%M %A') }}", "08:30 Monday"),
        ("{{ last_order.date.year + 1 }}", "2027"),
        ("{{ contact.attributes.tags|join(', ') }}", "a, b"),
        (
            "{% for t in contact.attributes.tags %}{{ loop.index }}{{ t }}{{ loop.last }};{% endfor %}",
            "1aFalse;2bTrue;",
        ),
        ("{% for key, value in contact.attributes.items() %}{{ key }};{% endfor %}", "tags;n;"),
        ("{{ contact.attributes.get('nope', 'x') }}", "x"),
        ("{{ 'a' ~ 1 ~ contact.first_name }}", "a1Jane"),
        ("{{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ 1.5 + 1 }}", "3 3 1024 2.5"),
        ("{% macro hi(name) %}Hi {{ name }}{% endmacro %}{{ hi(contact.first_name) }}", "Hi Jane"),
        ("{% set x %}a{{ contact.id }}{% endset %}{{ x|upper }}", "A5"),
        ("{% raw %}{{ not this }}{% endraw %}", "{{ not this }}"),
        ("{% for n in range(3) %}{{ n }}{% endfor %}", "012"),
        ("{{ contact.first_name.startswith('J') }}", "True"),
        ("{{ contact.attributes.n|round(1) }}", "2.5"),
        ("{{ ['b', 'a']|sort|first }}{{ [1, 2]|sum }}{{ [3, 1]|max }}", "a33"),
        ("{{ contact.first_name[0] }}{{ contact.first_name[1:3] }}", "Jan"),
        ("{% with y = 3 %}{{ y }}{% endwith %}", "3"),
    ],
)
def test_what_templates_may_do(template: str, expected: str) -> None:
    context = person(role=None, last_name="", attributes={"tags": ["a", "b"], "n": 2.46})
    assert rendered(template, context) == expected


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ contact.firstname }}", r"'contact.firstname' is undefined \(did you mean 'first_name'\?\)"),
        ("{{ first_name }}", r"'first_name' is undefined \(did you mean 'contact.first_name'\?\)"),
        ("{{ contcat.first_name }}", r"'contcat' is undefined \(did you mean 'contact'\?\)"),
        ("{{ last_order.total }}", r"'last_order.total' is undefined"),
        ("{% if rfm.segmnt == 'x' %}{% endif %}", r"'rfm.segmnt' is undefined \(did you mean 'segment'\?\)"),
        ("{{ contact.first_name|uper }}", r"there is no filter 'uper' \(did you mean 'upper'\?\)"),
        ("{% if contact is odds %}{% endif %}", r"there is no test 'odds' \(did you mean 'odd'\?\)"),
    ],
)
def test_a_misspelling_is_told_before_anything_is_sent(template: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"^templates/winback/body.txt:3:1: {problem}"):
        step(files(text=f"one\ntwo\n{template}"))


def test_all_misspellings_of_a_file_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        step(files(text="{{ contact.firstname }}\n{{ acount.name }}\n{{ rfm.monetray }}"))
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]


def test_a_date_with_time_and_zone_is_printed_as_it_stands() -> None:
    at = datetime(2026, 3, 1, 7, 5, tzinfo=UTC)
    assert rendered("{{ contact.attributes.at|date('%H:%M') }}", person(attributes={"at": at})) == "07:05"
    assert rendered("{{ contact.attributes.at }}", person(attributes={"at": date(2026, 3, 1)})) == "2026-03-01"
