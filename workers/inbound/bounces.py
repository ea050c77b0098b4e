"""Reading returned mail: delivery reports, complaints, automatic answers. Pure: bytes in, what they say out.

Source:
    RFC 3464 and 6522 (delivery status), 6533 (the same with UTF-8 addresses), 5965 (abuse reports), 3834 (automatic
    answers), 8098 (read receipts); qmail's QSBMF; Exim's and others' mail without structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import Message
from typing import TypeVar

from workers.inbound.mailparts import Fields, blocks_of, field_of, parse_mail, parts_of, text_of
from workers.inbound.statuses import BounceKind, classify, classify_words, telling_code

Clue = TypeVar("Clue")
_CLUE_CHARS = 512 * 1024
_ENVELOPE_ID = "original-envelope-id"
_ADDRESS_TOKEN = re.compile(r"bounce\+([a-z2-7]{20,64})@", re.IGNORECASE)
_UNSUBSCRIBE_TOKEN = re.compile(r"/u/([A-Za-z0-9_-]{20,64})")
MESSAGE_ID = re.compile(r"<m(\d{1,18})\.([0-9a-f]{6,32})@[^<>\s]{1,255}>")
_ADDRESS = re.compile(r"[^\s<>;,:\"'()@]{1,64}@[^\s<>;,:\"'()@]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """What may tell which of our messages it is about. Tokens are not verified here; message ids are not signed."""

    envelope_id: str = ""
    address_tokens: tuple[str, ...] = ()
    unsubscribe_tokens: tuple[str, ...] = ()
    message_ids: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BounceReport:
    """What came back about one recipient. `status` is the RFC 3463 code or ""; `diagnostic` the other side's words.

    `at` is when it happened, where a provider says so; None: when we heard of it.
    """

    kind: BounceKind
    recipient: str = ""
    status: str = ""
    diagnostic: str = ""
    clues: Clues = Clues()
    at: datetime | None = None


def parse(raw: bytes) -> list[BounceReport]:
    """Return what a piece of mail says, one report per recipient it names; always at least one, never an error.

    Args:
        raw: The mail as received, headers and body.
    """
    message = parse_mail(raw)
    if message is None:
        return [BounceReport(kind=BounceKind.UNCLASSIFIED, diagnostic="not readable as mail", clues=_clues(raw, ""))]
    parts = list(parts_of(message))
    for reader in (_delivery_reports, _complaint, _read_receipt, _qmail, _unstructured):
        found = reader(parts, raw)
        if found:
            return found
    return [BounceReport(kind=BounceKind.UNCLASSIFIED, diagnostic=field_of(message, "Subject"), clues=_clues(raw, ""))]


# --- delivery status notifications ---------------------------------------------------------------------------


def _delivery_reports(parts: Sequence[Message], raw: bytes) -> list[BounceReport]:
    part = _first(parts, "message/delivery-status", "message/global-delivery-status")
    if part is None:
        return []
    blocks = blocks_of(part)
    clues = _clues(raw, next((block[_ENVELOPE_ID] for block in blocks if _ENVELOPE_ID in block), ""))
    words = _own_words(parts)
    return [_recipient_report(block, words, clues) for block in blocks if _names_recipient(block)][:50]


def _names_recipient(block: Fields) -> bool:
    return bool({"final-recipient", "original-recipient", "action", "status"} & block.keys())


def _recipient_report(block: Fields, words: str, clues: Clues) -> BounceReport:
    diagnostic = block.get("diagnostic-code", "")
    status = block.get("status", "")
    said = diagnostic.partition(";")[2].strip() or diagnostic
    kind = _kind_of_action(block.get("action", ""), status, said or words)
    return BounceReport(
        kind=kind,
        recipient=address_in(block.get("original-recipient", "")) or address_in(block.get("final-recipient", "")),
        status=telling_code(status, said),
        diagnostic=said,
        clues=clues,
    )


def _kind_of_action(action: str, status: str, words: str) -> BounceKind:
    match action.strip().lower().split(" ")[0]:
        case "failed" | "failure":
            return classify(status, words)
        case "delayed":
            return BounceKind.DELAYED
        case "delivered":
            return BounceKind.DELIVERED
        case "relayed" | "expanded":
            return BounceKind.NOTICE
        case _:  # Missing or misspelt: the status's class decides, as in RFC 3464 section 2.3.4.
            first = status.strip()[:1]
            if first == "5":
                return classify(status, words)
            return {"4": BounceKind.DELAYED, "2": BounceKind.DELIVERED}.get(first, BounceKind.UNCLASSIFIED)


# --- complaints and read receipts ----------------------------------------------------------------------------

_FEEDBACK: dict[str, BounceKind] = {
    "abuse": BounceKind.COMPLAINT,
    "fraud": BounceKind.COMPLAINT,
    "opt-out": BounceKind.COMPLAINT,
    "opt-out-list": BounceKind.COMPLAINT,
    "miscategorized": BounceKind.COMPLAINT,
    "not-spam": BounceKind.NOTICE,
    "auth-failure": BounceKind.NOTICE,
    "virus": BounceKind.NOTICE,
}
"""Feedback types of RFC 5965 section 3.5 and RFC 6430, 6591; any other is unclassified."""


def _complaint(parts: Sequence[Message], raw: bytes) -> list[BounceReport]:
    part = _first(parts, "message/feedback-report")
    if part is None:
        return []
    fields: Fields = {}
    for block in blocks_of(part):
        fields = {**block, **fields}
    type_ = fields.get("feedback-type", "").lower()
    return [
        BounceReport(
            kind=_FEEDBACK.get(type_, BounceKind.UNCLASSIFIED),
            recipient=address_in(fields.get("original-rcpt-to", "")),
            diagnostic=f"{type_ or 'no type'}: {fields.get('user-agent', '')}".strip(": "),
            clues=_clues(raw, fields.get(_ENVELOPE_ID, "")),
        )
    ]


def _read_receipt(parts: Sequence[Message], raw: bytes) -> list[BounceReport]:
    if _first(parts, "message/disposition-notification", "message/global-disposition-notification") is None:
        return []
    return [BounceReport(kind=BounceKind.NOTICE, diagnostic="read receipt", clues=_clues(raw, ""))]


# --- mail without structure ----------------------------------------------------------------------------------

_QMAIL_INTRO = re.compile(r"\s*Hi\. This is the \S+", re.IGNORECASE)
_RETURNED = re.compile(
    r"^-{2,} ?(Below this line is a copy|This is a copy of|The following|Original message|Forwarded|下面是|原(始)?邮件)"
    r"|^------ ?(This is a copy|The body of)|^Received: |^Return-Path: ",
    re.IGNORECASE | re.MULTILINE,
)
_ROBOT_SENDER = re.compile(r"mailer-?daemon|postmaster@|mail delivery (sub)?system|邮件系统|系统退信", re.IGNORECASE)
_RETURNED_SUBJECT = re.compile(
    r"undeliver|returned mail|delivery (status notification|failure|has failed|failed|problem)|failure notice"
    r"|mail delivery failed|nicht zustellbar|unzustellbar|non remis|no se puede entregar|退信|退回|投递失败|发送失败",
    re.IGNORECASE,
)
_DELAY = re.compile(
    r"\bdelayed\b|still (being )?(retried|trying)|warning: (message|could not send)|will (be )?re?tr(y|ied)"
    r"|not yet been delivered|verzögert|尚未(成功)?(投递|送达)|延迟",
    re.IGNORECASE,
)
_AUTO_SUBJECT = re.compile(
    r"^(auto(matic)?[- ]?(reply|response|matische antwort)|autosvar|automatische antwort|out of (the )?office|ooo\b"
    r"|abwesen|réponse automatique|absence|respuesta automática|risposta automatica|vacation"
    r"|自动(回复|答复)|不在办公室)",
    re.IGNORECASE,
)


def _qmail(parts: Sequence[Message], raw: bytes) -> list[BounceReport]:
    """Read QSBMF: an introduction, then a paragraph per recipient, then the returned message.

    Source:
        D. J. Bernstein, "The qmail-send Bounce Message Format (QSBMF)".
    """
    text = _own_words(parts)
    if not _QMAIL_INTRO.match(text):
        return []
    clues, reports = _clues(raw, ""), []
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))[1:51]:
        found = re.match(r"\s*<([^<>\s]+@[^<>\s]+)>:?\s*\n?(.*)", paragraph, re.DOTALL)
        if found:
            words = re.sub(r"\s+", " ", found[2]).strip()
            kind = classify_failure(words)
            reports.append(
                BounceReport(
                    kind=kind, recipient=found[1], status=telling_code("", words), diagnostic=words, clues=clues
                )
            )
    return reports


def _unstructured(parts: Sequence[Message], raw: bytes) -> list[BounceReport]:
    """Read mail from a mail system that says in words only what happened, or an automatic answer."""
    message = parts[0]
    sender, subject = field_of(message, "From"), field_of(message, "Subject")
    failed_for = field_of(message, "X-Failed-Recipients")
    from_robot = bool(failed_for or _ROBOT_SENDER.search(sender))
    if not from_robot and _is_automatic(message, subject):
        return [BounceReport(kind=BounceKind.AUTO_REPLY, diagnostic=subject, clues=_clues(raw, ""))]
    if not from_robot and not _RETURNED_SUBJECT.search(subject):
        return []
    words = _own_words(parts)
    if not failed_for and (_DELAY.search(subject) or (_DELAY.search(words) and not _RETURNED_SUBJECT.search(subject))):
        kind = BounceKind.DELAYED
    else:
        kind = classify_failure(words) if failed_for or _RETURNED_SUBJECT.search(subject) else _only_clear(words)
    return [
        BounceReport(
            kind=kind,
            recipient=address_in(failed_for) or address_in(words),
            status=telling_code("", words),
            diagnostic=re.sub(r"\s+", " ", words).strip()[:1000] or subject,
            clues=_clues(raw, ""),
        )
    ]


def classify_failure(words: str) -> BounceKind:
    """Return what a failure told in words alone means; unclassified where the words are unknown."""
    if telling_code("", words):
        return classify("", words)
    return _only_clear(words)


def _only_clear(words: str) -> BounceKind:
    return classify_words(words) or BounceKind.UNCLASSIFIED


def _is_automatic(message: Message, subject: str) -> bool:
    submitted = field_of(message, "Auto-Submitted").lower()
    if submitted and not submitted.startswith("no"):
        return True
    if field_of(message, "Precedence").lower() in ("auto_reply", "bulk", "junk", "list"):
        return True
    marks = ("X-Autoreply", "X-Autorespond", "X-Auto-Reply-From", "X-Auto-Response-Suppress", "X-Vacation", "List-Id")
    return any(field_of(message, mark) for mark in marks) or bool(_AUTO_SUBJECT.match(subject))


# --- shared --------------------------------------------------------------------------------------------------


def _first(parts: Iterable[Message], *types: str) -> Message | None:
    return next((part for part in parts if part.get_content_type() in types), None)


def _own_words(parts: Sequence[Message]) -> str:
    """Return the reporter's text, without the message it returns."""
    text = next((found for part in parts if (found := text_of(part)).strip()), "")
    returned = _RETURNED.search(text)
    return text[: returned.start()] if returned else text


def address_in(text: str) -> str:
    """Return the first address in "rfc822; <joe@example.com>" or other text; "" where there is none."""
    found = _ADDRESS.search(text)
    return found[0].strip(".").lower() if found else ""


def _clues(raw: bytes, envelope_id: str) -> Clues:
    text = raw[:_CLUE_CHARS].decode("latin-1")
    decoded_id = re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), envelope_id)
    # We give relays our Message-ID as the envelope id; theirs come back without its brackets.
    text += f"\n<{decoded_id[:400]}>"
    return Clues(
        envelope_id=decoded_id,
        address_tokens=_distinct(found.lower() for found in _ADDRESS_TOKEN.findall(text)),
        unsubscribe_tokens=_distinct(_UNSUBSCRIBE_TOKEN.findall(text)),
        message_ids=_distinct((int(number), name) for number, name in MESSAGE_ID.findall(text)),
    )


def _distinct(items: Iterable[Clue]) -> tuple[Clue, ...]:
    return tuple(dict.fromkeys(items))[:20]
