"""Judges a received e-mail byte by byte by the RFCs, knowing nothing of the code that made it."""

from __future__ import annotations

import base64
import binascii
import re

ONCE = ("date", "from", "message-id", "subject", "to", "mime-version", "content-type")
AT_MOST_ONCE = (
    *("sender", "reply-to", "cc", "in-reply-to", "references", "content-transfer-encoding"),
    *("list-unsubscribe", "list-unsubscribe-post", "list-id", "feedback-id"),
)
STRUCTURED = (
    *("list-unsubscribe", "list-unsubscribe-post", "list-id", "message-id", "feedback-id", "date", "mime-version"),
    *("content-type", "content-transfer-encoding", "precedence", "auto-submitted", "x-auto-response-suppress"),
)
ADDRESSES = ("from", "to", "reply-to", "sender", "cc")

_NAME = re.compile(rb"[!-9;-~]+")
_ENCODED_WORD = re.compile(r"=\?[^?\s]*\?[bBqQ]\?[^?\s]*\?=")
_DATE = re.compile(
    r"((Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?\d{1,2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
    r"\d\d:\d\d(:\d\d)? [+-]\d{4}"
)
_MESSAGE_ID = re.compile(r"<[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+>")
_LOOPBACK = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/|$)")
_QP = re.compile(rb"(?:[!-<>-~ \t]|=[0-9A-F]{2})*=?")

Fields = list[tuple[str, bytes]]


def byte_problems(raw: bytes, *, smtputf8: bool = False, bulk: bool = True) -> list[str]:
    """Return everything that is wrong with a received message; an empty list is the pass mark.

    Args:
        raw: The message as it crossed the wire, after dot-unstuffing.
        smtputf8: Whether it was received under SMTPUTF8, so that headers may hold UTF-8 (RFC 6532).
        bulk: Whether it is a marketing message, which must carry the list headers of RFC 8058.

    Source:
        RFC 5322 sections 2.1.1, 2.2, 3.3, 3.6; RFC 2045 sections 6.7 and 6.8; RFC 2046 section 5.1; RFC 2047 sections 2
        and 5; RFC 2369; RFC 2919; RFC 8058.
    """
    problems = _line_problems(raw)
    head, gap, body = raw.partition(b"\r\n\r\n")
    if not gap:
        return [*problems, "no empty line between head and body"]
    fields, broken = _fields(head)
    problems += broken + _count_problems(fields, bulk=bulk)
    for name, value in fields:
        problems += _field_problems(name, value, smtputf8=smtputf8)
    values = {name: _text(value) for name, value in fields}
    problems += _list_problems(values) if bulk else []
    return problems + _body_problems(values.get("content-type", ""), body)


def _line_problems(raw: bytes) -> list[str]:
    problems = []
    if re.search(rb"(?<!\r)\n|\r(?!\n)", raw):
        problems.append("a bare CR or LF (RFC 5322 2.3)")
    if b"\0" in raw:
        problems.append("a NUL")
    longest = max(len(line) for line in raw.split(b"\r\n"))
    if longest > 998:
        problems.append(f"a line of {longest} octets (RFC 5322 2.1.1)")
    if not raw.endswith(b"\r\n"):
        problems.append("does not end with CRLF")
    if re.search(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]", raw):
        problems.append("a control character")
    return problems


def _fields(head: bytes) -> tuple[Fields, list[str]]:
    """Return the unfolded fields by lower-case name, folds kept as CRLF, and what is wrong with their form."""
    fields: Fields = []
    problems = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if not line.strip():
                problems.append("a folded line of whitespace only (RFC 5322 3.2.2)")
            if not fields:
                problems.append("the head begins with a folded line")
                continue
            fields[-1] = (fields[-1][0], fields[-1][1] + b"\r\n" + line)
            continue
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            problems.append(f"not a header field: {line[:60]!r}")
            continue
        fields.append((name.decode("ascii").lower(), value))
    return fields, problems


def _count_problems(fields: Fields, *, bulk: bool) -> list[str]:
    names = [name for name, _ in fields]
    problems = [f"{names.count(name)} fields {name}, not 1" for name in ONCE if names.count(name) != 1]
    problems += [f"{names.count(name)} fields {name}" for name in AT_MOST_ONCE if names.count(name) > 1]
    problems += [f"the field {name} may never be sent" for name in ("bcc", "return-path") if name in names]
    wanted = ("list-unsubscribe", "list-unsubscribe-post", "list-id") if bulk else ()
    return problems + [f"no field {name}" for name in wanted if name not in names]


def _field_problems(name: str, value: bytes, *, smtputf8: bool) -> list[str]:
    problems = []
    if not value.isascii() and not smtputf8:
        problems.append(f"{name}: octets beyond ASCII without SMTPUTF8")
    text = _text(value)
    lines = text.split("\r\n")
    words = _ENCODED_WORD.findall(text)
    problems += [f"{name}: an encoded-word of {len(word)} characters (RFC 2047 2)" for word in words if len(word) > 75]
    for index, line in enumerate(lines):
        length = len(line) + (len(name) + 1 if index == 0 else 0)
        if _ENCODED_WORD.search(line) and length > 76:
            problems.append(f"{name}: a line of {length} with an encoded-word (RFC 2047 2)")
    problems += [f"{name}: {word} is not whole characters" for word in words if not _decodes(word)]
    if re.search(r"=\?[\w-]+\?[bBqQ]\?", _ENCODED_WORD.sub("", text)):
        problems.append(f"{name}: a broken encoded-word")
    if name in STRUCTURED and "=?" in text:
        problems.append(f"{name}: an encoded-word in a structured field (RFC 2047 5)")
    if name in ("list-unsubscribe", "message-id") and len(lines) > 1:
        problems.append(f"{name}: is folded")
    if name in ADDRESSES:
        problems += _address_problems(name, text, smtputf8=smtputf8)
    if name == "date" and not _DATE.fullmatch(text.strip()):
        problems.append(f"date: {text.strip()!r} (RFC 5322 3.3)")
    if name == "message-id" and not _MESSAGE_ID.fullmatch(text.strip()):
        problems.append(f"message-id: {text.strip()!r} (RFC 5322 3.6.4)")
    if name == "mime-version" and text.strip() != "1.0":
        problems.append(f"mime-version: {text.strip()!r}")
    return problems


def _decodes(word: str) -> bool:
    _, charset, coding, content = word[:-2].split("?", 3)
    try:
        if coding.lower() == "b":
            base64.b64decode(content, validate=True).decode(charset)
        else:
            binascii.a2b_qp(content.encode("ascii"), header=True).decode(charset)
    except (ValueError, LookupError):
        return False
    return True


def _address_problems(name: str, text: str, *, smtputf8: bool) -> list[str]:
    flat = text.replace("\r\n", "").strip()
    without_quotes = re.sub(r'"(?:[^"\\]|\\.)*"', '""', flat)
    if re.search(r'"(?:[^"\\]|\\.)*=\?', flat):
        return [f"{name}: an encoded-word in a quoted string (RFC 2047 5)"]
    found = re.findall(r"<([^<>]*)>", without_quotes) or [without_quotes]
    if name == "from" and len(found) != 1:
        return ["from: not exactly one mailbox"]
    problems = []
    for address in found:
        local, at, domain = address.rpartition("@")
        if not at or not local or not re.fullmatch(r"[A-Za-z0-9.-]+", domain):
            problems.append(f"{name}: {address!r} is not an address with an ASCII domain")
        if "=?" in address:
            problems.append(f"{name}: an encoded-word in an address (RFC 2047 5)")
        if not smtputf8 and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+|\"[^\"]*\"", local):
            problems.append(f"{name}: {local!r} is not a local part")
    return problems


def _list_problems(values: dict[str, str]) -> list[str]:
    problems = []
    given = values.get("list-unsubscribe", "").strip()
    uris = re.findall(r"<([^<>]*)>", given)
    if given and not re.fullmatch(r"<[^<>\s]+>(, <[^<>\s]+>)*", given):
        problems.append(f"list-unsubscribe: {given!r} is not a list of <URI> (RFC 2369)")
    web = [uri for uri in uris if uri.startswith("https://") or _LOOPBACK.match(uri)]
    if given and len(web) != 1:
        problems.append(f"list-unsubscribe: {len(web)} https URIs, not 1 (RFC 8058 3.1)")
    problems += [f"list-unsubscribe: {uri!r}" for uri in uris if uri not in web and not uri.startswith("mailto:")]
    if "list-unsubscribe-post" in values and values["list-unsubscribe-post"] != " List-Unsubscribe=One-Click":
        problems.append("list-unsubscribe-post: not the literal value of RFC 8058 3.1")
    if "list-id" in values and not re.fullmatch(r".*<[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+>", values["list-id"].strip()):
        problems.append(f"list-id: {values['list-id']!r} (RFC 2919)")
    feedback = values.get("feedback-id", "").strip()
    if feedback and not re.fullmatch(r"[^:]*:[^:]*:[^:]*:[A-Za-z0-9]{5,15}", feedback):
        problems.append(f"feedback-id: {feedback!r}")
    return problems


def _body_problems(content_type: str, body: bytes) -> list[str]:
    """Judge the parts, whatever the nesting; the first alternative must lead to text, the second to HTML."""
    leaves: list[tuple[str, bytes]] = []
    problems = _part_problems(content_type, "7bit", body, leaves, top=True)
    kinds = [kind for kind, content in leaves if kind in ("text/plain", "text/html") and content.strip()]
    if "text/plain" not in kinds:
        problems.append("no text part, or an empty one")
    if "text/html" in kinds and kinds[0] != "text/plain":
        problems.append("the HTML stands before the text (RFC 2046 5.1.4)")
    if "multipart/alternative" in content_type.lower() and "text/html" not in kinds:
        problems.append("no HTML part, or an empty one")
    return problems


def _part_problems(
    content_type: str, coding: str, body: bytes, leaves: list[tuple[str, bytes]], *, top: bool = False
) -> list[str]:
    kind = content_type.split(";")[0].strip().lower()
    if not kind.startswith("multipart/"):
        return _leaf_problems(kind, content_type, coding, body, leaves)
    found = re.search(r'boundary=(?:"([^"]*)"|([^\s;]+))', content_type, re.IGNORECASE)
    boundary = (found[1] or found[2] or "") if found else ""
    if not re.fullmatch(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]", boundary):
        return [f"boundary {boundary!r} (RFC 2046 5.1.1)"]
    wire = b"\r\n" + body
    mark = b"\r\n--" + boundary.encode("ascii")
    pieces = wire.split(mark)
    problems = []
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        return [f"the multipart with boundary {boundary!r} is not closed"]
    if top and pieces[-1] != b"--\r\n":
        problems.append("something stands after the last boundary")
    for piece in pieces[1:-1]:
        head, gap, content = piece.partition(b"\r\n\r\n")
        if not head.startswith(b"\r\n") or not gap:
            problems.append("a part without a head")
            continue
        fields, broken = _fields(head[2:])
        values = {name: _text(value) for name, value in fields}
        problems += broken
        inner = values.get("content-transfer-encoding", "7bit").strip().lower()
        problems += _part_problems(values.get("content-type", ""), inner, content, leaves)
    return problems


def _leaf_problems(
    kind: str, content_type: str, coding: str, body: bytes, leaves: list[tuple[str, bytes]]
) -> list[str]:
    problems = []
    found = re.search(r"charset=\"?([\w-]+)", content_type)
    if kind.startswith("text/") and not found:
        problems.append(f"{kind}: no charset")
    content = body
    if coding in ("quoted-printable", "base64"):
        longest = max(len(line) for line in body.split(b"\r\n"))
        if longest > 76:
            problems.append(f"{kind}: a {coding} line of {longest} (RFC 2045 6.7, 6.8)")
    if coding == "quoted-printable":
        lines = body.split(b"\r\n")
        problems += [f"{kind}: not quoted-printable: {line!r}" for line in lines if not _QP.fullmatch(line)]
        problems += [f"{kind}: whitespace ends the line {line!r}" for line in lines if line[-1:] in (b" ", b"\t")]
        content = binascii.a2b_qp(body)
    elif coding == "base64":
        try:
            content = base64.b64decode(body.replace(b"\r\n", b""), validate=True)
        except ValueError:
            problems.append(f"{kind}: not base64")
    elif coding == "7bit":
        problems += [f"{kind}: octets beyond ASCII in 7bit"] if not body.isascii() else []
    elif coding != "8bit":
        problems.append(f"{kind}: transfer encoding {coding!r}")
    if kind.startswith("text/") and found:
        problems += _text_problems(kind, found[1], content)
    leaves.append((kind, content))
    return problems


def _text_problems(kind: str, charset: str, content: bytes) -> list[str]:
    try:
        text = content.decode(charset)
    except (UnicodeDecodeError, LookupError):
        return [f"{kind}: is not {charset}"]
    return [f"{kind}: a control character in the text"] if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text) else []


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")
