"""Taking raw mail apart without ever failing on it: bounded in size, depth and number, any charset.

Mail is parsed as Latin-1, which maps every byte to one character and back: nothing is lost before the charset is known.
"""

from __future__ import annotations

import base64
import binascii
import email
import quopri
import re
from collections.abc import Iterator
from email import policy
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message

PARSED_BYTES = 2 * 1024 * 1024
_PARTS = 100
_DEPTH = 12
_TEXT_CHARS = 64 * 1024
_FIELD_CHARS = 4000

Fields = dict[str, str]
"""Header fields by lower-case name; of several the first."""


def parse_mail(raw: bytes) -> Message | None:
    """Return the parsed mail, of a huge one its beginning; None where it cannot be parsed at all."""
    try:
        return email.message_from_string(raw[:PARSED_BYTES].decode("latin-1"), policy=policy.compat32)
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError, HeaderParseError):
        # The standard parser has raised each of these on hostile mail.
        return None


def parts_of(message: Message) -> Iterator[Message]:
    """Yield the parts of a report, outermost first; what lies inside a returned message is not looked at."""
    queue, seen = [(message, 0)], 0
    while queue and seen < _PARTS:
        part, depth = queue.pop(0)
        seen += 1
        yield part
        payload = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(payload, list) and depth < _DEPTH:
            queue.extend((inner, depth + 1) for inner in payload if isinstance(inner, Message))


def field_of(message: Message, name: str) -> str:
    """Return a header field, decoded; "" where there is none."""
    value = message.get(name)
    return decoded_field(str(value)) if value is not None else ""


def decoded_field(value: str) -> str:
    """Return a field with encoded words and raw eight-bit text made readable."""
    value = value[:_FIELD_CHARS]
    if "=?" in value:
        try:
            chunks = decode_header(value)
        except (HeaderParseError, ValueError, binascii.Error):
            chunks = [(value, None)]
        value = "".join(
            chunk if isinstance(chunk, str) else readable(chunk, charset or "latin-1") for chunk, charset in chunks
        )
    elif any(character > "\x7f" for character in value):
        value = readable(value.encode("latin-1", "replace"), "")
    return re.sub(r"\s+", " ", value).strip()


def readable(raw: bytes, charset: str) -> str:
    """Return text in the named charset, or in the first of UTF-8 and GB18030 that fits."""
    raw = raw[:_TEXT_CHARS]
    for name in (charset, "utf-8", "gb18030"):
        try:
            if name:
                return raw.decode(name)
        except (LookupError, ValueError, OverflowError):
            continue
    return raw.decode("utf-8", "replace")


def text_of(part: Message) -> str:
    """Return the readable text of a leaf; HTML loses its tags. "" where it is no text."""
    if part.get_content_maintype() != "text":
        return ""
    payload = part.get_payload()
    if not isinstance(payload, str):
        return ""
    try:
        charset = str(part.get_content_charset() or "")
    except (LookupError, ValueError, TypeError):
        charset = ""
    text = readable(_transfer_decoded(part, payload[: 2 * _TEXT_CHARS]), charset)
    return re.sub(r"<[^<>]{0,1000}>", " ", text) if part.get_content_subtype() == "html" else text


def blocks_of(part: Message) -> list[Fields]:
    """Return the blocks of fields of a delivery-status or feedback-report part, however it is encoded."""
    payload = part.get_payload()
    if isinstance(payload, list):
        payload = "\n\n".join(_source(inner) for inner in payload if isinstance(inner, Message))
    raw = _transfer_decoded(part, str(payload)[:_TEXT_CHARS])
    text = raw.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")
    blocks = (_fields(block) for block in re.split(r"\n[ \t]*\n", text))
    return [block for block in blocks if block]


def _source(message: Message) -> str:
    body = message.get_payload()
    lines = "\n".join(f"{name}: {value}" for name, value in message.items())
    return f"{lines}\n\n{body}" if isinstance(body, str) else lines


def _fields(block: str) -> Fields:
    fields: Fields = {}
    for line in re.sub(r"\n[ \t]+", " ", block).split("\n"):
        name, colon, value = line.partition(":")
        if colon and re.fullmatch(r"[!-9;-~]+", name.strip()):
            fields.setdefault(name.strip().lower(), decoded_field(value.strip()))
    return fields


def _transfer_decoded(part: Message, payload: str) -> bytes:
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    raw = payload.encode("latin-1", "replace")
    if encoding == "base64":
        kept = re.sub(rb"[^A-Za-z0-9+/]", b"", raw)
        try:
            return base64.b64decode(kept[: len(kept) // 4 * 4] + _rest(kept))
        except (binascii.Error, ValueError):
            return raw
    return quopri.decodestring(raw) if encoding == "quoted-printable" else raw


def _rest(kept: bytes) -> bytes:
    """Return the last, incomplete group of base64 with its padding."""
    rest = kept[len(kept) // 4 * 4 :]
    return rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""
