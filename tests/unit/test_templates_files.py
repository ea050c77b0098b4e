from __future__ import annotations

from pathlib import Path

import pytest

from kernel.errors import InputError
from kernel.vocabulary import Channel
from templates.files import email_template, sms_template, template_files, template_names
from templates.sources import shipped_files
from tests.unit.mail_samples import bodies, composed, files, step


def written(root: Path, made: dict[str, str]) -> Path:
    for path, text in made.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


def test_a_step_pins_every_file_it_uses_in_every_language(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            "winback/subject.txt": "Hi",
            "winback/body.html": "{% extends 'base/plain.html' %}{% include 'parts/a.html' %}",
            "winback/de/subject.txt": "Hallo",
            "parts/a.html": "{% import 'parts/b.html' as b %}{% include 'parts/none.html' ignore missing %}",
            "parts/b.html": "",
            "other/subject.txt": "not ours",
            "winback/notes.md": "not a template",
        },
    )
    pinned = template_files(root, "winback", Channel.EMAIL)
    assert set(pinned) == {
        *("winback/subject.txt", "winback/body.html", "winback/de/subject.txt"),
        *("parts/a.html", "parts/b.html", "base/plain.html"),
    }
    assert pinned["base/plain.html"] == shipped_files()["base/plain.html"]


def test_a_workspaces_own_base_template_wins_over_the_shipped_one(tmp_path: Path) -> None:
    root = written(
        tmp_path, {"a/subject.txt": "x", "a/body.html": "{% extends 'base/plain.html' %}", "base/plain.html": "mine"}
    )
    assert template_files(root, "a", Channel.EMAIL)["base/plain.html"] == "mine"


def test_an_sms_pins_its_languages(tmp_path: Path) -> None:
    root = written(tmp_path, {"nudge.txt": "Hi", "nudge.de.txt": "Hallo", "nudge-two.txt": "no", "a/subject.txt": "no"})
    assert set(template_files(root, "nudge", Channel.SMS)) == {"nudge.txt", "nudge.de.txt"}
    assert template_names(root, Channel.SMS) == ["nudge", "nudge-two"]
    assert template_names(root, Channel.EMAIL) == ["a"]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"wimback/subject.txt": "x"}, r"templates/winback/subject.txt: is missing \(did you mean 'wimback'\?\)"),
        (
            {"winback/body.html": "{% include 'nope.html' %}"},
            r"winback/body.html:1:1: there is no template file",
        ),
        (
            {"winback/body.html": "x\n{% include '../secret.txt' %}"},
            r"winback/body.html:2:1: .* lies outside",
        ),
        ({"winback/body.html": "{% include contact.x %}"}, r"must be written out"),
        ({"winback/body.html": "{% extends 'a' if x else 'b' %}"}, r"must be written out"),
        ({"winback/body.html": "{{ broken"}, r"templates/winback/body.html:1:1: "),
    ],
)
def test_a_missing_file_is_told_where_it_is_named(tmp_path: Path, made: dict[str, str], problem: str) -> None:
    written(tmp_path, {"secret.txt": "x"})
    with pytest.raises(InputError, match=problem):
        template_files(written(tmp_path / "templates", made), "winback", Channel.EMAIL)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("hunter2")
    root = written(
        tmp_path / "templates", {"winback/subject.txt": "{% include 'leak.txt' %}", "winback/body.html": "x"}
    )
    (root / "leak.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InputError, match="lies outside"):
        template_files(root, "winback", Channel.EMAIL)


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", "Grüße".encode("latin-1")])
def test_a_file_that_is_not_utf8_says_so(tmp_path: Path, raw: bytes) -> None:
    root = written(tmp_path, {"winback/subject.txt": "x", "winback/body.html": ""})
    (root / "winback/body.html").write_bytes(raw)
    with pytest.raises(InputError, match=r"templates/winback/body.html:1:1: is not UTF-8"):
        template_files(root, "winback", Channel.EMAIL)


def test_windows_files_are_read_like_others(tmp_path: Path) -> None:
    root = written(tmp_path, {"winback/subject.txt": "x"})
    (root / "winback/body.html").write_bytes(b"\xef\xbb\xbf<p>\r\nHi</p>\r\n")
    assert template_files(root, "winback", Channel.EMAIL)["winback/body.html"] == "<p>\nHi</p>\n"


def test_a_language_takes_what_it_lacks_from_the_common_folder() -> None:
    made = files() | {
        "winback/de/subject.txt": "Hallo",
        "winback/body.txt": "Hi",
        "winback/fr/body.mjml": "<mjml></mjml>",
    }
    german = email_template(made, "winback", "de-AT")
    assert (german.subject, german.body, german.text) == (
        "winback/de/subject.txt",
        "winback/body.html",
        "winback/body.txt",
    )
    french = email_template(made, "winback", "fr")
    assert (french.subject, french.body, french.text) == ("winback/subject.txt", "winback/fr/body.mjml", None)


def test_all_that_an_email_lacks_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        email_template({}, "winback", "en")
    assert [problem.path for problem in caught.value.problems] == [
        "templates/winback/body.html",
        "templates/winback/subject.txt",
    ]
    with pytest.raises(InputError, match=r"templates/nudge.txt: is missing"):
        sms_template({}, "nudge", "en")


def test_inheritance_over_three_files_keeps_what_super_says() -> None:
    made = files("{% extends 'b.html' %}{% block content %}child {{ super() }}{% endblock %}", text="x") | {
        "b.html": "{% extends 'c.html' %}{% block content %}middle {{ super() }}{% endblock %}"
        "{% block end %}end{% endblock %}",
        "c.html": "<p>{% block content %}top{% endblock %}</p>{% block end %}no{% endblock %}",
    }
    assert "<p>child middle top</p>end" in bodies(composed(made))[1]


def test_definitions_of_an_heir_are_seen_in_its_blocks() -> None:
    html = """{% extends "base/plain.html" %}
{% from "parts/button.html" import button %}
{% set shop = "https://shop.example" %}
{% macro line(x) %}<i>{{ x }}</i>{% endmacro %}
this text is not printed
{% block content %}{{ line("A") }}{{ button(shop ~ "/x", "Buy & go") }}{% endblock %}"""
    made = files(html, text="x") | {
        "parts/button.html": "{% macro button(url, label) %}<a href='{{ url }}'>{{ label }}</a>{% endmacro %}"
    }
    body = bodies(composed(made))[1]
    assert '<i>A</i><a href="https://go.acme.example/c/' in body
    assert "Buy &amp; go</a>" in body
    assert "not printed" not in body


@pytest.mark.parametrize(
    "made",
    [
        files("{% include 'winback/body.html' %}"),
        files("{% include 'a.html' %}") | {"a.html": "{% include 'b.html' %}", "b.html": "{% include 'a.html' %}"},
        files("{% extends 'a.html' %}") | {"a.html": "{% extends 'winback/body.html' %}"},
    ],
)
def test_files_that_include_one_another_in_a_circle_are_refused(made: dict[str, str]) -> None:
    with pytest.raises(InputError, match="extends or includes itself"):
        step(made)


def test_a_body_with_macros_needs_a_text_of_its_own() -> None:
    with pytest.raises(InputError, match=r"templates/winback/body.html:1:1: no text can be derived .*write a body.txt"):
        step(files("{% macro m() %}<b>x</b>{% endmacro %}{{ m() }}"))


@pytest.mark.parametrize(
    ("language", "found"), [("DE", "de"), ("de_AT", "de"), ('de"><script>', ""), ("", ""), ("../de", "")]
)
def test_a_language_as_data_has_it_does_no_harm(language: str, found: str) -> None:
    made = files() | {"winback/de/subject.txt": "Hallo"}
    template = email_template(made, "winback", language)
    assert template.subject == ("winback/de/subject.txt" if found else "winback/subject.txt")
    assert '"' not in template.language
