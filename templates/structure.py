"""How the parts of an e-mail stand within one another: all that is fixed between the two texts of a message.

Text and HTML are alternatives; images that the HTML shows are related to it alone; attachments stand beside them all.

Source: RFC 2046 sections 5.1.1 (boundaries), 5.1.3 (mixed), 5.1.4 (alternative, the best last); RFC 2387 (related).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernel.ids import digest
from templates.enclosures import Enclosure

_TEXT = b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: "
_GAP = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What stands before, between and after the encodings and lines of the two texts."""

    content_type: bytes
    """The field of the message's head."""
    before: bytes
    between: bytes
    after: bytes

    def body(self, text: tuple[bytes, bytes], html: tuple[bytes, bytes]) -> tuple[bytes, ...]:
        """Return the body in pieces. Text and HTML come as encoding and lines, ended by CRLF."""
        return (self.before, text[0], _GAP, text[1], self.between, html[0], _GAP, html[1], self.after)


def structure(images: Sequence[Enclosure], attachments: Sequence[Enclosure], *seed: str) -> Structure:
    """Return the structure of a step's messages.

    Args:
        images: Those the HTML shows.
        attachments: What comes besides.
        seed: What the boundaries follow from; none of them can stand in a body, since "=_" is neither quoted-printable
            nor base64 (RFC 2045 section 6.7, note).
    """
    left = b"=_" + digest(*seed)[:24].encode()
    # No boundary may begin with another.
    kind, boundary = b"alternative", left + b"a"
    before = b"--%b\r\n%b" % (boundary, _TEXT % b"plain")
    between = b"\r\n--%b\r\n" % boundary
    after = b"\r\n--%b--\r\n" % boundary
    if images:
        related = left + b"r"
        parts = b"".join([b"\r\n--%b\r\n%b" % (related, image.part) for image in images])
        between += b'Content-Type: multipart/related; type="text/html";\r\n boundary="%b"\r\n\r\n--%b\r\n' % (
            related,
            related,
        )
        after = parts + b"\r\n--%b--\r\n" % related + after
    if attachments:
        mixed = left + b"m"
        before = b'--%b\r\nContent-Type: multipart/alternative; boundary="%b"\r\n\r\n%b' % (mixed, boundary, before)
        parts = b"".join([b"\r\n--%b\r\n%b" % (mixed, attached.part) for attached in attachments])
        after = after + parts + b"\r\n--%b--\r\n" % mixed
        kind, boundary = b"mixed", mixed
    return Structure(
        content_type=b'Content-Type: multipart/%b; boundary="%b"\r\n' % (kind, boundary),
        before=before,
        between=between + _TEXT % b"html",
        after=after,
    )
