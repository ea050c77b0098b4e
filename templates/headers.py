"""Header fields as bytes, folded and encoded by our own rules.

Structured fields (List-Unsubscribe, Message-ID, List-Id, Feedback-ID) are written raw, on one line: an encoded-word in
them, or a fold within a URI, is what makes receivers ignore one-click.

Source: RFC 5322 section 2.2.3 (folding) and 3.2.4 (quoted strings); RFC 2047 sections 2 and 5.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

MAX_LINE = 76
"""Of a line that is folded; RFC 2047 section 2 sets it for lines with encoded-words."""
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_NAME = re.compile(r"[!-9;-~]+")
_RAW = re.compile(r"[ -~]+")
_Q_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_MAX_WORD = 75


def raw_field(name: str, value: str) -> bytes:
    """Return a structured field on one physical line.

    Raises:
        ValueError: the name or value is not printable ASCII, or the line is longer than 998 octets.
    """
    if not _NAME.fullmatch(name) or not _RAW.fullmatch(value):
        raise ValueError(f"{name}: {value[:200]!r} cannot stand in a header")
    line = f"{name}: {value}\r\n".encode("ascii")
    if len(line) > 1000:
        raise ValueError(f"{name} is longer than a line of a message may be")
    return line


def text_field(name: str, value: str) -> bytes:
    """Return an unstructured field such as Subject: plain and folded at its spaces, else in encoded-words.

    Args:
        name: The field's name.
        value: One line of text without control characters.
    """
    line = f"{name}: {value}"
    if len(line) <= MAX_LINE and value.isascii() and "=?" not in value and value.strip() == value:
        return f"{line}\r\n".encode("ascii")
    folded = _folded(f"{name}:", value)
    if folded is None:
        folded = f"{name}: " + "\r\n ".join(encoded_words(value, first=MAX_LINE - len(name) - 2))
    return f"{folded}\r\n".encode("ascii")


def mailbox_field(name: str, display_name: str, address: str) -> bytes:
    """Return an address field such as From, its display name quoted or encoded where it must be.

    Args:
        name: The field's name.
        display_name: May be empty.
        address: With its domain in A-labels.

    Raises:
        ValueError: the display name holds control characters.
    """
    if any(ord(letter) < 32 or 0x7F <= ord(letter) <= 0x9F for letter in display_name):
        raise ValueError(f"{name}: the name {display_name!r} holds a control character")
    if not display_name:
        return f"{name}: {address}\r\n".encode()
    if display_name.isascii() and "=?" not in display_name and len(display_name) < 60:
        plain = _ATOMS.fullmatch(display_name) is not None
        escaped = display_name.replace("\\", "\\\\").replace('"', '\\"')
        phrase = display_name if plain else f'"{escaped}"'
    else:
        phrase = "\r\n ".join(encoded_words(display_name, first=MAX_LINE - len(name) - 2))
    last_line = phrase.rsplit("\n", 1)[-1] if "\n" in phrase else f"{name}: {phrase}"
    gap = " " if len(last_line) + len(address) + 3 <= MAX_LINE else "\r\n "
    return f"{name}: {phrase}{gap}<{address}>\r\n".encode()


def encoded_words(text: str, *, first: int) -> list[str]:
    """Return the text as encoded-words of at most 75 characters, none of them splitting a character.

    Args:
        text: Any text without lone surrogates.
        first: How long the first word may be.

    Source:
        RFC 2047 section 2 and section 5, rule 3 (the letters of Q that are safe in a phrase as well).
    """
    raw = text.encode()
    quoted = sum(1 if byte in _Q_SAFE or byte == 32 else 3 for byte in raw)
    return list(_q_words(text, first) if quoted <= len(raw) * 4 / 3 else _b_words(text, first))


def _q_words(text: str, first: int) -> Iterator[str]:
    room, word = min(first, _MAX_WORD) - 12, ""
    for letter in text:
        coded = "_" if letter == " " else "".join(chr(b) if b in _Q_SAFE else f"={b:02X}" for b in letter.encode())
        if len(word) + len(coded) > room and word:
            yield f"=?utf-8?q?{word}?="
            room, word = _MAX_WORD - 12, ""
        word += coded
    yield f"=?utf-8?q?{word}?="


def _b_words(text: str, first: int) -> Iterator[str]:
    room, chunk = (min(first, _MAX_WORD) - 12) // 4 * 3, b""
    for letter in text:
        coded = letter.encode()
        if len(chunk) + len(coded) > room and chunk:
            yield _b_word(chunk)
            room, chunk = (_MAX_WORD - 12) // 4 * 3, b""
        chunk += coded
    yield _b_word(chunk)


def _b_word(chunk: bytes) -> str:
    return f"=?utf-8?b?{binascii.b2a_base64(chunk, newline=False).decode('ascii')}?="


def _folded(line: str, value: str) -> str | None:
    """Return the field folded at single spaces, or None where only encoded-words can carry the value as it is."""
    words = value.split(" ")
    if not value.isascii() or "=?" in value or not all(words):
        return None
    lines = [line]
    for word in words:
        if len(word) >= MAX_LINE:
            return None
        if len(lines[-1]) + 1 + len(word) > MAX_LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)
