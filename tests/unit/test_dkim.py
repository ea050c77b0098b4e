"""Signatures are judged by dkimpy, with the records as the DNS would give them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from kernel.dkim_keys import DkimKeySettings
from kernel.errors import ConfigError
from kernel.settings import Sender
from templates.dkim import DkimKey, DkimStep, keys_of, relaxed_body, relaxed_field
from templates.dkim_keys import load_key, new_key
from tests.servers.byte_rules import byte_problems
from tests.unit.mail_samples import SENDER, SENT, RecordedLinks, files, person, step

DOMAIN = "acme.example"
LONG = "<p>" + "Viele  freundliche Grüße,\n\n  Ihr {{ contact.first_name }} " * 20 + "</p>"


@cache
def keys() -> tuple[DkimKey, DkimKey]:
    return load_key(DOMAIN, "r1", new_key("rsa")), load_key(DOMAIN, "e1", new_key("ed25519"))


def signed(html: str = LONG, sender: Sender = SENDER, *, transactional: bool = False, name: str = "Jane") -> bytes:
    made = step(
        files(html, subject="Käse für {{ contact.first_name }}  heute"),
        sender=sender,
        dkim=keys(),
        transactional=transactional,
    )
    return made.compose(
        message_id=7, address="jane@shop.example", context=person(first_name=name), date=SENT, links=RecordedLinks()
    ).data


def verdicts(message: bytes) -> list[bool]:
    """Return what dkimpy says of each signature, from the top."""
    records = {f"{key.name}.".encode(): key.record.encode() for key in keys()}
    judge = dkim.DKIM(message)
    count = message.partition(b"\r\n\r\n")[0].count(b"DKIM-Signature:")
    found = []
    for index in range(count):
        try:
            found.append(judge.verify(idx=index, dnsfunc=lambda name, timeout: records.get(name)))
        except dkim.DKIMException:
            found.append(False)
    return found


@pytest.mark.parametrize("transactional", [False, True])
@pytest.mark.parametrize("html", [LONG, "<p>" + "您好我们想念您" * 100 + "</p>", "<p>short</p>\n\n"])
def test_both_signatures_hold(html: str, transactional: bool) -> None:
    message = signed(html, transactional=transactional)
    assert verdicts(message) == [True, True]
    assert byte_problems(message, bulk=not transactional) == []


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=80))
def test_signatures_hold_whatever_a_value_holds(name: str) -> None:
    assert verdicts(signed("<p>{{ contact.first_name }}</p>", name=f"x{name}")) == [True, True]


TAMPERED: dict[str, Callable[[bytes], bytes]] = {
    **{
        f"a second {name}": lambda raw, name=name: name.encode() + b": Eve <eve@evil.example>\r\n" + raw
        for name in ("From", "Subject", "To", "Date", "Reply-To", "Cc")
    },
    "another link to leave by": lambda raw: raw.replace(b"/u/", b"/x/", 1),
    "no one-click": lambda raw: raw.replace(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", b""),
    "another list": lambda raw: raw.replace(b"List-Id: <", b"List-Id: <x"),
    "another feedback id": lambda raw: raw.replace(b"Feedback-ID: ", b"Feedback-ID: x"),
    "another message id": lambda raw: raw.replace(b"Message-ID: <", b"Message-ID: <x"),
    "another structure": lambda raw: raw.replace(b"multipart/alternative", b"multipart/mixed"),
    "another version": lambda raw: raw.replace(b"MIME-Version: 1.0", b"MIME-Version: 1.1"),
    "something in the body": lambda raw: raw.replace(b"freundliche", b"unfreundliche", 1),
    "something after the body": lambda raw: raw + b"<script>\r\n",
    "another instant": lambda raw: re.sub(rb" t=\d+;", b" t=1;", raw),
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_what_is_changed_on_the_way_breaks_both(tamper: Callable[[bytes], bytes]) -> None:
    changed = tamper(signed())
    assert changed != signed()
    assert verdicts(changed) == [False, False]


@pytest.mark.parametrize(
    "harmless",
    [
        lambda raw: b"Received: by mx.example\r\n" + raw,
        lambda raw: raw.replace(b"Subject: ", b"SUBJECT:   "),
        lambda raw: raw + b"\r\n\r\n",
        lambda raw: b"X-Spam: no\r\nReturn-Path: <x@y.example>\r\n" + raw,
    ],
)
def test_what_relays_do_breaks_neither(harmless: Callable[[bytes], bytes]) -> None:
    assert verdicts(harmless(signed())) == [True, True]


def test_a_signature_says_when_it_was_made_and_until_when_it_holds() -> None:
    at = int(SENT.timestamp())
    assert f" t={at};\r\n h=".encode() in signed()
    lasting = Sender(name="A", email="hello@acme.example", dkim_expires="14d")
    assert signed(sender=lasting).count(f" t={at}; x={at + 14 * 86_400};\r\n".encode()) == 2
    assert b" l=" not in signed()


def test_each_signature_covers_and_oversigns_what_it_should() -> None:
    head = signed().partition(b"\r\n\r\n")[0].replace(b"\r\n ", b"")
    for listed in re.findall(rb" h=([^;]*);", head.replace(b"; h=", b";  h=")):
        names = [name.strip().decode() for name in listed.split(b":")]
        for once in ("list-unsubscribe", "list-unsubscribe-post", "list-id", "feedback-id", "message-id"):
            assert names.count(once) == 1
        for twice in ("from", "subject", "to", "date", "reply-to"):
            assert names.count(twice) == 2
        assert {"mime-version", "content-type"} <= set(names)
    assert head.count(b"DKIM-Signature:") == 2


def test_without_keys_nothing_is_signed() -> None:
    assert (
        b"DKIM-Signature"
        not in step()
        .compose(message_id=7, address="jane@shop.example", context=person(), date=SENT, links=RecordedLinks())
        .data
    )


PIECES = st.sampled_from([b"a", b" ", b"  ", b"\t", b"\r\n", b"b \r\n", b"\r\n\r\n", b".", b"=20"])


@given(st.lists(PIECES).map(b"".join))
def test_the_relaxed_body_is_dkimpys(body: bytes) -> None:
    body = b"x" + body + b"\r\n"
    assert relaxed_body(body) == Relaxed.canonicalize_body(body)


@given(st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n ", b":", b"B"])).map(b"".join))
def test_the_relaxed_field_is_dkimpys(value: bytes) -> None:
    (expected,) = Relaxed.canonicalize_headers([(b"Subject", value + b"\r\n")])
    assert relaxed_field(b"Subject:" + value + b"\r\n") == ("subject", expected[0] + b":" + expected[1])


def test_keys_are_read_in_every_form_they_come_in(tmp_path: Path) -> None:
    pem = new_key("ed25519")
    private = load_pem_private_key(pem.encode(), None)
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    seed = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    (tmp_path / "key.pem").write_text(pem, encoding="ascii")
    forms = [pem, base64.b64encode(der).decode(), base64.b64encode(seed).decode()]
    sender = Sender(
        name="A",
        email="hello@bücher.example",
        dkim=[
            *[DkimKeySettings(selector="s", key=form) for form in forms],
            DkimKeySettings(selector="s", key_file="key.pem", domain="other.example"),
        ],
    )
    found = keys_of(sender, tmp_path)
    assert len({key.record for key in found}) == 1
    assert [key.domain for key in found] == ["xn--bcher-kva.example"] * 3 + ["other.example"]
    assert len(base64.b64decode(found[0].record.partition("p=")[2])) == 32, "RFC 8463: the raw key"


def _pem(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("material", "problem"),
    [
        ("SECRETSECRET", "is no private key"),
        ("-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n-----END PRIVATE KEY-----", "is no private key"),
        (base64.b64encode(b"SECRET" * 9).decode(), "is no private key"),
        (lambda: _pem(ec.generate_private_key(ec.SECP256R1())), "is neither RSA nor Ed25519"),
        (lambda: _pem(rsa.generate_private_key(65537, 1024)), None),
    ],
)
def test_an_unfit_key_is_refused_without_being_shown(material: str | Callable[[], str], problem: str | None) -> None:
    text = material if isinstance(material, str) else material()
    if problem is None:
        assert load_key(DOMAIN, "old", text).bits == 1024
        return
    with pytest.raises(
        ConfigError, match=rf"'old' of acme.example {problem}; make one with .carillon dkim new"
    ) as told:
        load_key(DOMAIN, "old", text)
    assert "SECRET" not in str(told.value)


def test_signing_leaves_the_steps_own_hash_as_it_was() -> None:
    shared = DkimStep(keys(), [b"From: a@acme.example\r\n"])
    one = [shared.signatures([b"To: b@c.example\r\n"], b"x\r\n", at=1) for _ in range(2)]
    # RSA with PKCS#1 v1.5 and Ed25519 give the same signature for the same content.
    assert one[0] == one[1]
