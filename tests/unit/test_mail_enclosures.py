"""Images and attachments: pinned with the template, named in every form, within a structure other parsers read."""

from __future__ import annotations

import base64
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.compiling import check_template, languages_of
from kernel.errors import InputError
from kernel.vocabulary import Channel
from templates import enclosures
from templates.dkim_keys import load_key, new_key
from templates.enclosures import attachment
from templates.files import template_files
from tests.servers.byte_rules import byte_problems
from tests.unit.mail_samples import composed, files, parsed, step
from tests.unit.test_dkim import keys, verdicts

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
PHOTO = bytes(range(256)) * 20
TERMS = "Terms & conditions, für alle\r\n".encode() * 5


def template(html: str = '<p>Hi <img src="images/logo.png" alt="Acme"></p>', **more: bytes) -> dict[str, str]:
    enclosed = {"images/logo.png": PIXEL, "images/unused.png": PHOTO, **more}
    return files(html) | {f"winback/{path}": base64.b64encode(content).decode() for path, content in enclosed.items()}


def leaves(message: EmailMessage) -> list[EmailMessage]:
    return [part for part in message.walk() if not part.is_multipart()]


def kinds(message: EmailMessage) -> list[str]:
    return [part.get_content_type() for part in message.walk()]


def test_an_image_beside_the_template_comes_with_the_html_that_shows_it() -> None:
    mail = composed(template())
    message = parsed(mail)
    assert byte_problems(mail.data) == []
    assert kinds(message) == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
    _, html, image = leaves(message)
    assert image.get_content() == PIXEL
    assert image.get_content_disposition() == "inline"
    assert f'<img src="cid:{image["Content-ID"].strip("<>")}" alt="Acme">' in html.get_content()
    assert image["Content-ID"].endswith("@acme.example>")
    assert b"unused" not in mail.data


def test_attachments_stand_beside_all_that_is_read() -> None:
    more = {"attachments/terms.txt": TERMS, "attachments/Größe & Preis.pdf": PHOTO}
    mail = composed(template(**more))
    message = parsed(mail)
    assert byte_problems(mail.data) == []
    assert kinds(message) == [
        *("multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"),
        *("application/pdf", "text/plain"),
    ]
    attached = {part.get_filename(): part.get_payload(decode=True) for part in message.iter_attachments()}
    assert attached == {"Größe & Preis.pdf": PHOTO, "terms.txt": TERMS}


def test_attachments_without_images_and_images_without_attachments() -> None:
    plain = composed(template("<p>Hi</p>", **{"attachments/a.pdf": PHOTO}))
    assert byte_problems(plain.data) == []
    assert kinds(parsed(plain)) == [
        *("multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/pdf")
    ]


def test_signatures_hold_with_everything_enclosed() -> None:
    made = step(template(**{"attachments/terms.txt": TERMS}), dkim=keys())
    assert verdicts(composed(made).data) == [True, True]
    assert load_key("a.example", "s", new_key("ed25519")).bits == 256


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=120).map(
    lambda name: name.replace("/", "_").strip() or "x"
)


@given(NAMES)
def test_any_file_name_comes_back_as_it_was(name: str) -> None:
    made = attachment(f"{name}.pdf", b"x").part
    assert max(map(len, made.split(b"\r\n"))) <= 78
    assert made.isascii()
    whole = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + made + b"--b--\r\n"
    (part,) = message_from_bytes(whole, policy=policy.default).iter_attachments()
    assert part.get_filename() == f"{name}.pdf"


def test_a_language_may_have_its_own_image_and_takes_the_others_from_the_template() -> None:
    made = template('<p>Hi</p><img src="images/logo.png" alt=""><img src="images/unused.png" alt="">')
    made |= {"winback/de/images/logo.png": base64.b64encode(b"\x89PNGdeutsch").decode()}
    german = leaves(parsed(composed(step(made, language="de-AT"))))
    english = leaves(parsed(composed(step(made))))
    assert [part.get_content() for part in german[2:]] == [b"\x89PNGdeutsch", PHOTO]
    assert [part.get_content() for part in english[2:]] == [PIXEL, PHOTO]
    assert languages_of(made, "winback", Channel.EMAIL) == [""]


def test_images_of_mjml_and_of_imported_macros_come_too() -> None:
    mjml = (
        "<mjml><mj-body><mj-section><mj-column><mj-image src='images/logo.png' alt='Logo' /></mj-column></mj-section>"
    )
    made = template() | {"winback/body.mjml": f"{mjml}</mj-body></mjml>"}
    del made["winback/body.html"]
    assert kinds(parsed(composed(made)))[-1] == "image/png"
    macro = "{% macro logo() %}<img src='images/logo.png' alt=''>{% endmacro %}"
    html = "{% from 'parts.html' import logo %}{{ logo() }}"
    imported = template(html) | {"parts.html": macro, "winback/body.txt": "Hi"}
    assert kinds(parsed(composed(imported)))[-1] == "image/png"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("images/nowhere.png", "does not lie beside the template"),
        ("images/{{ contact.id }}.png", "must be written out"),
        ("logo.png", "has no https:// in front"),
        ("../images/logo.png", "has no https:// in front"),
    ],
)
def test_an_image_that_does_not_come_is_found_with_its_line(source: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"^templates/winback/body.html:2:1: the image .*{problem}"):
        step(template(f'<p>\n<img src="{source}" alt=""></p>'))


def written(root: Path, **enclosed: bytes) -> Path:
    for path, content in {**enclosed, "subject.txt": b"Hi", "body.html": b"<p>Hi</p>"}.items():
        (root / "winback" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "winback" / path).write_bytes(content)
    return root


def test_enclosures_are_pinned_with_the_template(tmp_path: Path) -> None:
    root = written(tmp_path, **{"images/a.png": PIXEL, "de/attachments/b.pdf": PHOTO, "images/.hidden": b"x"})
    pinned = template_files(root, "winback", Channel.EMAIL)
    assert {path for path in pinned if "images" in path or "attachments" in path} == {
        "winback/images/a.png",
        "winback/de/attachments/b.pdf",
    }
    assert base64.b64decode(pinned["winback/images/a.png"]) == PIXEL
    check_template(pinned, "winback", Channel.EMAIL)


@pytest.mark.parametrize(
    ("enclosed", "problem"),
    [
        ({"images/a.svg": b"<svg/>"}, r"winback/images/a.svg:1:1: is of a kind that is not sent"),
        ({"images/a.pdf": b"%PDF"}, r"winback/images/a.pdf:1:1: is of a kind that is not sent"),
        ({"attachments/a.exe": b"MZ"}, r"winback/attachments/a.exe:1:1: is of a kind that is not sent"),
        ({"attachments/a.csv": b"\xff\xfe"}, r"winback/attachments/a.csv:1:1: is not UTF-8 \(byte 0\)"),
        ({"attachments/a.zip": b"x" * 3000, "images/b.png": b"x" * 3000}, r"b.png:1:1: makes the message too large"),
    ],
)
def test_what_cannot_be_enclosed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enclosed: dict[str, bytes], problem: str
) -> None:
    monkeypatch.setattr(enclosures, "MAX_OCTETS", 5_000)
    with pytest.raises(InputError, match=problem):
        template_files(written(tmp_path, **enclosed), "winback", Channel.EMAIL)
