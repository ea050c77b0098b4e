"""One request, one answer, and the two ways in which there is none."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from kernel.errors import OutcomeUnknown

ANSWER_LIMIT = 64 * 1024
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class NotSent(Exception):
    """The request never left whole, so the server cannot have acted on it.

    `lasting` marks what an operator must mend: a certificate that does not verify.
    """

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        super().__init__(text)
        self.lasting = lasting


class NoAnswer(Exception):
    """The request left and no whole answer came: the server may have acted on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. `url` is complete, its query percent-encoded; `headers` leave out Host and Content-Length."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def wire(self) -> bytes:
        """Return the bytes of the request.

        Raises:
            ValueError: a header that would break the frame, or an URL without a host.
        """
        where = urlsplit(self.url)
        target = (where.path or "/") + (f"?{where.query}" if where.query else "")
        if not target.isascii() or _FORBIDDEN.search(target) or " " in target or not where.netloc:
            raise ValueError("the URL is not percent-encoded")
        host = where.netloc.rpartition("@")[2]
        lines = [f"{self.method} {target} HTTP/1.1", f"Host: {host}"]
        for name, value in self.headers.items():
            if not _NAME.fullmatch(name) or _FORBIDDEN.search(value):
                raise ValueError(f"the value of header {name!r} holds a line end or a control character")
            lines.append(f"{name}: {value}")
        if self.body or self.method != "GET":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "\r\n"]).encode("utf-8") + self.body

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port to connect to.

        Raises:
            ValueError: the URL is none of http and https with a host.
        """
        where = urlsplit(self.url)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise ValueError("the URL must begin with http:// or https:// and name a host")
        return where.scheme, where.hostname, where.port or (443 if where.scheme == "https" else 80)


class Answer:
    """A server's answer, at most 64 KiB of it; `whole` is False where it was longer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, *, whole: bool = True) -> None:
        """Take an answer; the names of `headers` are in lower case."""
        self.status = status
        self.headers = headers
        self.whole = whole
        self.text = body.decode("utf-8", "replace").replace("\x00", "")
        self.excerpt = f"{status} {self.text[:200]}".strip()

    def json(self) -> Any:
        """Return the body as JSON; a success that cannot be read leaves the outcome unknown."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise OutcomeUnknown(f"answer is not JSON: {self.excerpt}", code=self.status) from error

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object; anything else leaves the outcome unknown."""
        data = self.json()
        if not isinstance(data, dict):
            raise OutcomeUnknown(f"answer is no JSON object: {self.excerpt}", code=self.status)
        return data

    @property
    def retry_after_s(self) -> float | None:
        """How long the server asks us to stay away; a date counts from the answer's own Date (RFC 9110 10.2.3)."""
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            until = parsedate_to_datetime(value)
            asked = parsedate_to_datetime(self.headers.get("date", ""))
            return max((until - asked).total_seconds(), 0.0)
        except (ValueError, TypeError):
            return None


def get(url: str, query: Mapping[str, str | bytes] | None = None, headers: Mapping[str, str] | None = None) -> Request:
    """Return a GET request with its query added."""
    return Request(method="GET", url=with_query(url, query), headers=headers or {})


def post_form(
    url: str, fields: Mapping[str, str] | Sequence[tuple[str, str]], headers: Mapping[str, str] | None = None
) -> Request:
    """Return a POST of a form."""
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return Request(method="POST", url=url, headers={**kind, **(headers or {})}, body=urlencode(fields).encode())


def post_json(url: str, data: Any, headers: Mapping[str, str] | None = None) -> Request:
    """Return a POST of a JSON document."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return Request(method="POST", url=url, headers={"Content-Type": "application/json", **(headers or {})}, body=body)


def with_query(url: str, query: Mapping[str, str] | Mapping[str, str | bytes] | None) -> str:
    """Return the URL with further parameters."""
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query, quote_via=quote)}"


def basic(username: str, password: str) -> dict[str, str]:
    """Return the header of basic authentication (RFC 7617)."""
    pair = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
    return {"Authorization": f"Basic {pair}"}
