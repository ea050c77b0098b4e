"""What comes with an e-mail besides its texts: images that stand in the HTML, and attachments.

They lie beside the template: `winback/images/logo.png`, named `images/logo.png` in the HTML, and
`winback/attachments/…`; a language may have its own. They are pinned with the campaign, in base64, and are encoded for
the wire once a step.

Source: RFC 2387 (multipart/related), RFC 2392 (cid), RFC 2183 (Content-Disposition), RFC 2231 sections 3 and 4 (file
names).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from kernel.errors import ConfigError
from kernel.ids import digest
from templates.problems import Place, refused

IMAGES, ATTACHMENTS = "images", "attachments"
MAX_OCTETS = 5_000_000
"""Of all enclosures of a template together; base64 makes four octets of three, and relays refuse from 10 MB on."""
_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
_KINDS = {
    **_IMAGES,
    ".pdf": "application/pdf",
    ".csv": "text/csv; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".ics": "text/calendar; charset=utf-8",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".zip": "application/zip",
}
"""Kinds of files that mail programs show; programs and scripts are what receivers refuse whole messages for."""
_LINE = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """One file that comes with a message. `content_id` is "" for attachments."""

    name: str
    kind: str
    content: bytes
    content_id: str = ""

    @property
    def part(self) -> bytes:
        """The whole MIME part, head and lines, ended by CRLF."""
        disposition = "inline" if self.content_id else "attachment"
        fields = [
            f"Content-Type: {self.kind}",
            "Content-Transfer-Encoding: base64",
            f"Content-Disposition: {disposition}{_file_name(self.name)}",
        ]
        if self.content_id:
            fields.append(f"Content-ID: <{self.content_id}>")
        text = binascii.b2a_base64(self.content, newline=False)
        lines = [text[start : start + 76] for start in range(0, len(text), 76)]
        return "\r\n".join(fields).encode() + b"\r\n\r\n" + b"\r\n".join(lines) + b"\r\n"


def _file_name(name: str) -> str:
    """Return the parameter that names a file, folded; in the form of RFC 2231 where it is not plain ASCII."""
    if name.isascii() and name.isprintable() and not set(name) & set('"\\') and len(name) <= _LINE - 14:
        return f';\r\n filename="{name}"'
    coded = quote(name, safe="")
    if len(coded) <= _LINE - 20:
        return f";\r\n filename*=UTF-8''{coded}"
    lines: list[str] = []
    rest = f"UTF-8''{coded}"
    while rest:
        end = min(len(rest), _LINE - 20)
        # A per cent sign and its two digits stay together.
        end -= next((back for back in (1, 2) if end < len(rest) and rest[end - back] == "%"), 0)
        lines.append(f";\r\n filename*{len(lines)}*={rest[:end]}")
        rest = rest[end:]
    return "".join(lines)


def enclosure_files(root: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield path within the templates folder and content in base64 of every enclosure of a template, sorted.

    Args:
        root: The workspace's templates folder.
        name: The template's folder.

    Raises:
        InputError: a file of a kind that is not sent, not readable, or all of them too large.
    """
    total = 0
    for path in sorted(_enclosed(root / name)):
        shown = path.relative_to(root).as_posix()
        kinds = _IMAGES if path.parent.name == IMAGES else _KINDS
        if path.suffix.lower() not in kinds:
            raise refused(Place(shown, 1), "is of a kind that is not sent", f"there are {', '.join(kinds)}")
        content = _read(path, shown)
        total += len(content)
        if total > MAX_OCTETS:
            hint = f"all that comes with a message may have {MAX_OCTETS:,} octets; link to what is larger"
            raise refused(Place(shown, 1), "makes the message too large", hint)
        yield shown, base64.b64encode(content).decode("ascii")


def _enclosed(folder: Path) -> Iterator[Path]:
    for kind in (IMAGES, ATTACHMENTS):
        for path in (*folder.glob(f"{kind}/*"), *folder.glob(f"*/{kind}/*")):
            if path.is_file() and not path.name.startswith("."):
                yield path


def _read(path: Path, shown: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise refused(Place(shown, 1), f"cannot be read: {error.strerror}") from error
    if _KINDS[path.suffix.lower()].startswith("text/"):
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise refused(Place(shown, 1), f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    return content


def is_enclosure(path: str) -> bool:
    """Return whether a pinned file is an enclosure and no text of a template."""
    parts = PurePosixPath(path).parts
    return len(parts) in (3, 4) and parts[-2] in (IMAGES, ATTACHMENTS)


def enclosed(files: Mapping[str, str], folders: Iterable[str], kind: str) -> dict[str, bytes]:
    """Return the content of a template's enclosures by file name.

    Args:
        files: Pinned files by path.
        folders: Where to look; of two files of one name the first is taken.
        kind: IMAGES or ATTACHMENTS.
    """
    found: dict[str, bytes] = {}
    for folder in folders:
        start = f"{folder}/{kind}/"
        for path in sorted(files):
            name = path.removeprefix(start)
            if path.startswith(start) and "/" not in name:
                found.setdefault(name, base64.b64decode(files[path]))
    return found


def image(name: str, content: bytes, domain: str) -> Enclosure:
    """Return an image that the HTML names by its content id, which follows from its content."""
    content_id = f"{digest(content)[:24]}@{domain}"
    return Enclosure(name=name, kind=_kind(name), content=content, content_id=content_id)


def attachment(name: str, content: bytes) -> Enclosure:
    """Return an attachment."""
    return Enclosure(name=name, kind=_kind(name), content=content)


def _kind(name: str) -> str:
    kind = _KINDS.get(PurePosixPath(name).suffix.lower())
    if kind is None:
        # Pinned by another release that knew the kind.
        raise ConfigError(f"{name!r} is of a kind this release does not send; apply the campaign again")
    return kind
