"""What a refusal means: the enhanced code wins, and what blames the sender or the host harms no recipient."""

from __future__ import annotations

import pytest

from kernel.errors import GatewayDown, PermanentError, TransientError
from workers.smtp.meaning import Stage, enhanced_code, is_closing, refusal

PAST_MAIL = (Stage.RCPT, Stage.DATA, Stage.BODY, Stage.DOT)


@pytest.mark.parametrize("stage", PAST_MAIL)
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("550 5.1.1 no such user", PermanentError),
        ("550 5.1.10 null MX", PermanentError),
        ("550 5.2.1 disabled", PermanentError),
        ("554 5.7.1 rejected by policy", PermanentError),
        ("552 5.3.4 too big", PermanentError),
        ("550 no words that help", PermanentError),
        ("450 5.1.1 unknown after all", PermanentError),
        ("450 4.7.1 greylisted", TransientError),
        ("451 4.3.0 queue file write error", TransientError),
        ("452 4.5.3 too many recipients", TransientError),
        ("552 5.2.2 mailbox full", TransientError),
        ("452 4.2.2 mailbox full", TransientError),
        ("550 4.2.1 busy", TransientError),
    ],
)
def test_what_is_about_the_recipient_or_the_content(stage: Stage, reply: str, expected: type) -> None:
    code, text = int(reply[:3]), reply[4:].encode()
    verdict = refusal(stage, code, text)
    assert type(verdict) is expected
    assert not isinstance(verdict, GatewayDown)
    assert verdict.code == code
    assert verdict.enhanced == enhanced_code(text)
    assert reply in verdict.text


@pytest.mark.parametrize("stage", [Stage.MAIL, *PAST_MAIL])
@pytest.mark.parametrize(
    ("reply", "lasting"),
    [
        *[(f"550 5.7.{detail} unauthenticated", True) for detail in (26, 27, 29, 30, 32, 40, 509, 515)],
        *[(f"421 4.7.{detail} unauthenticated", False) for detail in (26, 27, 29, 30, 32, 40, 509, 515)],
        ("550 5.4.5 daily user sending limit exceeded", True),
        ("530 5.7.0 authentication required", True),
        ("534 5.7.9 mechanism too weak", True),
        ("535 5.7.8 bad credentials", True),
        ("454 4.7.0 temporary authentication failure", False),
        ("454 Throttling failure: Daily message quota exceeded.", False),
        ("452 4.3.1 insufficient system storage", False),
        ("421 4.3.2 shutting down", False),
        ("421 bye", False),
        ("432 4.3.2 concurrent connections limit exceeded", False),
    ],
)
def test_what_is_about_us_or_the_host_at_whatever_stage(stage: Stage, reply: str, lasting: bool) -> None:
    verdict = refusal(stage, int(reply[:3]), reply[4:].encode())
    assert isinstance(verdict, GatewayDown)
    assert verdict.lasting is lasting


@pytest.mark.parametrize(
    ("stage", "reply", "lasting"),
    [
        (Stage.GREETING, "554 5.7.1 you are on a list", True),
        (Stage.GREETING, "554 no SMTP service here", False),
        (Stage.GREETING, "450 4.3.2 try later", False),
        (Stage.EHLO, "550 5.7.1 HELO rejected", True),
        (Stage.AUTH, "535 5.7.8 bad credentials", True),
        (Stage.AUTH, "501 5.5.2 cannot decode", True),
        (Stage.MAIL, "550 5.1.8 no such sender domain", True),
        (Stage.MAIL, "451 4.1.8 sender domain does not resolve", False),
        (Stage.MAIL, "553 sender address rejected", True),
    ],
)
def test_before_rcpt_no_recipient_is_to_blame(stage: Stage, reply: str, lasting: bool) -> None:
    verdict = refusal(stage, int(reply[:3]), reply[4:].encode())
    assert isinstance(verdict, GatewayDown)
    assert verdict.lasting is lasting


def test_552_at_rcpt_is_too_many_recipients_and_elsewhere_too_much() -> None:
    assert isinstance(refusal(Stage.RCPT, 552, b"too many recipients"), TransientError)
    assert isinstance(refusal(Stage.RCPT, 552, b"5.3.4 too big"), PermanentError)
    assert isinstance(refusal(Stage.MAIL, 552, b"too big"), PermanentError)
    assert isinstance(refusal(Stage.DOT, 552, b"too big"), PermanentError)


@pytest.mark.parametrize("text", [b"5.1.1", b"5.1.1 no", b"5.1.1\nno", b"4.1.1 x"])
def test_an_enhanced_code_stands_at_the_beginning(text: bytes) -> None:
    assert enhanced_code(text) == text[:5].decode()


@pytest.mark.parametrize("text", [b"", b"no 5.1.1", b"5.1", b"5.1.1.1 address", b"3.1.1 no", b"5.1.1234 no"])
def test_what_only_looks_like_one_is_none(text: bytes) -> None:
    assert enhanced_code(text) == ""


@pytest.mark.parametrize(
    ("code", "text", "closing"),
    [
        (421, b"bye", True),
        (450, b"4.7.1 Too many concurrent SMTP connections from you", True),
        (432, b"4.3.2 sender thread limit exceeded", True),
        (450, b"4.7.1 greylisted", False),
        (550, b"5.7.26 unauthenticated", False),
    ],
)
def test_what_is_about_the_connection_alone(code: int, text: bytes, closing: bool) -> None:
    assert is_closing(code, text) is closing
