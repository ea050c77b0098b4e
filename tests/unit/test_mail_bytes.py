from __future__ import annotations

import re
from collections.abc import Callable
from email import message_from_bytes
from email.header import decode_header, make_header
from email.utils import parseaddr, parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ConfigError
from kernel.settings import Sender
from kernel.signing import Purpose
from templates.problems import TemplateProblem
from tests.servers.byte_rules import byte_problems
from tests.unit.mail_samples import BASE_URL, SENT, SIGNER, RecordedLinks, bodies, composed, files, parsed, person, step

ANY_TEXT = st.text(max_size=200)
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=300)
BODY = "<p>Dear {{ contact.first_name }}: {{ contact.attributes.note }}</p>"
STEP = step(files(BODY, subject="Hi {{ contact.first_name }}!"))


@given(first_name=PRINTABLE, note=st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=2000))
def test_any_printable_name_keeps_every_byte_rule_and_comes_back_as_it_was(first_name: str, note: str) -> None:
    mail = composed(STEP, person(first_name=first_name, attributes={"note": note}))
    assert byte_problems(mail.data) == []
    assert parsed(mail)["Subject"] == mail.subject == " ".join(f"Hi {first_name}!".split())
    assert first_name.strip() in bodies(mail)[0]
    assert note.strip() in bodies(mail)[0]


@given(first_name=ANY_TEXT, note=ANY_TEXT)
def test_whatever_a_value_holds_it_is_refused_for_this_message_or_sent_without_harm(first_name: str, note: str) -> None:
    try:
        mail = composed(STEP, person(first_name=first_name, attributes={"note": note}))
    except TemplateProblem:
        return
    assert byte_problems(mail.data) == []
    assert [name for name, _ in parsed(mail).items()] == EXPECTED_FIELDS


EXPECTED_FIELDS = [
    *("Date", "Message-ID", "To", "Subject", "List-Unsubscribe", "List-Unsubscribe-Post", "From", "Reply-To"),
    *("List-Id", "Precedence", "Feedback-ID", "X-Auto-Response-Suppress", "MIME-Version", "Content-Type"),
]


@pytest.mark.parametrize("evil", ["\r\nBcc: x@y.example", "a\nb", "a\rb", "nul\0", "\x0b", "\u2028", "\ud800", "\x85"])
def test_a_control_character_in_a_subjects_value_fails_this_message_only(evil: str) -> None:
    made = step()
    with pytest.raises(TemplateProblem, match=r"templates/winback/subject.txt:1: the value .* control character"):
        composed(made, person(first_name=evil))
    assert composed(made).subject == "Jane, we miss you"


@pytest.mark.parametrize("evil", ["nul\0", "\x0b", "\x1b[31m", "\ud800", "\x7f"])
def test_a_control_character_in_a_body_fails_this_message_only(evil: str) -> None:
    made = step(files(BODY, subject="Hello"))
    with pytest.raises(TemplateProblem, match=r"control character|surrogate"):
        composed(made, person(attributes={"note": evil}))


def test_line_breaks_of_any_kind_in_a_body_become_crlf() -> None:
    mail = composed(files(text="one\r\ntwo\rthree\nfour"))
    assert bodies(mail)[0].startswith("one\ntwo\nthree\nfour\n")
    assert byte_problems(mail.data) == []


def test_the_head_says_who_sends_when_and_how_to_leave() -> None:
    mail = composed()
    head = parsed(mail)
    token = SIGNER.token(Purpose.UNSUBSCRIBE, 7)
    assert head["From"] == "Acme Wholesale <hello@acme.example>"
    assert head["Reply-To"] == "help@acme.example"
    assert head["To"] == "jane@shop.example"
    assert head["Message-ID"] == mail.message_id_header == "<m7.0123456789ab@acme.example>"
    assert parsedate_to_datetime(head["Date"]) == SENT
    assert f"\r\nList-Unsubscribe: <{BASE_URL}/u/{token}>\r\n".encode() in mail.data
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in mail.data
    assert head["List-Id"] == "<winback.acme.example>"
    assert head["Feedback-ID"] == "winback::marketing:acme12345"
    assert head["Precedence"] == "bulk"
    assert mail.envelope_to == "jane@shop.example"


def test_the_envelope_names_the_message_it_bounces_for() -> None:
    local, domain = composed().envelope_from.split("@")
    signed = SIGNER.verify_address(local.removeprefix("bounce+"))
    assert signed is not None
    assert signed.message_id == 7
    assert domain == "acme.example"
    bounces = Sender(name="A", email="hello@acme.example", bounce_domain="bounces.acme.example")
    assert composed(step(sender=bounces)).envelope_from.endswith("@bounces.acme.example")


def test_every_attempt_of_a_message_is_the_same_bytes() -> None:
    assert composed(step()).data == composed(step()).data


def test_messages_differ_in_id_links_and_bounce_address() -> None:
    made = step()
    one, two = composed(made, message_id=7), composed(made, message_id=8)
    assert one.message_id_header != two.message_id_header
    assert one.envelope_from != two.envelope_from
    assert not set(re.findall(r"/[cuop]/[\w-]+", bodies(one)[1])) & set(re.findall(r"/[cuop]/[\w-]+", bodies(two)[1]))


def test_text_comes_before_html_and_both_say_the_same() -> None:
    kinds = [part.get_content_type() for part in parsed(composed()).iter_parts()]
    assert kinds == ["text/plain", "text/html"]
    text, html = bodies(composed())
    assert "Hello Jane, see what is new (https://go.acme.example/c/" in text
    assert "Hello Jane" in html


def test_mostly_ascii_bodies_stay_readable_and_others_go_as_base64() -> None:
    made = step(files("<p>{{ contact.attributes.note }}</p>", subject="Hello", text="{{ contact.attributes.note }}"))
    latin = composed(made, person(attributes={"note": "Viele freundliche Grüße aus Köln " * 40}))
    chinese = composed(made, person(attributes={"note": "您好我们想念您" * 60}))
    assert latin.data.count(b"Content-Transfer-Encoding: quoted-printable") == 2
    assert chinese.data.count(b"Content-Transfer-Encoding: base64") == 2
    assert byte_problems(latin.data) == byte_problems(chinese.data) == []
    assert "您好我们想念您" * 60 in bodies(chinese)[0]


def test_an_international_domain_is_written_in_a_labels() -> None:
    mail = composed(address="jane@bücher.example")
    assert mail.envelope_to == "jane@xn--bcher-kva.example"
    assert b"\r\nTo: jane@xn--bcher-kva.example\r\n" in mail.data
    assert not mail.needs_smtputf8


def test_an_international_local_part_needs_smtputf8_and_says_so() -> None:
    mail = composed(address="jürgen@bücher.example")
    assert mail.needs_smtputf8
    assert mail.envelope_to == "jürgen@xn--bcher-kva.example"
    assert byte_problems(mail.data, smtputf8=True) == []


@pytest.mark.parametrize(
    "address",
    [
        *("", "jane", "@x.example", "jane@", "a b@x.example", "jane@x.example\r\nBcc: y@z.example", "jane@x..example"),
        *(
            "a..b@x.example",
            ".a@x.example",
            "jane@-x.example",
            "jane@x.example>",
            f"{'a' * 65}@x.example",
            "ja\u202ene@x.example",
        ),
        *(
            f"a@{'b' * 64}.example",
            "a@" + "b." * 130 + "example",
            "jane@x.example,eve@y.example",
            "\ud800@x.example",
            "jane@\ud800",
        ),
    ],
)
def test_what_is_not_an_address_is_never_put_on_the_wire(address: str) -> None:
    with pytest.raises(TemplateProblem):
        composed(address=address)


@given(st.text(max_size=80))
def test_no_text_whatever_becomes_an_address_that_breaks_the_head(address: str) -> None:
    try:
        mail = composed(step(), address=address)
    except TemplateProblem:
        return
    assert byte_problems(mail.data, smtputf8=mail.needs_smtputf8) == []


@pytest.mark.parametrize("name", ["Müller & Söhne", 'The "Best" \\ Shop', "Acme, Inc.", "", "卡里永" * 20, "A" * 200])
def test_a_senders_name_comes_back_as_it_was(name: str) -> None:
    mail = composed(step(sender=Sender(name=name, email="hello@acme.example")))
    assert byte_problems(mail.data) == []
    # The newer parser puts a space between the encoded-words of a phrase; the older one follows RFC 2047 6.2.
    phrase, address = parseaddr(str(message_from_bytes(mail.data)["From"]).replace("\r\n", ""))
    assert (str(make_header(decode_header(phrase))), address) == (name, "hello@acme.example")


@given(PRINTABLE.filter(lambda name: name == name.strip()))
def test_any_senders_name_keeps_the_byte_rules(name: str) -> None:
    assert byte_problems(composed(step(sender=Sender(name=name, email="hello@acme.example"))).data) == []


@pytest.mark.parametrize(
    "sender",
    [
        Sender(name="A\r\nBcc: x", email="hello@acme.example"),
        Sender(name="A", email="hello"),
        Sender(name="A", email="hello@acme.example", bounce_domain="not a domain"),
        Sender(name="A", email="hello@acme.example", reply_to="x\n@y.example"),
    ],
)
def test_a_sender_that_cannot_stand_in_a_message_is_refused_at_the_start(sender: Sender) -> None:
    with pytest.raises(ConfigError, match="sender"):
        step(sender=sender)


def test_a_transactional_message_carries_no_list_headers_and_no_footer() -> None:
    mail = composed(step(transactional=True))
    head = parsed(mail)
    assert head["Auto-Submitted"] == "auto-generated"
    assert [name for name in ("List-Unsubscribe", "List-Id", "Precedence") if name in head] == []
    assert "/u/" not in "".join(bodies(mail))
    assert byte_problems(mail.data, bulk=False) == []


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (lambda raw: raw.replace(b"\r\n", b"\n", 1), "bare CR or LF"),
        (lambda raw: b"Bcc: x@y.example\r\n" + raw, "bcc"),
        (lambda raw: b"From: a@b.example\r\n" + raw, "2 fields from"),
        (lambda raw: raw.replace(b"Date:", b"Day:"), "0 fields date"),
        (lambda raw: raw.replace(b"One-Click", b"Oneclick"), "RFC 8058"),
        (lambda raw: raw.replace(b"<https:", b"<ftp:"), "RFC 8058 3.1"),
        (lambda raw: raw.replace(b"List-Unsubscribe: <", b"List-Unsubscribe: =?utf-8?q?=3C?= <"), "encoded-word"),
        (lambda raw: raw.replace(b"To: jane@", b"To: jane@=?utf-8?b?w7w=?="), "encoded-word"),
        (lambda raw: raw.replace(b"Subject: ", b"Subject: =?utf-8?b?" + b"YWFh" * 20 + b"?= "), "encoded-word of"),
        (lambda raw: raw.replace(b"Hello", b"Hello" * 20), "quoted-printable line"),
        (lambda raw: raw.replace(b"Hello", b"H\0llo", 1), "NUL"),
        (lambda raw: raw.replace(b"charset=utf-8", b"format=flowed"), "charset"),
        (lambda raw: raw.replace(b"Subject: ", b"X-Long: " + b"a" * 1000 + b"\r\nSubject: "), "line of"),
        (lambda raw: raw.replace(b"text/plain", b"text/x").replace(b"text/html", b"text/plain"), "HTML"),
        (lambda raw: raw[:-10], "not closed"),
        (lambda raw: raw.replace(b"Message-ID: <m7", b"Message-ID: <m 7"), "message-id"),
    ],
)
def test_the_scanner_finds_every_kind_of_harm(harm: Callable[[bytes], bytes], found: str) -> None:
    raw = composed().data
    assert byte_problems(raw) == []
    assert found in "\n".join(byte_problems(harm(raw)))


def test_a_repeated_link_is_registered_once_and_leads_to_its_target() -> None:
    links = RecordedLinks()
    first = '<a href="https://a.example/">1</a>'
    html = f'{first} {first} <a href="https://b.example/?x=1&amp;y=2">3</a>'
    _, body = bodies(composed(files(html), links=links))
    clicks = re.findall(r'href="([^"]*/c/[^"]*)"', body)
    assert [links.target(click) for click in clicks] == [
        "https://a.example/",
        "https://a.example/",
        "https://b.example/?x=1&y=2",
    ]
    assert links.urls == ["https://a.example/", "https://b.example/?x=1&y=2"]
